"""Password callbacks, with which Synapse has the module check passwords."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from synapse.api.errors import LoginError, SynapseError
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from synapse_login_module.audit import AuditLog
from synapse_login_module.common.lru import Recent
from synapse_login_module.errors import (
    InvalidCredentials,
    LoginServiceError,
    ProviderUnavailable,
)
from synapse_login_module.interfaces import IAccounts
from synapse_login_module.model import (
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
    require_active,
)
from synapse_login_module.passwords import call_hashing_for, is_empty
from synapse_login_module.synapse.addresses import medium_and_address
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.ending import SessionEnding
from synapse_login_module.synapse.rate_limits import TriedAccounts
from synapse_login_module.web.client import client_at
from synapse_login_module.web.responses import internal_error, response_to

_MOST_AT_ONCE = 1000
"""For how many concurrent logins it is remembered why this module passed them on."""

Accepted = tuple[str, Callable[[Mapping[str, Any]], Awaitable[None]] | None]
"""A user ID, and a function that Synapse calls when it has logged the user in."""


class FinalReject(LoginError, CancelledError):
    """Raised by a password callback: the login is rejected, and no local password is tried.

    ModuleApi: a callback can only accept or pass. Synapse catches every exception of a callback but
    ``CancelledError``, and answers every ``SynapseError`` with the error that it holds. This class
    is both.
    """


class Interruption(SynapseError, CancelledError):
    """Raised by a password callback: Synapse answers with this error and counts no failed attempt.
    See :class:`FinalReject`.
    """


class PasswordCallbacks:
    """Checks passwords for Synapse's own ``/login`` and its user-interactive authentication.

    Each outcome is written to the audit log, except those that Synapse decides itself: its rate
    limits, and what it refuses after the password was right.

    :param homeserver: the way into and out of Synapse.
    :param accounts: checks the passwords, local ones included where they count.
    :param audit: the audit log.
    :param ending: ends the session of a login whose link has changed meanwhile.
    :param tried: counts failures by account; ``None`` on a worker, which does not count.
    """

    log = Logger()

    def __init__(
        self,
        homeserver: Homeserver,
        accounts: IAccounts,
        audit: AuditLog,
        ending: SessionEnding,
        tried: TriedAccounts | None,
    ) -> None:
        self._homeserver = homeserver
        self._accounts = accounts
        self._audit = audit
        self._ending = ending
        self._tried = tried
        # By Homeserver.request_key.
        self._passed_on: Recent[int, LoginServiceError] = Recent(_MOST_AT_ONCE)

    async def check_password(
        self, username: str, login_type: str, login_dict: Mapping[str, Any]
    ) -> Accepted | None:
        """Check a user's password.

        :return: the user, or ``None`` to have the next module asked: after a wrong password, and
            during an outage.
        :raise FinalReject: for a wrong password, when no other module follows.
        :raise Interruption: for any other error, and for an outage when no other module follows.
        """
        # Before anything can fail, so that the guard is the last in any case.
        is_last = self._homeserver.is_last_checker(self.check_password, self.guard)
        password = login_dict.get("password")
        if not isinstance(password, str):
            return None
        identifier = self._named(username)
        try:
            return await self._ask(identifier, password)
        except (InvalidCredentials, ProviderUnavailable) as error:
            if is_last:
                raise self._refusal(identifier, error) from None
            self._passed_on.remember(self._homeserver.request_key(), error)
            return None
        except Exception as error:
            raise self._refusal(identifier, error) from None

    async def guard(self, username: str, login_type: str, login_dict: Mapping[str, Any]) -> None:
        """Reject a password that no module has accepted. Synapse calls this callback last.

        Local passwords have been checked by then, where they count. Without the guard, Synapse
        would check them again, also those of linked accounts, which do not count.
        """
        key, unknown = self._homeserver.request_key(), InvalidCredentials()
        error: LoginServiceError = self._passed_on.pop(key, unknown)
        raise self._refusal(self._named(username), error)

    async def check_threepid(self, medium: str, address: str, password: str) -> Accepted | None:
        """Check a password given with an e-mail address or a telephone number.

        After ``None``, Synapse finds the user that the address is bound to and calls
        :meth:`check_password` for that user. So nothing is checked here if there is one.
        """
        identifier = EmailIdentifier(address) if medium == "email" else PhoneIdentifier(address)
        named = medium_and_address(identifier)
        if named is None or await self._homeserver.user_with_threepid(*named) is not None:
            return None
        try:
            return await self._ask(identifier, password)
        except InvalidCredentials as error:
            if self._homeserver.is_last_address_checker(self.check_threepid):
                self._failed(identifier, error)
            return None
        except Exception as error:
            raise self._refusal(identifier, error) from None

    async def _ask(self, identifier: Identifier, password: str) -> Accepted:
        if not _is_text(f"{identifier}{password}") or is_empty(password):
            raise InvalidCredentials
        known_as = None if self._tried is None else self._tried.known_as(str(identifier))
        try:
            account = await self._homeserver.call_module(
                call_hashing_for, known_as, self._accounts.authenticate, identifier, password
            )
        except InvalidCredentials as error:
            if self._tried is not None:
                await self._tried.failed(str(identifier), error.user_id)
            raise
        if account is None:
            raise InvalidCredentials("unknown_user")
        try:
            if self._tried is not None:
                await self._tried.require_room(account.named or account.user_id)
            require_active(account.status)
        except LoginServiceError as error:
            error.provider = account.provider
            raise
        context = self._homeserver.request_context()

        def succeeded(event: str, device: str = "") -> None:
            self._audit.record(
                event,
                "ok",
                "password",
                client_at(context.address),
                user=account.user_id,
                device=device,
                provider=account.provider,
            )

        async def logged_in(login: Mapping[str, Any]) -> None:
            # If this raises, Synapse answers the error in place of the tokens.
            try:
                await self._ending.require_link(
                    account.user_id, login["access_token"], account.claim
                )
            except Exception as error:
                raise self._refusal(identifier, error) from None
            succeeded("login", login["device_id"])

        if context.is_login:
            return account.user_id, logged_in
        succeeded("reauth")
        return account.user_id, None

    def _named(self, username: str) -> UserIdentifier:
        return UserIdentifier(UserId.parse(username, self._homeserver.server_name))

    def _refusal(self, identifier: Identifier, error: Exception) -> FinalReject | Interruption:
        """Write an error to the audit log, and return the exception that ends the login."""
        self._failed(identifier, error)
        if isinstance(error, InvalidCredentials):
            return FinalReject(403, "Invalid username or password", "M_FORBIDDEN")
        if not isinstance(error, LoginServiceError):
            self.log.failure("checking a password for Synapse")
        return _interruption(error)

    def _failed(self, identifier: Identifier, error: Exception) -> None:
        context = self._homeserver.request_context()
        event = "login" if context.is_login else "reauth"
        user = str(identifier).lower()
        self._audit.failed(event, error, client_at(context.address), user=user)


def _is_text(given: str) -> bool:
    """Say whether a text has no lone surrogates, which JSON can hold and UTF-8 cannot."""
    try:
        given.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _interruption(error: Exception) -> Interruption:
    """Return the exception that makes Synapse answer an error without counting an attempt."""
    answer = response_to(error) or internal_error()
    payload = answer.payload()
    errcode, message = payload.pop("errcode"), payload.pop("error")
    headers = {name.decode(): value.decode() for name, value in answer.headers.items()}
    return Interruption(answer.status, message, errcode, payload, headers)
