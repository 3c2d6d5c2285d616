"""How much memory the clients may take together."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

C = TypeVar("C", bound=Hashable)

FREE = 4096
"""Bytes of each that are not counted: one read, and more than an ordinary request takes."""


class Budget(Generic[C]):
    """Counts what each holds, and sheds the one that holds the most when it is too much in all.

    :param most: bytes that may be held in all, of what is counted.
    :param may_go: whether one may be shed.
    :param shed: called with one that is to let go of all it holds.
    :ivar total: bytes that are held.
    """

    def __init__(self, most: int, may_go: Callable[[C], bool], shed: Callable[[C], object]) -> None:
        self.total = 0
        self._most = most
        self._may_go = may_go
        self._shed = shed
        self._held: dict[C, int] = {}

    def hold(self, one: C, size: int) -> None:
        """Say how many bytes one holds now; it, or another, may be shed for it."""
        if size <= FREE:
            # Nearly always: a request of an ordinary client costs no more than this comparison.
            if self._held:
                self.total -= self._held.pop(one, 0)
            return
        self.total += size - self._held.get(one, 0)
        self._held[one] = size
        while self.total > self._most:
            largest = max(
                filter(self._may_go, self._held), key=self._held.__getitem__, default=None
            )
            if largest is None:
                break
            self.total -= self._held.pop(largest)
            self._shed(largest)
