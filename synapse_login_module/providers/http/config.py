"""The configuration of the HTTP provider, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from synapse_login_module.config.files import ReadFile
from synapse_login_module.config.validation import config_path, validate
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.outbound.http import TLSPolicy
from synapse_login_module.outbound.tls import (
    read_authorities,
    read_certificate,
    read_private_key,
)
from synapse_login_module.outbound.url import checked_url
from synapse_login_module.providers.http.headers import (
    check_headers,
    read_authorization,
    read_headers,
    read_secrets,
)
from synapse_login_module.providers.http.keys import AnswerPaths, Keys
from synapse_login_module.providers.http.requests import (
    Method,
    RequestKeys,
    check_template,
    needed_secrets,
)
from synapse_login_module.providers.http.templates import placeholders
from synapse_login_module.providers.identifiers import NAMES, Kind

_REST_PATH = "/_matrix-internal/identity/v1/check_credentials"
_SECRET_KEY = "authorization_file"
_WITH_URL = frozenset(
    (
        "answer",
        "email_request",
        "encoding",
        "method",
        "phone_request",
        "reject_if",
        "request",
        "secrets_file",
    )
)

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
    :param requests: what all requests have in common.
    :param templates: the template of a login, for each kind of identifier that the service accepts.
    :param answer: the paths of the values in the response.
    :param tls: verifies the service's certificate.
    """

    keys: Keys
    requests: RequestKeys
    templates: Mapping[Kind, Mapping[str, Any]] = field(repr=False)
    answer: AnswerPaths
    tls: TLSPolicy

    @property
    def url(self) -> str:
        """The URL of logins."""
        return self.requests.url

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
    keys = validate(Keys, config)
    url, templates = _logins(keys)
    answer = REST_ANSWER if keys.endpoint is not None else keys.answer or AnswerPaths()
    mistakes = Mistakes()
    for kind, template in templates.items():
        with mistakes.gathered():
            key = "request" if kind == "user" else f"{kind}_request"
            check_template(key, kind, keys.encoding, template)
        if kind != "user" and answer.user_id is None:
            mistakes.add("answer.user_id", f"{kind}_request needs it, to tell whose account it is")
    if keys.status_url is not None:
        with mistakes.gathered():
            _check_status_url(keys.status_url, answer.subject is not None)
    tls, requests = TLSPolicy(), None
    with mistakes.gathered():
        tls = _tls(keys, folder)
    with mistakes.gathered():
        requests = _requests(keys, url, needed_secrets(templates), folder)
    mistakes.raise_any()
    assert requests is not None
    return HTTPConfig(keys, requests, templates, answer, tls)


def _logins(keys: Keys) -> tuple[str, dict[Kind, Mapping[str, Any]]]:
    """Return the URL of logins, and their templates."""
    if (keys.endpoint is None) == (keys.url is None):
        raise ConfigError("", "takes either endpoint or url")
    if keys.endpoint is not None:
        for key in sorted(_WITH_URL & keys.model_fields_set):
            if getattr(keys, key) is not None:
                raise ConfigError(key, "it goes with url: the endpoint's protocol is fixed")
        url = checked_url("endpoint", keys.endpoint.rstrip("/"), _SECRET_KEY) + _REST_PATH
        return url, {"user": _REST_REQUEST}
    if keys.request is None:
        raise ConfigError("request", "it says what is sent to url")
    templates: dict[Kind, Mapping[str, Any]] = {"user": keys.request}
    if keys.email_request is not None:
        templates["email"] = keys.email_request
    if keys.phone_request is not None:
        templates["phone"] = keys.phone_request
    return checked_url("url", keys.url or "", _SECRET_KEY), templates


def _requests(keys: Keys, url: str, needed: set[str], folder: Path) -> RequestKeys:
    mistakes = Mistakes()
    with mistakes.gathered():
        config_path("headers", check_headers, keys.headers)
    basic = keys.encoding == "basic"
    if keys.method == "GET" and not basic:
        mistakes.add("method", f"encoding: {keys.encoding} needs POST")
    if basic and keys.authorization_file is not None and keys.status_url is None:
        problem = "with encoding: basic, the user's name and password are sent in its place"
        mistakes.add("authorization_file", problem)
    if needed and keys.secrets_file is None:
        mistakes.add("secrets_file", f"{{secret.{min(needed)}}} needs it")
    files: dict[str, ReadFile[Any] | None] = {}
    for key, read in (
        ("authorization_file", read_authorization),
        ("headers_file", read_headers),
        ("secrets_file", partial(read_secrets, needed=needed)),
    ):
        given = getattr(keys, key)
        with mistakes.gathered():
            files[key] = given and ReadFile.load(key, folder / given, read)
    mistakes.raise_any()
    method: Method = keys.method or ("GET" if basic else "POST")
    return RequestKeys(
        url,
        method,
        keys.encoding,
        keys.headers,
        files["authorization_file"],
        files["headers_file"],
        files["secrets_file"],
    )


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


def _tls(keys: Keys, folder: Path) -> TLSPolicy:
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
