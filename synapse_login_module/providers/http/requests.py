"""The requests to an HTTP service: logins, encoded as it is configured, and looks at accounts."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from synapse_login_module.config.files import ReadFile, WatchedFile
from synapse_login_module.errors import ConfigError, InvalidCredentials
from synapse_login_module.providers.http.templates import fill, fill_text, placeholders
from synapse_login_module.providers.identifiers import NAMES, Kind

T = TypeVar("T")

Encoding = Literal["json", "form", "basic"]
Method = Literal["GET", "POST"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

SECRET = "secret."
"""The start of the placeholders whose values are in ``secrets_file``."""


class HTTPRequest(NamedTuple):
    """A request to the service."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True)
class RequestKeys:
    """What all requests have in common.

    :param url: the URL of logins.
    :param method: the method of logins.
    :param encoding: how the values of a login are sent.
    :param headers: added to every request.
    :param authorization: the value of the ``Authorization`` header, which logins with ``basic`` do
        not have.
    :param more_headers: added to every request, from a file.
    :param secrets: the values of the placeholders that begin with :data:`SECRET`.
    """

    url: str
    method: Method
    encoding: Encoding
    headers: Mapping[str, str] = field(repr=False)
    authorization: ReadFile[str] | None
    more_headers: ReadFile[dict[str, str]] | None
    secrets: ReadFile[dict[str, str]] | None


class Requests:
    """Makes requests. The files with secrets are read again when they change."""

    def __init__(self, keys: RequestKeys, reactor: Any) -> None:
        self._keys = keys
        self._authorization = _watched(keys.authorization, reactor)
        self._headers = _watched(keys.more_headers, reactor)
        self._secrets = _watched(keys.secrets, reactor)

    async def of_login(
        self, template: Mapping[str, Any], names: Mapping[str, str], password: str
    ) -> HTTPRequest | None:
        """Make the request of a login.

        :return: ``None`` when the name cannot be one of the service's, so that it cannot be asked.
        :raise InvalidCredentials: when the password cannot be sent.
        """
        keys = self._keys
        values = {**names, "password": password}
        secrets = await self._secrets.current() if self._secrets else {}
        values.update((SECRET + name, secret) for name, secret in secrets.items())
        given = fill(template, values)
        headers = await self._shared_headers(with_authorization=keys.encoding != "basic")
        if keys.encoding == "json":
            headers["Content-Type"] = "application/json"
            body = json.dumps(given).encode("ascii")
            return HTTPRequest(keys.method, keys.url, headers, body)
        try:
            if keys.encoding == "form":
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                body = urlencode(given, encoding="utf-8").encode("ascii")
                return HTTPRequest(keys.method, keys.url, headers, body)
            if ":" in given["user"]:
                return None
            if _CONTROL.search(given["password"]):
                raise InvalidCredentials  # RFC 7617, section 2, forbids them
            pair = f"{given['user']}:{given['password']}".encode()
        except UnicodeEncodeError:  # half of a pair of UTF-16, which only JSON can hold
            raise InvalidCredentials from None
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode('ascii')}"
        return HTTPRequest(keys.method, keys.url, headers, None)

    async def of_get(self, url: str, values: Mapping[str, str]) -> HTTPRequest:
        """Make a GET request.

        :param url: a template of the URL.
        """
        url = fill_text(url, values, lambda value: quote(value, safe=""))
        return HTTPRequest("GET", url, await self._shared_headers(with_authorization=True), None)

    async def without_user(self, url: str) -> HTTPRequest:
        """Make a GET request with the headers of a login, but without a user."""
        headers = await self._shared_headers(with_authorization=self._keys.encoding != "basic")
        return HTTPRequest("GET", url, headers, None)

    async def _shared_headers(self, with_authorization: bool) -> dict[str, str]:
        headers = {"accept": "application/json"}
        for each in (self._keys.headers, await self._headers.current() if self._headers else {}):
            headers.update((name.lower(), value) for name, value in each.items())
        if self._authorization is not None and with_authorization:
            headers["Authorization"] = await self._authorization.current()
        return headers


def _watched(file: ReadFile[T] | None, reactor: Any) -> WatchedFile[T] | None:
    return None if file is None else file.watch(reactor)


def check_template(path: str, kind: Kind, encoding: Encoding, template: Mapping[str, Any]) -> None:
    """Check the template of the logins by one kind of identifier.

    :param path: its key in the configuration.
    :raise ConfigError: when it cannot be sent, or lacks a placeholder.
    """
    found = {name for name in placeholders(template) if not name.startswith(SECRET)}
    allowed = {*NAMES[kind], "password"}
    for stranger in sorted(found - allowed):
        raise ConfigError(path, f"there is no {{{stranger}}}, but {', '.join(sorted(allowed))}")
    if "password" not in found:
        raise ConfigError(path, "{password} is not in it")
    if not found & set(NAMES[kind]):
        choice = " or ".join(f"{{{name}}}" for name in NAMES[kind])
        raise ConfigError(path, f"{choice} is not in it")
    if encoding == "json":
        try:
            json.dumps(template)
        except (TypeError, ValueError):
            raise ConfigError(path, "it is not JSON") from None
        return
    if not all(isinstance(each, str) for pair in template.items() for each in pair):
        raise ConfigError(path, f"with encoding: {encoding}, its names and values are texts")
    if encoding == "basic":
        if template.keys() != {"user", "password"}:
            raise ConfigError(path, "with encoding: basic, it has user and password, and no more")
        if ":" in template["user"] or "user_id" in placeholders(template["user"]):
            raise ConfigError(path, "with encoding: basic, a user has no colon: use {localpart}")


def needed_secrets(templates: Mapping[Kind, Mapping[str, Any]]) -> set[str]:
    """List the names of the secrets that templates use."""
    found = {name for template in templates.values() for name in placeholders(template)}
    return {name.removeprefix(SECRET) for name in found if name.startswith(SECRET)}
