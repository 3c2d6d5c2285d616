"""The handlers for the homeserver, which asks whose token a client has sent (RFC 7662)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request

from synapse_login_module.common.repeats import OncePerPeriod
from synapse_login_module.errors import (
    AccountLocked,
    ExpiredToken,
    StoreUnavailable,
    UnknownToken,
)
from synapse_login_module.login import LoginService
from synapse_login_module.model import MAX_HOMESERVER_DEVICE_ID, HomeserverPolicy, SessionInfo
from synapse_login_module.web import requests
from synapse_login_module.web.responses import (
    ErrorResponse,
    Response,
    error,
    json_response,
    success,
)
from synapse_login_module.web.timeouts import TimeoutQueue

DEADLINE = 4.0
"""Seconds within which an introspection is answered. Synapse itself waits without an end."""

_FORM = b"application/x-www-form-urlencoded"
_USUAL_FORM = re.compile(rb"token=([A-Za-z0-9_.~-]+)&token_type_hint=access_token")
"""The form that Synapse sends, with a token of any kind. Parsing it otherwise takes ten times as
long."""

_SCOPE = "urn:matrix:client:api:*"
_ADMIN_SCOPE = f"{_SCOPE} urn:synapse:admin:*"

_INACTIVE = success({"active": False})
_LOCKED = error(503, "M_USER_LOCKED", "This account has been locked", {b"Retry-After": b"60"})
_OTHER_NAME = error(
    503, "M_UNKNOWN", "The session is of another server name", {b"Retry-After": b"60"}
)
_NO_SECRET = error(401, "M_MISSING_TOKEN", "Missing secret", {b"WWW-Authenticate": b"Bearer"})
_WRONG_SECRET = error(
    401, "M_UNKNOWN_TOKEN", "Wrong secret", {b"WWW-Authenticate": b'Bearer error="invalid_token"'}
)


class InternalHandlers:
    """The handlers of what one homeserver calls.

    :param service: the use cases. The timeout of its looks has to be below :data:`DEADLINE`, or a
        provider that hangs makes every token unavailable.
    :param policy: what this server does for the homeserver.
    :param server_name: the homeserver's name.
    :param has_secret: whether a request comes from the homeserver, by the secret in it.
    :param issuer: the URL that names this server to the homeserver's clients.
    :param account_management_uri: the URL of the page where users manage their sessions.
    :param clock: the wall clock, seconds since the epoch.
    :param reactor: has the clock and the timer of deadlines.
    """

    log = Logger()

    def __init__(
        self,
        service: LoginService,
        policy: HomeserverPolicy,
        server_name: str,
        has_secret: Callable[[bytes], bool],
        issuer: str,
        account_management_uri: str,
        clock: Callable[[], float],
        reactor: IReactorTime,
    ) -> None:
        self._service = service
        self._policy = policy
        self._server_name = server_name
        self._host = f":{server_name}"
        self._has_secret = has_secret
        # The homeserver shows its clients all that is here.
        self._configuration = success(
            {"issuer": issuer, "account_management_uri": account_management_uri}
        )
        self._clock = clock
        self._is_asked = False
        # The homeserver repeats its requests.
        self._secret_lines = OncePerPeriod(reactor.seconds)
        self._name_lines = OncePerPeriod(reactor.seconds)
        self._waiting: TimeoutQueue[Deferred[Any]] = TimeoutQueue(
            DEADLINE, Deferred.cancel, reactor
        )

    async def configuration(self, request: Request) -> Response:
        """Handle ``GET /.well-known/openid-configuration``: describe this server."""
        return self._configuration

    async def introspect(self, request: Request) -> Response:
        """Handle ``POST /oauth2/introspect``: tell whose access token it is, if it is valid.

        The homeserver takes every error for "unknown at the moment", and asks again. It caches any
        other response.
        """
        self._require_secret(request)
        token = _token(request)
        try:
            session = await self._session(token)
        except (UnknownToken, ExpiredToken):
            return _INACTIVE
        except AccountLocked:
            return _INACTIVE if self._policy.locked_accounts == "end" else _LOCKED
        return self._describe(session)

    async def _session(self, token: str) -> SessionInfo:
        """Find the session of an access token within the deadline."""
        found = Deferred.fromCoroutine(self._service.whoami(token))
        if found.called:
            return await found
        self._waiting.add(found)
        try:
            return await found
        except CancelledError:
            if found in self._waiting:
                raise  # by the homeserver, which has closed the connection
            raise StoreUnavailable(f"no answer within {DEADLINE:g} seconds") from None
        finally:
            self._waiting.remove(found)

    def _require_secret(self, request: Request) -> None:
        given = request.requestHeaders.getRawHeaders(b"Authorization", [])
        scheme, _, secret = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer":
            raise ErrorResponse(_NO_SECRET)
        if not self._has_secret(secret.strip()):
            self._warn_of_secret(request)
            raise ErrorResponse(_WRONG_SECRET)
        if not self._is_asked:
            self._is_asked = True
            self.log.info("homeserver: it asks about tokens")

    def _warn_of_secret(self, request: Request) -> None:
        if not self._secret_lines.is_written():
            return
        self.log.warn(
            "{address} asked about an access token with a wrong secret: if that is the homeserver,"
            " secret_file and matrix_authentication_service in homeserver.yaml have two secrets",
            address=getattr(request.getClientAddress(), "host", "a homeserver"),
        )

    def _warn_of_name(self, user_id: str) -> None:
        if not self._name_lines.is_written():
            return
        self.log.warn(
            "the homeserver asked about a session of {user_id}, but server_name is {server_name}:"
            " if that is a mistake, mend it and restart this server, and the session goes on",
            user_id=user_id,
            server_name=self._server_name,
        )

    def _describe(self, session: SessionInfo) -> Response:
        """Make the response of an active token.

        A token with less than a second left is active, and ``expires_in`` is 0. Synapse rejects
        it, which no other response prevents: it counts in whole seconds.
        """
        if not session.user_id.endswith(self._host):
            # The homeserver caches "inactive" and logs clients out. A mistyped name must not.
            self._warn_of_name(session.user_id)
            return _OTHER_NAME
        localpart = session.user_id[1:].removesuffix(self._host)
        # A session of before may have a name or a device that Synapse cannot accept. It must not
        # be taken for another user's.
        if ":" in localpart or len(session.device_id) > MAX_HOMESERVER_DEVICE_ID:
            return _INACTIVE
        described: dict[str, Any] = {
            "active": True,
            "scope": _ADMIN_SCOPE if session.user_id in self._policy.admins else _SCOPE,
            "username": localpart,
            "device_id": session.device_id,
        }
        if session.access_expires_at is not None:
            left = session.access_expires_at - int(self._clock() * 1000)
            if left <= 0:  # since the store has found it valid
                return _INACTIVE
            described["expires_in"] = left // 1000
        return success(described)


def _token(request: Request) -> str:
    """Read the token from the form (RFC 7662, section 2.1; RFC 6749, section 3.2)."""
    types = request.requestHeaders.getRawHeaders(b"Content-Type", [])
    if types != [_FORM] and [_media_type(each) for each in types] != [_FORM]:
        raise _invalid(f"the body has to be {_FORM.decode('ascii')}")
    raw = requests.read_bytes(request)
    usual = _USUAL_FORM.fullmatch(raw)
    if usual:
        return usual[1].decode("ascii")
    try:
        fields = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict"
        )
    except ValueError:
        raise _invalid("the body is no form") from None
    given = dict(fields)
    if len(given) < len(fields):
        raise _invalid("a parameter is given twice")
    token = given.get("token")
    if not token:
        raise _invalid("token: Field required")
    return token


def _media_type(header: bytes) -> bytes:
    return header.partition(b";")[0].strip().lower()


def _invalid(problem: str) -> ErrorResponse:
    """Make a 400, by the keys of RFC 6749, section 5.2, and those of Matrix."""
    described = {"errcode": "M_INVALID_PARAM", "error_description": problem}
    return ErrorResponse(json_response(400, {"error": "invalid_request", **described}))
