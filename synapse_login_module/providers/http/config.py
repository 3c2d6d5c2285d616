"""The configuration of the HTTP provider, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from synapse_login_module.config.files import ReadFile, read_secret
from synapse_login_module.config.settings import PositiveDuration
from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.outbound.http import TLSPolicy
from synapse_login_module.outbound.tls import (
    read_authorities,
    read_certificate,
    read_private_key,
)
from synapse_login_module.outbound.url import checked_url
from synapse_login_module.providers.http.templates import placeholders
from synapse_login_module.providers.identifiers import NAMES, Kind

_REST_PATH = "/_matrix-internal/identity/v1/check_credentials"
_SECRET_KEY = "authorization_file"

_Codes = Annotated[
    tuple[Annotated[int, Field(ge=400, le=499)], ...], Field(strict=False, max_length=10)
]
_Path = Annotated[str, Field(min_length=1)]


class AnswerPaths(Strict):
    """The paths of the values in the response to a login."""

    success: _Path | None = None
    user_id: _Path | None = None
    subject: _Path | None = None
    status: _Path | None = None
    display_name: _Path | None = None
    emails: _Path | None = None
    three_pids: _Path | None = None


class _Keys(Strict):
    endpoint: str | None = None
    url: str | None = None
    request: dict[str, Any] | None = Field(default=None, repr=False)
    email_request: dict[str, Any] | None = Field(default=None, repr=False)
    phone_request: dict[str, Any] | None = Field(default=None, repr=False)
    answer: AnswerPaths | None = None
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
REST_ANSWER = AnswerPaths(
    success="auth.success",
    user_id="auth.mxid",
    display_name="auth.profile.display_name",
    three_pids="auth.profile.three_pids",
)


@dataclass(frozen=True)
class HTTPConfig:
    """The checked configuration of :class:`HTTPProvider`.

    :param keys: the keys of the configuration.
    :param url: the URL that logins are posted to.
    :param requests: the JSON template of a login, for each kind of identifier that the service
        accepts.
    :param answer: the paths of the values in the response.
    :param tls: verifies the service's certificate.
    :param secret: the file with the value of the ``Authorization`` header.
    """

    keys: _Keys
    url: str
    requests: Mapping[Kind, Mapping[str, Any]] = field(repr=False)
    answer: AnswerPaths
    tls: TLSPolicy
    secret: ReadFile[str] | None

    @property
    def not_tried(self) -> Sequence[str]:
        """The service, which was not connected to; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        parts = urlsplit(self.url)
        return [f"the service at {parts.scheme}://{parts.netloc}"]


def parse(config: Mapping[str, Any], folder: Path) -> HTTPConfig:
    """Check a configuration.

    :param folder: the folder that relative paths start from.
    :raise ConfigError: for all mistakes together; for a mistake in the choice between ``endpoint``
        and ``url`` alone.
    """
    keys = validate(_Keys, config)
    if (keys.endpoint is None) == (keys.url is None):
        raise ConfigError("", "takes either endpoint or url")
    if keys.url is not None:
        if keys.request is None:
            raise ConfigError("request", "it says what is posted to url")
        url = checked_url("url", keys.url, _SECRET_KEY)
        requests: dict[Kind, Any] = {"user": keys.request}
    else:
        for mapping in ("request", "answer", "email_request", "phone_request"):
            if getattr(keys, mapping) is not None:
                raise ConfigError(mapping, "it goes with url: the endpoint's protocol is fixed")
        url = checked_url("endpoint", (keys.endpoint or "").rstrip("/"), _SECRET_KEY) + _REST_PATH
        requests = {"user": _REST_REQUEST}
    if keys.email_request is not None:
        requests["email"] = keys.email_request
    if keys.phone_request is not None:
        requests["phone"] = keys.phone_request
    answer = REST_ANSWER if keys.endpoint is not None else keys.answer or AnswerPaths()
    mistakes = Mistakes()
    for kind, request in requests.items():
        with mistakes.gathered():
            _check_request("request" if kind == "user" else f"{kind}_request", kind, request)
        if kind != "user" and answer.user_id is None:
            mistakes.add("answer.user_id", f"{kind}_request needs it, to tell whose account it is")
    if keys.status_url is not None:
        with mistakes.gathered():
            _check_status_url(keys.status_url, answer.subject is not None)
    tls, secret = TLSPolicy(), None
    with mistakes.gathered():
        tls = _tls(keys, folder)
    with mistakes.gathered():
        secret = _secret(keys, folder)
    mistakes.raise_any()
    return HTTPConfig(keys, url, requests, answer, tls, secret)


def _check_status_url(url: str, by_id: bool) -> None:
    """Check the URL at which accounts are looked at.

    :param by_id: whether accounts are known by an id (``answer.subject``), so that the URL must not
        have their names.
    """
    checked_url("status_url", url, _SECRET_KEY)
    found = set(placeholders(url))
    if by_id and found != {"subject"}:
        problem = "it holds {subject}, since there is answer.subject, and nothing else in {}"
        raise ConfigError("status_url", problem)
    known = {*NAMES["user"], "subject"}
    if not found & known or found - known:
        problem = "it holds {subject}, {user_id} or {localpart}, and nothing else in {}"
        raise ConfigError("status_url", problem)
    if any(set("{}") & set(part) for part in urlsplit(url)[:2]):
        raise ConfigError("status_url", "the host must not depend on the user")


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
    trust = client_certificate = None
    if keys.ca_file is not None:
        trust = ReadFile.load("ca_file", folder / keys.ca_file, read_authorities).value
    if (keys.certificate_file is None) != (keys.private_key_file is None):
        raise ConfigError("", "certificate_file and private_key_file go together")
    if keys.certificate_file is not None and keys.private_key_file is not None:
        path = folder / keys.certificate_file
        certificate = ReadFile.load("certificate_file", path, read_certificate).value
        read_key = partial(read_private_key, certificate=certificate)
        client_certificate = ReadFile.load(
            "private_key_file", folder / keys.private_key_file, read_key
        ).value
    return TLSPolicy(trust, client_certificate)


def _secret(keys: _Keys, folder: Path) -> ReadFile[str] | None:
    if keys.authorization_file is None:
        return None
    return ReadFile.load("authorization_file", folder / keys.authorization_file, _read_secret)


def _read_secret(path: Path) -> str:
    """Read the value of the ``Authorization`` header, without spaces and line ends around it."""
    value = read_secret(path).strip()
    if not value or not (value.isascii() and value.isprintable()):
        raise ConfigError("", "it does not hold one line of ASCII text")
    return value
