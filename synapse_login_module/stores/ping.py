"""Whether a store can be reached, for many who ask at once."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

LASTS = 3.0
"""Seconds for which the store counts as reached once it was."""


class SharedPing:
    """Asks the store once for all who want to know: who asks needs no token, and an answer may take
    a write to the disk.

    A failure is for those alone who wait for it: whoever asks next has the store asked again.

    :param ask: fires once the store was reached, or fails.
    :param clock: a clock.
    """

    def __init__(self, ask: Callable[[], Deferred[None]], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._reached_at: float | None = None
        self._waiting: list[Deferred[None]] | None = None

    def __call__(self) -> Deferred[None]:
        """Fire once the store was reached, a moment ago or now; fail as it fails."""
        # The clock may have been set back.
        if self._reached_at is not None and 0 <= self._clock() - self._reached_at < LASTS:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._give_up)
        if self._waiting is None:
            self._waiting = [waiting]
            # A store that has just begun to fail is noticed as soon as it is asked.
            self._reached_at = None
            self._ask().addCallbacks(self._reached, self._failed)
        else:
            self._waiting.append(waiting)
        return waiting

    def _reached(self, _: None) -> None:
        self._reached_at = self._clock()
        for each in self._take():
            each.callback(None)

    def _failed(self, failure: Failure) -> None:
        for each in self._take():
            each.errback(failure)

    def _take(self) -> list[Deferred[None]]:
        waiting, self._waiting = self._waiting or [], None
        return waiting

    def _give_up(self, one: Deferred[None]) -> None:
        """Leave the others waiting when a client goes away."""
        if self._waiting and one in self._waiting:
            self._waiting.remove(one)
