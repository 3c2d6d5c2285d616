"""Which status an account has: by searches that go out with the one that finds it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.ldap.filters import at, both
from synapse_login_module.providers.ldap.messages import Result, Search

NO_ATTRIBUTES = ("1.1",)
"""What asks for entries and none of their attributes (RFC 4511, section 4.5.1.8)."""


class Statuses:
    """Adds the searches for statuses to a search, and reads their results.

    :param filters: the filters of accounts that are not active, in order of weight.
    :param clock: the wall clock, for filters that depend on the time.
    """

    def __init__(
        self, filters: Sequence[tuple[AccountStatus, Any]], clock: Callable[[], float]
    ) -> None:
        self._filters = filters
        self._clock = clock

    def searches(self, search: Search) -> list[Search]:
        """A search, and the same for each status that an account may have instead of active."""
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
        """The status of the entry that was found, by the results of :meth:`searches`."""
        for (status, _), result in zip(self._filters, results[1:], strict=True):
            if result.entries:
                return status
        return AccountStatus.ACTIVE
