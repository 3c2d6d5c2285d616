"""Connections that are waited for, and for how long."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

C = TypeVar("C", bound=Hashable)


class TimeoutQueue(Generic[C]):
    """Those that keep the server waiting for the same thing, the longest first.

    They come and go with every request, so one timer serves them all.

    :param timeout: how many seconds each may take.
    :param give_up: called with each that took longer.
    :param reactor: keeps the time.
    """

    def __init__(
        self, timeout: float, give_up: Callable[[C], object], reactor: IReactorTime
    ) -> None:
        self._timeout = timeout
        self._give_up = give_up
        self._reactor = reactor
        self._since: OrderedDict[C, float] = OrderedDict()
        self._timer: IDelayedCall | None = None

    def add(self, one: C) -> None:
        """Begin to wait."""
        self._since[one] = self._reactor.seconds()
        self._wake_in_time()

    def remove(self, one: C) -> None:
        """Wait no longer."""
        self._since.pop(one, None)

    def since(self, one: C) -> float:
        """Since when it is waited for; for ever from now if it is not."""
        return self._since.get(one, math.inf)

    def longest(self) -> C | None:
        """The one that is waited for the longest."""
        return next(iter(self._since), None)

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        try:
            while (first := self.longest()) is not None and self._remaining(first) <= 0:
                self.remove(first)
                self._give_up(first)
        finally:
            self._wake_in_time()

    def _remaining(self, one: C) -> float:
        return self._since[one] + self._timeout - self._reactor.seconds()

    def _wake_in_time(self) -> None:
        """Have the timer run while anybody is waited for, whatever went wrong with another."""
        first = self.longest()
        if self._timer is None and first is not None:
            self._timer = self._reactor.callLater(max(0, self._remaining(first)), self._look)
