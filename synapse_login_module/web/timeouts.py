"""Timeouts of connections, and of requests that wait."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

C = TypeVar("C", bound=Hashable)


class TimeoutQueue(Generic[C]):
    """The connections, or the requests, with one timeout, the longest in the queue first.

    They come and go with every request, so one timer serves the whole queue.

    :param timeout: seconds that each may stay in the queue.
    :param give_up: called with each that stayed longer, which has left the queue.
    :param reactor: has the clock and the timer.
    """

    def __init__(
        self, timeout: float, give_up: Callable[[C], object], reactor: IReactorTime
    ) -> None:
        self._timeout = timeout
        self._give_up = give_up
        self._reactor = reactor
        self._since: OrderedDict[C, float] = OrderedDict()
        self._timer: IDelayedCall | None = None

    def __contains__(self, one: object) -> bool:
        return one in self._since

    def add(self, one: C) -> None:
        """Add a connection."""
        self._since[one] = self._reactor.seconds()
        self._start_timer()

    def remove(self, one: C) -> None:
        """Remove a connection, if it is in the queue."""
        self._since.pop(one, None)

    def since(self, one: C) -> float:
        """Return when a connection was added; infinity if it is not in the queue."""
        return self._since.get(one, math.inf)

    def longest(self) -> C | None:
        """Return the connection that has been in the queue the longest."""
        return next(iter(self._since), None)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        try:
            while (first := self.longest()) is not None and self._remaining(first) <= 0:
                self.remove(first)
                self._give_up(first)
        finally:
            # Also when giving up one connection raised an error.
            self._start_timer()

    def _remaining(self, one: C) -> float:
        return self._since[one] + self._timeout - self._reactor.seconds()

    def _start_timer(self) -> None:
        """Start the timer, unless it runs or the queue is empty."""
        first = self.longest()
        if self._timer is None and first is not None:
            self._timer = self._reactor.callLater(max(0, self._remaining(first)), self._expire)
