"""Finds the entry of an account, together with its status and its groups."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from synapse_login_module.errors import UnusableAccount
from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.ldap.administrators import Administrators
from synapse_login_module.providers.ldap.directory import Directory
from synapse_login_module.providers.ldap.filters import ANY
from synapse_login_module.providers.ldap.groups import Groups
from synapse_login_module.providers.ldap.messages import Entry, Result, Search
from synapse_login_module.providers.ldap.statuses import NO_ATTRIBUTES, Statuses


class Found(NamedTuple):
    """What a search for an account has found.

    :param result: its entry; none if the account is in none of the groups.
    :param status: its status.
    :param admin: whether it is a member of ``admin_group``; ``None`` if that was not asked.
    """

    result: Result
    status: AccountStatus
    admin: bool | None


class Entries:
    """Searches for entries.

    The searches for a status, and for administrators, are sent together with the one for the entry.
    The groups are searched afterwards, since what they hold is in the entry. If there is no entry,
    they are searched for one that does not exist, so that the time is the same.

    :param directory: is searched.
    :param statuses: adds the searches for statuses.
    :param groups: the groups of which an account has to be in one; ``None`` for no condition.
    :param administrators: adds the search for ``admin_group`` to those of a login.
    :param nobody: an entry that does not exist.
    """

    def __init__(
        self,
        directory: Directory,
        statuses: Statuses,
        groups: Groups | None,
        administrators: Administrators,
        nobody: Entry,
    ) -> None:
        self._directory = directory
        self._statuses = statuses
        self._groups = groups
        self._administrators = administrators
        self._nobody = nobody

    async def search(self, search: Search, other: Search | None = None) -> Found:
        """Search for a login.

        :param other: a search that is sent along, and counts if the first one finds nothing.
        """
        ask = self._directory.search
        searches = self._for_login(search)
        results = await ask(*searches, *([] if other is None else self._for_login(other)))
        if len(results) > len(searches):
            middle = len(searches)
            results = results[:middle] if results[0].entries else results[middle:]
        admin = self._administrators.take(results)
        status = self._statuses.status(results)
        return Found(await self._of_members(ask, results[0]), status, admin)

    async def look(self, search: Search) -> Found:
        """Search for a look at an account.

        :raise UnusableAccount: when it is in none of the groups, and one of them is not there or
            cannot be read. It may be in that one.
        """
        ask = self._directory.look
        results = await ask(*self._statuses.searches(search))
        status = self._statuses.status(results)
        found = await self._of_members(ask, results[0])
        if self._groups is not None and results[0].entries and not found.entries:
            for group, seen in zip(
                self._groups.names, await ask(*self._groups.lookups()), strict=True
            ):
                if not seen.entries:
                    raise UnusableAccount(f"LDAP: cannot see the group {group}")
        return Found(found, status, None)

    async def status_of(self, entry: Entry) -> AccountStatus:
        """Read the status of an entry that was found before."""
        search = Search(entry.dn, False, ANY, NO_ATTRIBUTES)
        results = await self._directory.search(*self._statuses.searches(search))
        return self._statuses.status(results)

    def _for_login(self, search: Search) -> list[Search]:
        return [*self._statuses.searches(search), *self._administrators.searches(search)]

    async def _of_members(
        self, ask: Callable[..., Awaitable[list[Result]]], found: Result
    ) -> Result:
        """Remove the entry from a result if it is in none of the groups."""
        if self._groups is None:
            return found
        entry = found.entries[0] if found.entries else self._nobody
        memberships = await ask(*self._groups.searches(entry))
        return found if any(each.entries for each in memberships) else replace(found, entries=())
