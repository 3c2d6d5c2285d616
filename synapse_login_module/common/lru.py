"""A dictionary of bounded size."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(OrderedDict[K, V]):
    """A dictionary of bounded size that evicts the entry remembered longest ago.

    An ordinary dictionary keeps that order too. But it takes longer to find its first key, the more
    keys were deleted before it.

    :param most: the most entries.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def remember(self, key: K, value: V) -> None:
        """Insert an entry as the newest, and evict the oldest if there are too many."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)
