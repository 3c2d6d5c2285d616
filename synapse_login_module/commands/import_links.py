"""The links that ``import-synapse`` makes, and whether the account of a session is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from synapse_login_module.accounts.rules import ExistingAccount, LinkRules
from synapse_login_module.commands.backends import Opened
from synapse_login_module.commands.import_report import Tally
from synapse_login_module.common.concurrency import at_once
from synapse_login_module.errors import ConfigError, LinkTaken
from synapse_login_module.interfaces import IFindsAccounts
from synapse_login_module.model import (
    Account,
    AccountStatus,
    Claim,
    HomeserverUser,
    Link,
    UserId,
    UserIdentifier,
    fold,
)

WHAT = "links"

UNKNOWN = "no provider knows its account"

_AT_ONCE = 8
"""How many questions a provider gets at once."""

_READS_AT_ONCE = 256
_PASSWORDLESS = LinkRules("passwordless")


class Linking:
    """Links accounts of Synapse to the accounts of one provider that have the same local part.

    :param opened: the store and the providers.
    :param name: the provider's name.
    :param tally: counts what is linked and what is not.
    :param write: ``False`` to count only.
    :param is_new: whether the provider serves the file that the accounts are written to. What would
        be written is then not looked up there.
    :raise ConfigError: when there is no such provider, or it cannot find accounts.
    """

    def __init__(
        self, opened: Opened, name: str, tally: Tally, write: bool, is_new: bool = False
    ) -> None:
        self._opened = opened
        self._tally = tally
        self._write = write
        self._is_new = is_new
        providers = dict(zip(opened.names, opened.providers(), strict=True))
        if name not in providers:
            known = ", ".join(sorted(providers))
            raise ConfigError("", f"no provider is called {name}: there are {known}")
        if not IFindsAccounts.providedBy(providers[name]):
            raise ConfigError("", f"{name} cannot find an account without its password")
        self._provider: Any = providers[name]
        self._names = opened.names[name]

    async def link_all(self, users: Sequence[HomeserverUser]) -> None:
        """Link accounts, if the provider knows them."""
        await at_once(_AT_ONCE, self._link, users)

    async def _link(self, user: HomeserverUser) -> None:
        known = await self._opened.links.link_of(user.user_id)
        if known is not None:
            if known.provider in self._names:
                self._tally.done(WHAT, "there already")
            else:
                self._left(user, f"it is linked to an account of {known.provider}")
            return
        subject = await self._subject(user)
        if subject is None:
            self._left(user, f"{self._names[0]} has no account of this name")
            return
        if await self._opened.links.linked_user(Claim(self._names, subject)) is not None:
            self._left(user, f"the account of {self._names[0]} is linked to another user")
            return
        try:
            if self._write:
                link = Link(user.user_id, self._names[0], subject)
                await self._opened.links.link(link, False)
        except LinkTaken:
            self._left(user, f"the account of {self._names[0]} is linked to another user")
        else:
            self._tally.done(WHAT, "taken")

    async def _subject(self, user: HomeserverUser) -> str | None:
        """Return the subject of the account with the local part of a user."""
        localpart = UserId.parse(user.user_id, self._opened.server_name).localpart
        if self._is_new and not self._write:
            return localpart
        account: Account | None = await self._provider.find(
            UserIdentifier(UserId(localpart, self._opened.server_name))
        )
        if account is None or fold(account.user_id) != fold(user.user_id):
            return None
        return account.subject or account.user_id

    def _left(self, user: HomeserverUser, reason: str) -> None:
        self._tally.left(WHAT, user.user_id, reason)


def passwordless(users: Sequence[HomeserverUser], tally: Tally) -> list[HomeserverUser]:
    """Select the accounts that the rule ``passwordless`` links, and count the others.

    An administrator's account is never linked by its name alone.
    """
    chosen = []
    for user in users:
        facts = ExistingAccount(
            user.user_id,
            has_password=user.password_hash is not None,
            has_sso_id=user.has_sso_id,
            is_admin=user.is_admin,
            is_deactivated=user.is_deactivated,
        )
        refusal = _PASSWORDLESS.refusal(facts, ())
        if user.problem is not None:
            tally.left(WHAT, user.user_id, f"it is {user.problem}")
        elif refusal is not None:
            tally.left(WHAT, user.user_id, refusal.problem)
        else:
            chosen.append(user)
    return chosen


class KnownAccounts:
    """Says whether a provider knows the account of a session.

    :param opened: the store and the providers.
    """

    def __init__(self, opened: Opened) -> None:
        self._accounts = opened.accounts()
        self._links = opened.links
        self._names = {name for names in opened.names.values() for name in names}

    async def problems(self, user_ids: Sequence[str]) -> dict[str, str | None]:
        """Return by user ID why a session of the user cannot go on, or ``None``."""
        links = await at_once(_READS_AT_ONCE, self._links.link_of, user_ids)
        linked = dict(zip(user_ids, links, strict=True))
        unlinked = [user_id for user_id in user_ids if linked[user_id] is None]
        statuses = await at_once(_AT_ONCE, self._status, unlinked)
        by_name = dict(zip(unlinked, statuses, strict=True))
        return {user_id: self._problem(linked[user_id], by_name.get(user_id)) for user_id in linked}

    def _status(self, user_id: str) -> Deferred[AccountStatus | None]:
        return self._accounts.account_status(user_id, None)

    def _problem(self, link: Link | None, status: AccountStatus | None) -> str | None:
        if link is not None:
            if link.provider in self._names:
                return None
            return f"its account is linked to {link.provider}, which is no provider here"
        if status is None:
            return UNKNOWN
        if status is AccountStatus.UNVERIFIABLE:
            return "its account is not linked, and the provider cannot say whether it exists"
        return "its account is deactivated" if status is AccountStatus.DEACTIVATED else None
