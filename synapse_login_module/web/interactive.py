"""User-interactive authentication by password (specification: "User-Interactive Authentication").

It has one stage here, which takes one request. So no state is kept between requests: the
``session`` is there because clients expect one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.model import PasswordLogin
from synapse_login_module.web import requests
from synapse_login_module.web.responses import (
    INVALID_CREDENTIALS,
    ErrorResponse,
    bad_field,
    json_response,
)


def read_password(auth: Mapping[str, Any] | None, server_name: str) -> PasswordLogin:
    """Read the password that a request is authenticated with.

    :param auth: what the client sent as ``auth``.
    :raise ErrorResponse: with the 401 that asks for the password, when there is none.
    """
    if auth is None or "type" not in auth:
        raise _ask_for_password(auth)
    if auth["type"] != requests.PASSWORD:
        raise bad_field("auth.type", "not a stage of this flow", "M_UNKNOWN")
    return requests.password(auth, server_name, "auth")


@contextmanager
def asking_again(auth: Mapping[str, Any] | None) -> Iterator[None]:
    """Ask for the password again if the body of the ``with`` finds it wrong.

    :param auth: what the client sent as ``auth``.
    """
    session = {"session": (auth or {}).get("session")}
    del auth
    try:
        yield
    except InvalidCredentials:
        raise _ask_for_password(session, INVALID_CREDENTIALS.payload()) from None


def _ask_for_password(
    auth: Mapping[str, Any] | None, wrong: Mapping[str, str] | None = None
) -> ErrorResponse:
    """Make the 401 that asks for the password.

    :param auth: what the client sent as ``auth``.
    :param wrong: the error of the attempt in this request, if there was one.
    """
    session = (auth or {}).get("session")
    known = isinstance(session, str) and session
    payload: dict[str, Any] = {
        "flows": [{"stages": [requests.PASSWORD]}],
        "params": {},
        "completed": [],
        "session": session if known else secrets.token_urlsafe(16),
    }
    return ErrorResponse(json_response(401, {**payload, **(wrong or {})}))
