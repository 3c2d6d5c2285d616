"""The keys of the HTTP provider's configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from synapse_login_module.config.settings import PositiveDuration
from synapse_login_module.config.validation import FilePath, Strict
from synapse_login_module.providers.http.requests import Encoding, Method

_Codes = Annotated[
    tuple[Annotated[int, Field(ge=400, le=499)], ...], Field(strict=False, max_length=10)
]
_Path = Annotated[str, Field(min_length=1)]


def as_text(given: object) -> str | None:
    """Return a value of an answer as the text that the configuration has for it.

    :return: ``None`` for an object or a list, which the configuration cannot have.
    """
    if isinstance(given, str):
        return given
    return None if isinstance(given, (dict, list)) else json.dumps(given)


def _texts(given: object) -> object:
    """Accept one value in the place of a list, and true, false and numbers as texts."""
    values = given if isinstance(given, list) else [given]
    if not all(isinstance(value, (str, bool, int)) for value in values):
        raise ValueError("must be text, a number, true or false, or a list of them")
    return tuple(map(as_text, values))


def _keys_as_texts(given: object) -> object:
    return {as_text(key): given[key] for key in given} if isinstance(given, dict) else given


_Values = Annotated[tuple[str, ...], BeforeValidator(_texts)]
_Status = Literal["active", "locked", "deactivated", "unknown"]
STATUSES: Mapping[str, _Status] = {each: each for each in get_args(_Status)}


class AnswerPaths(Strict):
    """The paths of the values in the response to a login."""

    success: _Path | None = None
    user_id: _Path | None = None
    subject: _Path | None = None
    status: _Path | None = None
    display_name: _Path | None = None
    emails: _Path | None = None
    three_pids: _Path | None = None


class Keys(Strict):
    """The keys of :class:`HTTPProvider`."""

    endpoint: str | None = None
    url: str | None = None
    method: Method | None = None
    encoding: Encoding = "json"
    request: dict[str, Any] | None = Field(default=None, repr=False)
    email_request: dict[str, Any] | None = Field(default=None, repr=False)
    phone_request: dict[str, Any] | None = Field(default=None, repr=False)
    answer: AnswerPaths | None = None
    reject_codes: _Codes = (401, 403)
    reject_if: dict[_Path, _Values] = Field(default_factory=dict)
    unknown_user_codes: _Codes = ()
    status_url: str | None = None
    status_path: _Path = "status"
    status_values: Annotated[dict[str, _Status], BeforeValidator(_keys_as_texts)] = Field(
        default_factory=lambda: dict(STATUSES)
    )
    authorization_file: FilePath | None = None
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    headers_file: FilePath | None = None
    secrets_file: FilePath | None = None
    ca_file: FilePath | None = None
    certificate_file: FilePath | None = None
    private_key_file: FilePath | None = None
    connect_timeout: PositiveDuration = 3_000
    timeout: PositiveDuration = 10_000
    connections: Annotated[int, Field(ge=1, le=10_000)] = 64
