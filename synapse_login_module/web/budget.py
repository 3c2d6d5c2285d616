"""How much memory the requests of all connections may take."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

C = TypeVar("C", bound=Hashable)

FREE = 4096
"""Bytes that each connection has free: one read, and more than an ordinary request takes."""


class Budget(Generic[C]):
    """Limits the memory of all connections, and sheds the largest one beyond the limit.

    :param limit: bytes in all. A connection that holds :data:`FREE` or less is not counted.
    :param can_shed: whether a connection may be shed.
    :param shed: called with a connection, which then has to release all that it holds.
    :ivar total: bytes that are held in all.
    """

    def __init__(
        self, limit: int, can_shed: Callable[[C], bool], shed: Callable[[C], object]
    ) -> None:
        self.total = 0
        self._limit = limit
        self._can_shed = can_shed
        self._shed = shed
        self._held: dict[C, int] = {}

    def hold(self, one: C, size: int) -> None:
        """Set how many bytes a connection holds. That may shed it, or another."""
        if size <= FREE:
            # An ordinary request ends here, and costs no more than the comparison.
            if self._held:
                self.total -= self._held.pop(one, 0)
            return
        self.total += size - self._held.get(one, 0)
        self._held[one] = size
        while self.total > self._limit:
            largest = max(
                filter(self._can_shed, self._held), key=self._held.__getitem__, default=None
            )
            if largest is None:
                break
            self.total -= self._held.pop(largest)
            self._shed(largest)
