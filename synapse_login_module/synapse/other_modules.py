"""Has other modules in Synapse check passwords, too.

ModuleApi: does not show which module registered a callback.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from synapse.api.errors import LoginError, SynapseError
from twisted.internet.defer import Deferred
from zope.interface import implementer

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IAccounts
from synapse_login_module.model import (
    Account,
    AccountStatus,
    Claim,
    EmailIdentifier,
    Identifier,
    Link,
    UserIdentifier,
)
from synapse_login_module.synapse.addresses import medium_and_address
from synapse_login_module.synapse.api import Homeserver, refused
from synapse_login_module.synapse.links import SynapseLinks

_PASSWORD = "m.login.password"
_PROVIDER = "module"
"""The provider's name in the audit log."""

_PACKAGE = __name__.partition(".")[0]


@implementer(IAccounts)
class AccountsOfAllModules:
    """The accounts of this module and of the modules before and after it, in Synapse's order.

    The modules after this one are asked when this one does not know the account, when the password
    is wrong, and during an outage. If they do not accept the password either, its error counts.

    :param accounts: this module's accounts.
    :param homeserver: the way into Synapse.
    """

    def __init__(self, accounts: IAccounts, homeserver: Homeserver) -> None:
        self._accounts = accounts
        self._homeserver = homeserver
        self._links = SynapseLinks(homeserver)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IAccounts`.

        While ``password_config.enabled`` is false, other modules are not asked.
        """
        # Read each time: modules may register after this one, until Synapse has started.
        before, after = self._others()
        if self._homeserver.passwords_enabled and (before or after):
            return Deferred.fromCoroutine(self._ask(before, after, identifier, password))
        return self._accounts.authenticate(identifier, password)

    def account_status(self, user_id: str, link: Link | None) -> Deferred[AccountStatus | None]:
        """Look at an account; see :class:`~synapse_login_module.interfaces.IAccounts`."""
        return self._accounts.account_status(user_id, link)

    def user_id_of(self, account: Account) -> Deferred[str | None]:
        """Find the user ID; see :class:`~synapse_login_module.interfaces.IAccounts`."""
        return self._accounts.user_id_of(account)

    async def _ask(
        self, before: Others, after: Others, identifier: Identifier, password: str
    ) -> Account | None:
        account = await self._ask_others(before, identifier, password)
        if account is not None:
            return account
        problem: Exception | None = None
        try:
            account = await self._accounts.authenticate(identifier, password)
        except (InvalidCredentials, ProviderUnavailable) as error:
            problem = error
        if account is None:
            account = await self._ask_others(after, identifier, password)
        if account is None and problem is not None:
            raise problem
        return account

    async def _ask_others(
        self, others: Others, identifier: Identifier, password: str
    ) -> Account | None:
        if not others:
            return None
        account: Account | None = await self._homeserver.call_synapse(
            self._accepted, others, identifier, password
        )
        link = None if account is None else await self._links.link_of(account.user_id)
        if account is None or link is None:
            return account
        # The claim lets the login fail if the link changes before the session begins.
        return replace(account, claim=Claim((link.provider,), link.subject))

    async def _accepted(
        self, others: Others, identifier: Identifier, password: str
    ) -> Account | None:
        """Return the account whose password another module accepts; on Synapse's side."""
        try:
            found = await self._found(others, identifier, password)
        except LoginError:
            refusal = InvalidCredentials()
            refusal.provider = _PROVIDER
            raise refusal from None
        except SynapseError as error:
            raise refused(error) from None
        if found is None:
            return None
        user_id, self._homeserver.notes.on_login = found
        await self._homeserver.require_open(user_id)
        status = await self._homeserver.account_status(user_id)
        return Account(
            user_id, is_local=True, provider=_PROVIDER, status=status or AccountStatus.DEACTIVATED
        )

    async def _found(
        self, others: Others, identifier: Identifier, password: str
    ) -> tuple[str, Any] | None:
        if isinstance(identifier, UserIdentifier):
            return await others.ask(identifier.typed or str(identifier), password)
        medium = "email" if isinstance(identifier, EmailIdentifier) else "msisdn"
        found = await others.ask_by_address(medium, str(identifier), password)
        if found is not None:
            return found
        named = medium_and_address(identifier)
        bound = None if named is None else await self._homeserver.user_with_threepid(*named)
        return None if bound is None else await others.ask(bound, password)

    def _others(self) -> tuple[Others, Others]:
        """Return other modules' callbacks: those before this module's first, and those after it."""
        modules = self._homeserver.hs.get_password_auth_provider()
        by_name = _split(modules.auth_checker_callbacks.get(_PASSWORD, []))
        by_address = _split(modules.check_3pid_auth_callbacks)
        before, after = (Others(modules, *each) for each in zip(by_name, by_address, strict=True))
        return before, after


class Others:
    """A list of other modules' password callbacks, which is false when empty.

    Synapse's own code calls them and checks what they return.

    :param modules: Synapse's ``PasswordAuthProvider``.
    :param by_name: the callbacks for a password with a user name.
    :param by_address: the callbacks for a password with an e-mail address or telephone number.
    """

    def __init__(self, modules: Any, by_name: list[Any], by_address: list[Any]) -> None:
        self._modules = copy.copy(modules)
        self._modules.auth_checker_callbacks = {_PASSWORD: by_name}
        self._modules.check_3pid_auth_callbacks = by_address
        self._some = bool(by_name or by_address)

    def __bool__(self) -> bool:
        return self._some

    async def ask(self, name: str, password: str) -> tuple[str, Any] | None:
        """Check a password with a user name.

        :return: a user ID and a callback for after the login, or ``None`` when none accepts.
        """
        found: tuple[str, Any] | None = await self._modules.check_auth(
            name, _PASSWORD, {"password": password}
        )
        return found

    async def ask_by_address(
        self, medium: str, address: str, password: str
    ) -> tuple[str, Any] | None:
        """Check a password with an address; return as :meth:`ask` does.

        :param medium: ``email`` or ``msisdn``.
        """
        found: tuple[str, Any] | None = await self._modules.check_3pid_auth(
            medium, address, password
        )
        return found


def _split(callbacks: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the callbacks before this package's first one, and other modules' after it."""
    ours = [is_ours(each) for each in callbacks]
    first = ours.index(True) if True in ours else len(callbacks)
    return callbacks[:first], [each for each in callbacks[first:] if not is_ours(each)]


def is_ours(callback: Any) -> bool:
    """Say whether a callback is this package's."""
    return str(getattr(callback, "__module__", "")).partition(".")[0] == _PACKAGE
