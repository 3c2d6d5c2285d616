"""The most common kind of hashes, which decoys stand for."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class MostCommon(Generic[T]):
    """The most common value of accounts that are seen one at a time.

    Each account counts once, so that repeated logins to one account do not change the result.

    :param accounts: how many accounts are remembered; one more evicts the one that was not seen for
        the longest time.
    """

    def __init__(self, accounts: int = 1000) -> None:
        self._accounts = accounts
        self._values: OrderedDict[str, T] = OrderedDict()
        self._counts: Counter[T] = Counter()

    def seen(self, account: str, value: T) -> T:
        """Count the value of an account; return the most common value."""
        before = self._values.pop(account, None)
        if before is None and len(self._values) == self._accounts:
            _, before = self._values.popitem(last=False)
        if before is not None:
            self._counts[before] -= 1
            if not self._counts[before]:
                del self._counts[before]
        self._values[account] = value
        self._counts[value] += 1
        return max(self._counts, key=self._counts.__getitem__)
