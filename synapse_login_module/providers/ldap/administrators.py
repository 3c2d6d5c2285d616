"""The members of ``admin_group``, by a search that is sent together with the one for an entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.logger import Logger

from synapse_login_module.common.repeats import OncePerPeriod
from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.providers.ldap.directory import Directory
from synapse_login_module.providers.ldap.filters import ANY, both
from synapse_login_module.providers.ldap.messages import Result, Search
from synapse_login_module.providers.ldap.statuses import NO_ATTRIBUTES


class AdminGroup(NamedTuple):
    """The group whose members are server administrators.

    :param text: the key as it is configured.
    :param filter: matches the entries of its members.
    :param dn: its name; ``None`` where only a filter is configured.
    """

    text: str
    filter: Any
    dn: str | None


class Administrators:
    """Says which entries are members of ``admin_group``.

    :param group: the group; ``None`` where there is none, so that nothing is said.
    :param directory: the directory.
    :param any_account: a search that finds some account; ``None`` if there can be none.
    :param clock: the wall clock, for lines that are written once a minute.
    """

    log = Logger()

    def __init__(
        self,
        group: AdminGroup | None,
        directory: Directory,
        any_account: Search | None,
        clock: Callable[[], float],
    ) -> None:
        self._group = group
        self._directory = directory
        self._proof = None if group is None else proof(group, any_account)
        self._lines = OncePerPeriod(clock)

    def announce(self) -> None:
        """Log a warning that there are administrators by membership."""
        if self._group is not None:
            self.log.warn(
                "LDAP: admin_group is on: anyone who can add members to {group} can make server"
                " administrators",
                group=self._group.text,
            )

    def searches(self, search: Search) -> Sequence[Search]:
        """Return the search that says whether an entry is a member's: one, or none."""
        if self._group is None:
            return ()
        wanted = both(search.filter, self._group.filter)
        return [Search(search.base, search.whole_tree, wanted, NO_ATTRIBUTES)]

    def take(self, results: list[Result]) -> bool | None:
        """Remove the result of that search from the end of some results, and return what it
        says; ``None`` where there is no group.
        """
        return None if self._group is None else bool(results.pop().entries)

    async def look(self, search: Search | None) -> bool | None:
        """Say whether the entry that a search finds is a member's.

        :return: ``None`` where there is no group or no proof of it, or not exactly one such entry.
            If the group is mistyped or cannot be read, no entry seems to be a member's.
        :raise ProviderUnavailable: when the directory does not answer.
        """
        if self._proof is None or search is None:
            return None
        found, member, proven = await self._directory.look(
            search, *self.searches(search), self._proof
        )
        if not member.entries and not proven.entries:
            self._warn()
            return None
        return bool(member.entries) if found.entries and not found.several else None

    async def confirm(self, is_member: bool | None) -> bool | None:
        """Return what a login may be told of a result of :meth:`take`: not that an account is none
        of a group that there is no proof of.
        """
        if is_member is not False:
            return is_member
        with suppress(ProviderUnavailable):
            if await self.check():
                return False
        return None

    async def check(self) -> bool:
        """Say whether there is proof of the group; log a warning if there is none.

        :raise ProviderUnavailable: when the directory does not answer.
        """
        if self._proof is None:
            return False
        (proven,) = await self._directory.look(self._proof)
        if not proven.entries:
            self._warn()
        return bool(proven.entries)

    def _warn(self) -> None:
        if self._group is not None and self._lines.is_written():
            self.log.warn(
                "LDAP: admin_group {group} has no member, or is not there, or cannot be read:"
                " no administrator is taken away",
                group=self._group.text,
            )


def proof(group: AdminGroup, any_account: Search | None) -> Search | None:
    """Return a search that finds something, unless a group is mistyped or cannot be read.

    It finds the group itself, or some member if only a filter is known.

    :param any_account: a search that finds every account; ``None`` if there can be none.
    :return: ``None`` where nothing can be a proof.
    """
    if group.dn is not None:
        return Search(group.dn, False, ANY, NO_ATTRIBUTES)
    if any_account is None:
        return None
    wanted = both(any_account.filter, group.filter)
    return Search(any_account.base, any_account.whole_tree, wanted, NO_ATTRIBUTES)
