"""Accounts of an HTTP service, which checks the passwords itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote, urlsplit

from pydantic import Field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from zope.interface import implementer, provider

from synapse_login_module.config.files import ReadFile, read_bytes
from synapse_login_module.config.settings import PositiveDuration
from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.errors import ConfigError, InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier, UserId, UserIdentifier
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.http.client import (
    Answer,
    BackendClient,
    Limits,
    TLSPolicy,
)
from synapse_login_module.providers.http.templates import fill, fill_text, look_up, placeholders
from synapse_login_module.providers.identifiers import (
    NAMES,
    Kind,
    kind_of,
    names_of,
    own_user_id,
    unchecked_status,
)
from synapse_login_module.providers.tls import (
    read_authorities,
    read_certificate,
    read_private_key,
)

_REST_PATH = "/_matrix-internal/identity/v1/check_credentials"

_Codes = Annotated[
    tuple[Annotated[int, Field(ge=400, le=499)], ...], Field(strict=False, max_length=10)
]
_Path = Annotated[str, Field(min_length=1)]


class _Answer(Strict):
    """Where in the answer to a login things are."""

    success: _Path | None = None
    user_id: _Path | None = None
    display_name: _Path | None = None
    emails: _Path | None = None
    three_pids: _Path | None = None


class _Keys(Strict):
    endpoint: str | None = None
    url: str | None = None
    request: dict[str, Any] | None = Field(default=None, repr=False)
    email_request: dict[str, Any] | None = Field(default=None, repr=False)
    phone_request: dict[str, Any] | None = Field(default=None, repr=False)
    answer: _Answer | None = None
    reject_codes: _Codes = (401, 403)
    unknown_user_codes: _Codes = ()
    status_url: str | None = None
    status_path: _Path = "status"
    authorization_file: FilePath | None = None
    ca_file: FilePath | None = None
    certificate_file: FilePath | None = None
    private_key_file: FilePath | None = None
    connect_timeout: PositiveDuration = 3_000
    timeout: PositiveDuration = 10_000
    connections: Annotated[int, Field(ge=1, le=10_000)] = 64


_REST_REQUEST = {"user": {"id": "{user_id}", "password": "{password}"}}
_REST_ANSWER = _Answer(
    success="auth.success",
    user_id="auth.mxid",
    display_name="auth.profile.display_name",
    three_pids="auth.profile.three_pids",
)

_STATUSES: Mapping[str, AccountStatus | None] = {
    "active": AccountStatus.ACTIVE,
    "locked": AccountStatus.LOCKED,
    "deactivated": AccountStatus.DEACTIVATED,
    "unknown": None,
}


@dataclass(frozen=True)
class HTTPConfig:
    """The checked configuration of :class:`HTTPProvider`.

    :param requests: what is posted, for each kind of identifier that the service takes.
    :param secret: the file of the ``Authorization`` header.
    """

    keys: _Keys
    url: str
    requests: Mapping[Kind, Mapping[str, Any]] = field(repr=False)
    answer: _Answer
    tls: TLSPolicy
    secret: ReadFile[str] | None


@implementer(IPasswordProvider)
@provider(IPluginClass)
class HTTPProvider(Service):
    """Asks an HTTP service: by the REST password provider's protocol, or in JSON of any shape."""

    log = Logger()
    name = "http"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> HTTPConfig:
        """Take ``endpoint``, or ``url`` and what goes there and back; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        keys = validate(_Keys, config)
        if (keys.endpoint is None) == (keys.url is None):
            raise ConfigError("", "takes either endpoint or url")
        if keys.url is not None:
            if keys.request is None:
                raise ConfigError("request", "it says what is posted to url")
            url = _checked_url("url", keys.url)
            requests: dict[Kind, Any] = {"user": keys.request}
        else:
            for mapping in ("request", "answer", "email_request", "phone_request"):
                if getattr(keys, mapping) is not None:
                    raise ConfigError(mapping, "it goes with url: the endpoint's protocol is fixed")
            url = _checked_url("endpoint", (keys.endpoint or "").rstrip("/")) + _REST_PATH
            requests = {"user": _REST_REQUEST}
        if keys.email_request is not None:
            requests["email"] = keys.email_request
        if keys.phone_request is not None:
            requests["phone"] = keys.phone_request
        answer = _REST_ANSWER if keys.endpoint is not None else keys.answer or _Answer()
        for kind, request in requests.items():
            _check_request("request" if kind == "user" else f"{kind}_request", kind, request)
            if kind != "user" and answer.user_id is None:
                raise ConfigError("answer.user_id", f"{kind}_request needs to know where it is")
        if keys.status_url is not None:
            _check_status_url(keys.status_url)
        return HTTPConfig(keys, url, requests, answer, _tls(keys, folder), _secret(keys, folder))

    def __init__(self, config: HTTPConfig, environment: Environment) -> None:
        keys = config.keys
        self._config = config
        self._server_name = environment.server_name
        self._hashing = environment.hashing
        connect_timeout = ceil(keys.connect_timeout / 1000)
        limits = Limits(connect_timeout, keys.timeout / 1000, keys.connections)
        # Logins that hang leave room to look at accounts.
        self._for_logins = BackendClient(environment.reactor, config.tls, limits)
        self._for_statuses = BackendClient(environment.reactor, config.tls, limits)
        secret = config.secret
        self._secret = None if secret is None else secret.watch(environment.reactor)
        for url in (config.url, keys.status_url):
            if url is not None and _in_the_clear(url):
                self.log.warn(
                    "{name}: passwords go unencrypted to {host}",
                    name=self.name,
                    host=urlsplit(url).hostname,
                )

    def stopService(self) -> Deferred[Any]:
        """Close the connections that are kept."""
        super().stopService()
        return gatherResults([self._for_logins.close(), self._for_statuses.close()])

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Ask for a status; without a ``status_url`` no user ID of this server can be checked."""
        if self._config.keys.status_url is None:
            return succeed(unchecked_status(user_id, self._server_name))
        return Deferred.fromCoroutine(self._account_status(self._config.keys.status_url, user_id))

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        request = self._config.requests.get(kind_of(identifier))
        names = names_of(identifier, self._server_name)
        if request is None or names is None:
            return None
        body = json.dumps(fill(request, {**names, "password": password})).encode("ascii")
        answer = await self._ask(self._for_logins, "POST", self._config.url, body)
        if answer.code in self._config.keys.unknown_user_codes:
            return None
        if answer.code in self._config.keys.reject_codes:
            await self._reject(password)
        where = self._config.answer
        _check_code(answer)
        given = None if where == _Answer() else _json_of(answer)
        if where.success is not None:
            success = look_up(given, where.success)
            if not isinstance(success, bool):
                raise ProviderUnavailable(f"{where.success} is neither true nor false")
            if not success:
                await self._reject(password)
        return self._account(given, names)

    async def _reject(self, password: str) -> NoReturn:
        """Refuse; in the time that an unknown user takes, where those are told apart."""
        if self._config.keys.unknown_user_codes:
            await self._hashing.decoy(password)
        raise InvalidCredentials

    def _account(self, given: object, names: Mapping[str, str]) -> Account:
        where = self._config.answer
        named = None if where.user_id is None else look_up(given, where.user_id)
        if where.user_id is None or (named is None and where is _REST_ANSWER):
            # The REST password provider does not look at it, and some services leave it out.
            user_id: str | None = names["user_id"]
        else:
            user_id = own_user_id(named, self._server_name)
        if user_id is None:
            raise ProviderUnavailable(f"{where.user_id} is no user ID of this server")
        display_name = None if where.display_name is None else look_up(given, where.display_name)
        if not isinstance(display_name, str | None):
            raise ProviderUnavailable(f"{where.display_name} is not text")
        emails = () if where.emails is None else _texts(where.emails, look_up(given, where.emails))
        if where.three_pids is not None:
            emails += _emails(where.three_pids, look_up(given, where.three_pids))
        return Account(user_id, display_name or None, emails)

    async def _account_status(self, status_url: str, user_id: str) -> AccountStatus | None:
        identifier = UserIdentifier(UserId.parse(user_id, self._server_name))
        names = names_of(identifier, self._server_name)
        if names is None or names["localpart"] in (".", ".."):
            return None
        url = fill_text(status_url, names, lambda value: quote(value, safe=""))
        answer = await self._ask(self._for_statuses, "GET", url, None)
        if answer.code in self._config.keys.unknown_user_codes:
            return None
        status = look_up(_json_of(answer), self._config.keys.status_path)
        if not isinstance(status, str) or status not in _STATUSES:
            known = ", ".join(_STATUSES)
            raise ProviderUnavailable(f"{self._config.keys.status_path} is none of {known}")
        return _STATUSES[status]

    async def _ask(
        self, client: BackendClient, method: str, url: str, body: bytes | None
    ) -> Answer:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._secret is not None:
            headers["Authorization"] = await self._secret.current()
        return await client.request(method, url, headers, body)


def _check_code(answer: Answer) -> None:
    if not 200 <= answer.code <= 299:
        raise ProviderUnavailable(f"the service answered {answer.code}")


def _json_of(answer: Answer) -> Any:
    _check_code(answer)
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise ProviderUnavailable("the service's answer is not JSON") from None


def _texts(path: str, given: object) -> tuple[str, ...]:
    """One text, or a list of them."""
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ProviderUnavailable(f"{path} is neither text nor a list of texts")
    return tuple(texts)


def _emails(path: str, given: object) -> tuple[str, ...]:
    """The e-mail addresses among the protocol's third-party identifiers."""
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise ProviderUnavailable(f"{path} is no list of objects")
    found = [each.get("address") for each in given if each.get("medium") == "email"]
    return _texts(f"{path}.address", found)


def _checked_url(path: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        good = None
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(path, "not an http:// or https:// URL")
    if parts.username is not None or parts.fragment:
        raise ConfigError(path, "a URL without user and password (see authorization_file) or #")
    return url


def _check_status_url(url: str) -> None:
    _checked_url("status_url", url)
    found = set(placeholders(url))
    if not found & set(NAMES["user"]) or found - set(NAMES["user"]):
        raise ConfigError("status_url", "it holds {user_id} or {localpart}, and nothing else in {}")
    if any(set("{}") & set(part) for part in urlsplit(url)[:2]):
        raise ConfigError("status_url", "the host is not to depend on the user")


def _check_request(path: str, kind: Kind, request: Mapping[str, Any]) -> None:
    found = set(placeholders(request))
    allowed = {*NAMES[kind], "password"}
    for stranger in sorted(found - allowed):
        raise ConfigError(path, f"there is no {{{stranger}}}, but {', '.join(sorted(allowed))}")
    if "password" not in found:
        raise ConfigError(path, "{password} is not in it")
    if not found & set(NAMES[kind]):
        choice = " or ".join(f"{{{name}}}" for name in NAMES[kind])
        raise ConfigError(path, f"{choice} is not in it")
    try:
        json.dumps(request)
    except (TypeError, ValueError):
        raise ConfigError(path, "it is not JSON") from None


def _tls(keys: _Keys, folder: Path) -> TLSPolicy:
    trust = own = None
    if keys.ca_file is not None:
        trust = ReadFile.load("ca_file", folder / keys.ca_file, read_authorities).value
    if (keys.certificate_file is None) != (keys.private_key_file is None):
        raise ConfigError("", "certificate_file and private_key_file go together")
    if keys.certificate_file is not None and keys.private_key_file is not None:
        path = folder / keys.certificate_file
        certificate = ReadFile.load("certificate_file", path, read_certificate).value
        read_key = partial(read_private_key, certificate=certificate)
        own = ReadFile.load("private_key_file", folder / keys.private_key_file, read_key).value
    return TLSPolicy(trust, own)


def _secret(keys: _Keys, folder: Path) -> ReadFile[str] | None:
    if keys.authorization_file is None:
        return None
    return ReadFile.load("authorization_file", folder / keys.authorization_file, _read_secret)


def _read_secret(path: Path) -> str:
    """The value of the header: what the file holds, without the end of its line."""
    try:
        value = read_bytes(path).decode("ascii").strip()
    except UnicodeError:
        value = ""
    if not value or not value.isprintable():
        raise ConfigError("", "it does not hold one line of ASCII text")
    return value


def _in_the_clear(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")
