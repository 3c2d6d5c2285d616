"""What Synapse asks the module: whether a password is right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.logger import Logger

from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import InvalidCredentials, LoginServiceError
from synapse_login_module.interfaces import IAccounts
from synapse_login_module.model import (
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
    require_active,
)
from synapse_login_module.synapse.api import FinalReject, Homeserver, Interruption
from synapse_login_module.web.client import client_at
from synapse_login_module.web.responses import answer_to, internal_error

Vouched = tuple[str, Callable[[Mapping[str, Any]], Awaitable[None]] | None]
"""A user, and what Synapse is to call when it has logged the user in."""


class PasswordCallbacks:
    """Checks passwords for Synapse's own ``/login`` and its user-interactive authentication.

    Each outcome has its line, but for those of Synapse's own making: its rate limits, and what it
    refuses after the password was right.

    :param homeserver: the way out of Synapse.
    :param accounts: who is asked, the homeserver's own passwords included where they count.
    :param audit: where outcomes are written down.
    :param is_final: whether other modules are not to be asked after this one either.
    """

    log = Logger()

    def __init__(
        self,
        homeserver: Homeserver,
        accounts: IAccounts,
        audit: AuditLog,
        is_final: bool,
    ) -> None:
        self._homeserver = homeserver
        self._accounts = accounts
        self._audit = audit
        self._is_final = is_final

    async def check_password(
        self, username: str, login_type: str, login_dict: Mapping[str, Any]
    ) -> Vouched | None:
        """Check a user's password.

        Fires with the user, or with ``None`` to have the next module asked. Where there is none,
        and for an outage, it raises what Synapse lets through.
        """
        password = login_dict.get("password")
        if not isinstance(password, str):
            return None
        identifier = UserIdentifier(UserId.parse(username, self._homeserver.server_name))
        try:
            return await self._ask(identifier, password)
        except InvalidCredentials as error:
            if not (self._is_final or self._homeserver.is_last(self.check_password)):
                return None
            self._failed(identifier, error)
            raise FinalReject(403, "Invalid username or password", "M_FORBIDDEN") from None

    async def check_threepid(self, medium: str, address: str, password: str) -> Vouched | None:
        """Check an e-mail address's or a telephone number's password.

        After ``None`` Synapse looks for a user who bound it, whose password it then asks
        :meth:`check_password` for; that makes the line.
        """
        identifier = (
            EmailIdentifier(address.lower()) if medium == "email" else PhoneIdentifier(address)
        )
        try:
            return await self._ask(identifier, password)
        except InvalidCredentials as error:
            bound = await self._homeserver.user_with_threepid(medium, address)
            if bound is None and self._homeserver.is_last(self.check_threepid):
                self._failed(identifier, error)
            return None

    async def _ask(self, identifier: Identifier, password: str) -> Vouched:
        if not _is_text(f"{identifier}{password}"):
            raise InvalidCredentials
        try:
            account = await self._homeserver.call_module(
                self._accounts.authenticate, identifier, password
            )
            if account is None:
                raise InvalidCredentials("unknown_user")
            require_active(account.status)
        except InvalidCredentials:
            raise
        except Exception as error:
            self._failed(identifier, error)
            if not isinstance(error, LoginServiceError):
                self.log.failure("checking a password for Synapse")
            raise _interruption(error) from None
        context = self._homeserver.request_context()

        def passed(event: str, device: str = "") -> None:
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
            passed("login", login["device_id"])

        if context.is_login:
            return account.user_id, logged_in
        passed("reauth")
        return account.user_id, None

    def _failed(self, identifier: Identifier, error: Exception) -> None:
        context = self._homeserver.request_context()
        event = "login" if context.is_login else "reauth"
        user = str(identifier).lower()
        self._audit.failed(event, error, client_at(context.address), user=user)


def _is_text(given: str) -> bool:
    """Whether there are no halves of characters in it, which JSON can hold and UTF-8 cannot."""
    try:
        given.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _interruption(error: Exception) -> Interruption:
    """What Synapse is to answer for an error, uncounted."""
    answer = answer_to(error) or internal_error()
    payload = answer.payload()
    errcode, message = payload.pop("errcode"), payload.pop("error")
    headers = {name.decode(): value.decode() for name, value in answer.headers.items()}
    return Interruption(answer.status, message, errcode, payload, headers)
