"""The status of an account, by searches that are sent together with the one for its entry."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.ldap.filters import at, both
from synapse_login_module.providers.ldap.messages import Result, Search

NO_ATTRIBUTES = ("1.1",)
"""The attribute list that requests entries without attributes (RFC 4511, section 4.5.1.8)."""


class Statuses:
    """Adds searches for statuses to a search, and reads their results.

    :param filters: the filters of accounts that are not active. The first that matches counts.
    :param clock: returns the time in seconds since the epoch, for filters that depend on it.
    """

    def __init__(
        self, filters: Sequence[tuple[AccountStatus, Any]], clock: Callable[[], float]
    ) -> None:
        self._filters = filters
        self._clock = clock

    def searches(self, search: Search) -> list[Search]:
        """Return a search, and one with the same base and scope for each status but active."""
        now = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(self._clock()))
        return [
            search,
            *(
                Search(
                    search.base,
                    search.whole_tree,
                    both(search.filter, at(each, now)),
                    NO_ATTRIBUTES,
                )
                for _, each in self._filters
            ),
        ]

    def status(self, results: Sequence[Result]) -> AccountStatus:
        """Read the status of the entry that was found.

        :param results: the results of :meth:`searches`, in the same order.
        """
        for (status, _), result in zip(self._filters, results[1:], strict=True):
            if result.entries:
                return status
        return AccountStatus.ACTIVE
