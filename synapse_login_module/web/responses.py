"""HTTP responses, and the one map from an error class to a response."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from twisted.web.http import Request, datetimeToString

from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    AccountNotLinked,
    AccountRefused,
    ExpiredToken,
    HomeserverUnavailable,
    InvalidCredentials,
    LoginNotPermitted,
    PasswordExpired,
    ProviderUnavailable,
    RateLimited,
    RefreshRefused,
    ServerBusy,
    ServiceRefused,
    SessionMismatch,
    StoreUnavailable,
    SupersededToken,
    UnknownSession,
    UnknownToken,
)

CORS: Mapping[bytes, bytes] = {
    b"Access-Control-Allow-Origin": b"*",
    b"Access-Control-Allow-Methods": b"GET, HEAD, POST, PUT, DELETE, OPTIONS",
    b"Access-Control-Allow-Headers": b"X-Requested-With, Content-Type, Authorization, Date",
    b"Access-Control-Expose-Headers": b"Retry-After",
}


def _lines(headers: Mapping[bytes, bytes]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers.items())


_WITHOUT_BODY = (204, 304)
_TYPE, _LENGTH = b"Content-Type", b"Content-Length"

_BODY_LINES = b"%b: %%b\r\n%b: %%d\r\n" % (_TYPE, _LENGTH)
"""The lines of the headers of a body, with the places of its type and its length."""


class CommonHeaders(NamedTuple):
    """The headers that all responses of one kind carry.

    :param lines: the same, as they are sent. It is computed once, and not for each response.
    """

    headers: Mapping[bytes, bytes]
    lines: bytes

    @classmethod
    def of(cls, headers: Mapping[bytes, bytes]) -> CommonHeaders:
        """Make them from a mapping."""
        return cls(headers, _lines(headers))


FOR_ANY_ORIGIN = CommonHeaders.of({**CORS, b"Cache-Control": b"no-store"})
"""Of the Matrix API, which clients at any address use."""

FOR_SERVERS = CommonHeaders.of({b"Cache-Control": b"no-store"})
"""Of responses to other servers. Without CORS, no web page can read them."""


@lru_cache(1)
def _date(second: int) -> bytes:
    """Write a time as a ``Date`` header does (RFC 9110, section 5.6.7): once for each second."""
    date: bytes = datetimeToString(second)
    return date


_to_json = TypeAdapter(dict[str, Any]).serializer.to_json
_PHRASES = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


class Response(NamedTuple):
    """One HTTP response.

    :param headers: those of its own: neither the common ones nor the type and the length of the
        body.
    :param common: the headers that it has in common with others.
    """

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Mapping[bytes, bytes] = MappingProxyType({})
    common: CommonHeaders = FOR_ANY_ORIGIN

    def to_bytes(self, version: bytes, is_last: bool, with_body: bool = True) -> bytes:
        """Return the whole response, as it is sent.

        :param version: of the protocol.
        :param is_last: whether the connection is closed after it.
        """
        return b"%b %d %b\r\nDate: %b\r\n%b%b%b\r\n%b" % (
            version,
            self.status,
            _PHRASES[self.status],
            _date(int(time.time())),
            self.common.lines,
            self._own_lines(),
            b"Connection: close\r\n" if is_last else b"",
            self.body if with_body else b"",
        )

    def payload(self) -> dict[str, Any]:
        """Return the JSON object that is the body."""
        payload: dict[str, Any] = json.loads(self.body)
        return payload

    def own_headers(self) -> Mapping[bytes, bytes]:
        """Return the headers but for the common ones."""
        if self.status in _WITHOUT_BODY:
            return self.headers
        return {**self.headers, _TYPE: self.content_type, _LENGTH: b"%d" % len(self.body)}

    def _own_lines(self) -> bytes:
        """Return the same as they are sent, without a mapping of them: most have only these two."""
        if self.status in _WITHOUT_BODY:
            return _lines(self.headers)
        lines = _BODY_LINES % (self.content_type, len(self.body))
        return _lines(self.headers) + lines if self.headers else lines


Send = Callable[[Any, Response], object]
"""Sends a response to a request and finishes the request."""


def counting(send: Send, count: Callable[[int], None]) -> Send:
    """Return what sends responses and has each counted.

    :param count: called with the status of a response before it is sent.
    """

    def send_and_count(request: Any, response: Response) -> object:
        count(response.status)
        return send(request, response)

    return send_and_count


def send_by_headers(request: Request, response: Response) -> None:
    """Send a response header by header, which works with each kind of Twisted's requests.

    Synapse's requests need it: they log and count the response by what is set on them.
    """
    request.setResponseCode(response.status)
    for name, value in {**response.common.headers, **response.own_headers()}.items():
        request.setHeader(name, value)
    request.write(response.body)
    request.finish()


class ErrorResponse(Exception):
    """A request is wrong in itself; carries the response to it."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def json_response(
    status: int, payload: Mapping[str, Any], headers: Mapping[bytes, bytes] | None = None
) -> Response:
    """Make a response with a JSON object."""
    return Response(status, json.dumps(payload).encode("ascii"), headers=headers or {})


def success(payload: Mapping[str, Any]) -> Response:
    """Make a 200 with a JSON object."""
    return json_response(200, payload)


def success_in_utf8(payload: dict[str, Any]) -> Response:
    """Make a 200 with a JSON object, as :func:`success` does, in a fifth of the time.

    :raise ValueError: for text that UTF-8 cannot encode.
    """
    return Response(200, _to_json(payload))


def text(status: int, body: bytes, headers: Mapping[bytes, bytes] | None = None) -> Response:
    """Make a response in plain text."""
    return Response(status, body, b"text/plain; charset=utf-8", headers or {})


def error(
    status: int,
    errcode: str,
    message: str,
    headers: Mapping[bytes, bytes] | None = None,
    **more: Any,
) -> Response:
    """Make a standard error response (specification: "Standard error response").

    :param more: further keys of the JSON object.
    """
    return json_response(status, {"errcode": errcode, "error": message, **more}, headers)


def bad_field(path: str, problem: str, errcode: str = "M_BAD_JSON") -> ErrorResponse:
    """Make the 400 that names the field of the body which is wrong.

    :param path: of the field; empty for the body itself.
    """
    return ErrorResponse(error(400, errcode, f"{path}: {problem}" if path else problem))


def _unavailable(message: str, retry_after: bytes) -> tuple[Response, Response]:
    """Make a 503 in JSON, and the same in plain text."""
    headers = {b"Retry-After": retry_after}
    plain = text(503, f"{message}\n".encode("ascii"), headers)
    return error(503, "M_UNKNOWN", message, headers), plain


BAD_REQUEST = error(400, "M_UNKNOWN", "Bad request")
NO_CONTENT = Response(204, b"")
NOT_FOUND = error(404, "M_UNRECOGNIZED", "Unrecognized request")
NOT_JSON = error(400, "M_NOT_JSON", "Content not JSON.")
TIMED_OUT = error(408, "M_UNKNOWN", "The request did not arrive in time")
TOO_LARGE = error(413, "M_TOO_LARGE", "The body is larger than 64 KiB")
TARGET_TOO_LONG = error(414, "M_TOO_LARGE", "The request line is too long")
HEADERS_TOO_LARGE = error(431, "M_TOO_LARGE", "The headers are too large")
MISSING_TOKEN = error(401, "M_MISSING_TOKEN", "Missing access token")
BAD_LOGIN_TYPE = error(400, "M_UNKNOWN", "Bad login type.")
INVALID_CREDENTIALS = error(403, "M_FORBIDDEN", "Invalid username or password")
SERVICE_REFUSED = error(403, "M_FORBIDDEN", "The token is of no application service of this user")
_NOT_LINKED = error(
    403,
    "M_FORBIDDEN",
    "There is an account of this name here already, and it is not linked to yours",
)
_DEACTIVATED = error(403, "M_USER_DEACTIVATED", "This account has been deactivated")
_LOCKED = error(401, "M_USER_LOCKED", "This account has been locked", soft_logout=True)
_PASSWORD_EXPIRED = error(
    403,
    "M_FORBIDDEN",
    "Your password has expired. Change it where your account is kept, then log in again",
)
_NOT_PERMITTED = error(403, "M_FORBIDDEN", "This account may not log in here, or not at this time")
_REFUSED = error(403, "M_FORBIDDEN", "Invalid refresh token")
_UNKNOWN_TOKEN = error(401, "M_UNKNOWN_TOKEN", "Unknown token")
_EXPIRED_TOKEN = error(401, "M_UNKNOWN_TOKEN", "The token has expired", soft_logout=True)
_SUPERSEDED_TOKEN = error(
    401, "M_UNKNOWN_TOKEN", "The token has been used or replaced", soft_logout=True
)
_UNKNOWN_SESSION = error(404, "M_NOT_FOUND", "There is no session on this device")
_INTERNAL = error(500, "M_UNKNOWN", "Internal server error")
_PROVIDER_DOWN, _ = _unavailable("Passwords cannot be checked at the moment", b"5")
_STORE_DOWN, _STORE_DOWN_TEXT = _unavailable("Sessions cannot be kept at the moment", b"5")
_HOMESERVER_DOWN, _ = _unavailable("The homeserver cannot be reached at the moment", b"5")
BUSY, _BUSY_TEXT = _unavailable("Too many requests are being answered", b"1")

_ERRORS: Mapping[type[Exception], Response] = {
    InvalidCredentials: INVALID_CREDENTIALS,
    AccountDeactivated: _DEACTIVATED,
    AccountNotLinked: _NOT_LINKED,
    AccountLocked: _LOCKED,
    PasswordExpired: _PASSWORD_EXPIRED,
    LoginNotPermitted: _NOT_PERMITTED,
    ServiceRefused: SERVICE_REFUSED,
    RefreshRefused: _REFUSED,
    SessionMismatch: _REFUSED,
    UnknownToken: _UNKNOWN_TOKEN,
    ExpiredToken: _EXPIRED_TOKEN,
    SupersededToken: _SUPERSEDED_TOKEN,
    UnknownSession: _UNKNOWN_SESSION,
    ProviderUnavailable: _PROVIDER_DOWN,
    StoreUnavailable: _STORE_DOWN,
    HomeserverUnavailable: _HOMESERVER_DOWN,
    ServerBusy: BUSY,
}

_ERRORS_ON_REFRESH: Mapping[type[Exception], Response] = {
    **_ERRORS,
    StoreUnavailable: _STORE_DOWN_TEXT,
    ServerBusy: _BUSY_TEXT,
}


def method_not_allowed(allowed: list[str]) -> Response:
    """Make a 405 that names the methods that are allowed."""
    header = ", ".join([*allowed, "OPTIONS"]).encode("ascii")
    return error(405, "M_UNRECOGNIZED", "Method not allowed", {b"Allow": header})


def response_to(problem: BaseException, outages_as_text: bool = False) -> Response | None:
    """Return the response to an error; ``None`` for an unexpected one.

    :param outages_as_text: whether the response to an outage is plain text, since matrix-js-sdk and
        matrix-dart-sdk take any JSON error on a refresh for the end of the session.
    """
    if isinstance(problem, ErrorResponse):
        return problem.response
    if isinstance(problem, RateLimited):
        more = {"retry_after_ms": math.ceil(problem.retry_after * 1000)}
        return error(429, "M_LIMIT_EXCEEDED", "Too Many Requests", _retry(more), **more)
    if isinstance(problem, AccountRefused):
        said = {"errcode": problem.errcode, "error": problem.problem}
        return json_response(problem.status, {**problem.more, **said}, _retry(problem.more))
    known = _ERRORS_ON_REFRESH if outages_as_text else _ERRORS
    return next((known[kind] for kind in type(problem).__mro__ if kind in known), None)


def _retry(more: Mapping[str, Any]) -> Mapping[bytes, bytes]:
    """Return the header that says in seconds what ``retry_after_ms`` says in the body."""
    milliseconds = more.get("retry_after_ms")
    if not isinstance(milliseconds, int):
        return {}
    return {b"Retry-After": b"%d" % math.ceil(milliseconds / 1000)}


def internal_error() -> Response:
    """Return the response to an unexpected error, whose details only the log has."""
    return _INTERNAL
