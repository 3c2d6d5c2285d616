"""What a client would be answered, and why."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

from synapse_login_module.common.console import moment
from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    AccountNotLinked,
    AccountRefused,
    HomeserverUnavailable,
    InvalidCredentials,
    LoginNotPermitted,
    Overloaded,
    PasswordExpired,
    ProviderUnavailable,
    RateLimited,
    StoreUnavailable,
    described,
)
from synapse_login_module.web.responses import ErrorResponse, internal_error, response_to


class Verdict(NamedTuple):
    """The result of a login that was walked through.

    :param user_id: the user that it would be of; empty when it would fail.
    :param status: the HTTP status of the response.
    :param errcode: the Matrix error code of the response; empty when it would succeed.
    :param error: the text of the response; empty when it would succeed.
    :param reason: why it would fail, for the operator.
    """

    user_id: str = ""
    status: int = 200
    errcode: str = ""
    error: str = ""
    reason: str = ""

    @property
    def succeeds(self) -> bool:
        """Whether the login would succeed."""
        return self.status == 200

    @property
    def answer(self) -> str:
        """The status and the error code of the response."""
        return f"{self.status} {self.errcode}".rstrip()

    def sentence(self) -> str:
        """Say it in a sentence."""
        if self.succeeds:
            return f"the login would succeed as {self.user_id}; a client is answered 200"
        return f"the login would fail: {self.reason}; a client is answered {self.answer}"


def failed(error: Exception) -> Verdict:
    """Return the verdict of a login that an error ends."""
    response = response_to(error) or internal_error()
    said = response.payload()
    return Verdict(
        status=response.status,
        errcode=said["errcode"],
        error=said["error"],
        reason=_reason(error),
    )


_REASONS: Mapping[str, str] = {
    "wrong_password": "the password is wrong",
    "unknown_user": "no provider knows the name",
    "no_usable_hash": "the stored hash of the password cannot be used, so write a new one"
    " (hash-password)",
    "bad_user_id": "the account's name makes no valid user ID",
    "other_user": "the homeserver has the address of another user",
    "not_registered": "there is no account of this name, and register_users is off",
    "too_many_failures": "too many passwords were wrong for the account, so the right one is"
    " refused like a wrong one",
}


def _reason(error: Exception) -> str:
    if isinstance(error, ErrorResponse):
        return str(error.response.payload()["error"])
    if isinstance(error, InvalidCredentials):
        reason = _REASONS.get(error.reason, error.reason)
        if error.reason == "wrong_password" and error.provider:
            reason = f"{reason}, says {error.provider}"
        if error.detail:
            reason = f"{reason} ({error.detail})"
        return reason if error.limited is None else f"{reason} until {_until(error.limited)}"
    if isinstance(error, AccountLocked):
        return "the account is locked, so unlock it where the line above says"
    if isinstance(error, AccountDeactivated):
        return "the account is deactivated, or its provider no longer knows it"
    if isinstance(error, PasswordExpired):
        return "the password is right, but has to be changed first, where the account is kept"
    if isinstance(error, LoginNotPermitted):
        return "the password is right, but the account may not log in at this time, or from here"
    if isinstance(error, AccountNotLinked):
        return (
            f"it may not log in as {error.user_id}: {error.problem} (to link it: {error.setting})"
        )
    if isinstance(error, AccountRefused):
        return f"the homeserver refuses it: {error.problem}"
    if isinstance(error, Overloaded):
        return "too many passwords are being hashed"
    if isinstance(error, RateLimited):
        whose = " ".join(error.key)
        return f"the limit {error.limit} of {whose} is reached until {_until(error)}"
    if isinstance(error, ProviderUnavailable):
        return f"the provider {error.provider} is unavailable: {error}"
    if isinstance(error, HomeserverUnavailable):
        return f"the homeserver is unavailable: {error}"
    if isinstance(error, StoreUnavailable):
        return f"the token store is unavailable: {error}"
    return f"an unexpected error: {described(error)}"


def _until(limited: RateLimited) -> str:
    return moment(math.ceil(time.time() + limited.retry_after) * 1000)
