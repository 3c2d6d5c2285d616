"""Finds the entry of an account, together with its status and its groups."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.ldap.directory import Directory
from synapse_login_module.providers.ldap.filters import ANY
from synapse_login_module.providers.ldap.groups import Groups
from synapse_login_module.providers.ldap.messages import Entry, Result, Search
from synapse_login_module.providers.ldap.statuses import NO_ATTRIBUTES, Statuses


class Found(NamedTuple):
    """What a search for an account has found.

    :param result: its entry; none if the account is in none of the groups.
    :param status: its status.
    """

    result: Result
    status: AccountStatus


class Entries:
    """Searches for entries.

    The searches for a status are sent together with the one for the entry. The groups are searched
    afterwards, since what they hold is in the entry. If there is no entry, they are searched for
    one that does not exist, so that the time is the same.

    :param directory: is searched.
    :param statuses: adds the searches for statuses.
    :param groups: the groups of which an account has to be in one; ``None`` for no condition.
    :param nobody: an entry that does not exist.
    """

    def __init__(
        self, directory: Directory, statuses: Statuses, groups: Groups | None, nobody: Entry
    ) -> None:
        self._directory = directory
        self._statuses = statuses
        self._groups = groups
        self._nobody = nobody

    async def search(self, search: Search) -> Found:
        """Search for a login."""
        return await self._find(self._directory.search, search)

    async def look(self, search: Search) -> Found:
        """Search for a look at an account."""
        return await self._find(self._directory.look, search)

    async def status_of(self, entry: Entry) -> AccountStatus:
        """Read the status of an entry that was found before."""
        search = Search(entry.dn, False, ANY, NO_ATTRIBUTES)
        results = await self._directory.search(*self._statuses.searches(search))
        return self._statuses.status(results)

    async def _find(self, ask: Callable[..., Awaitable[list[Result]]], search: Search) -> Found:
        results = await ask(*self._statuses.searches(search))
        found, status = results[0], self._statuses.status(results)
        if self._groups is not None:
            entry = found.entries[0] if found.entries else self._nobody
            memberships = await ask(*self._groups.searches(entry))
            if not any(each.entries for each in memberships):
                found = replace(found, entries=())
        return Found(found, status)
