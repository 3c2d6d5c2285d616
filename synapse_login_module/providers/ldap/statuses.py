"""The status of an account, by searches that are sent together with the one for its entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from synapse_login_module.model import AccountStatus, fold
from synapse_login_module.providers.ldap.filters import at, both
from synapse_login_module.providers.ldap.messages import Entry, Result, Search

NO_ATTRIBUTES = ("1.1",)
"""The attribute list that requests entries without attributes (RFC 4511, section 4.5.1.8)."""


@dataclass(frozen=True)
class Condition:
    """What an entry has to meet for a status.

    :param filter: the filter that it has to match.
    :param attribute: an attribute whose value has to meet ``test`` as well; empty for none. It is
        for what a server cannot search by: values that it computes, or that it cannot compare.
    :param test: called with the value, an integer, and with the time in seconds since the epoch.
    """

    filter: Any
    attribute: str = ""
    test: Callable[[int, float], bool] = lambda value, now: True

    def is_met_by(self, entry: Entry, now: float) -> bool:
        """Say whether an entry that matches the filter meets the rest."""
        if not self.attribute:
            return True
        for value in entry.attributes.get(fold(self.attribute), ()):
            with suppress(ValueError):
                return self.test(int(value), now)
        return False


class Statuses:
    """Adds searches for statuses to a search, and reads their results.

    :param conditions: those of accounts that are not active. The first one that is met counts.
    :param clock: returns the time in seconds since the epoch.
    """

    def __init__(
        self,
        conditions: Sequence[tuple[AccountStatus, Condition]],
        clock: Callable[[], float],
    ) -> None:
        self._conditions = conditions
        self._clock = clock

    def searches(self, search: Search) -> list[Search]:
        """Return a search, and one with the same base and scope for each status but active."""
        now = self._clock()
        return [
            search,
            *(
                Search(
                    search.base,
                    search.whole_tree,
                    both(search.filter, at(each.filter, now)),
                    (each.attribute,) if each.attribute else NO_ATTRIBUTES,
                )
                for _, each in self._conditions
            ),
        ]

    def status(self, results: Sequence[Result]) -> AccountStatus:
        """Read the status of the entry that was found.

        :param results: the results of :meth:`searches`, in the same order.
        """
        now = self._clock()
        for (status, condition), result in zip(self._conditions, results[1:], strict=True):
            if any(condition.is_met_by(entry, now) for entry in result.entries):
                return status
        return AccountStatus.ACTIVE
