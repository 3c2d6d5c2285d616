"""Shared checks of whether a store can be reached."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

LASTS = 3.0
"""Seconds for which one successful check counts."""


class SharedPing:
    """Checks whether the store can be reached, once for all callers.

    Any client can request a check without a token, and a check may write to the disk. So concurrent
    callers share one check, and a success counts for :data:`LASTS` seconds. A failure counts only
    for the callers that wait for it; the next caller begins a new check.

    :param ask: checks the store; fires when it was reached, or fails.
    :param clock: a clock, in seconds.
    """

    def __init__(self, ask: Callable[[], Deferred[None]], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._reached_at: float | None = None
        self._waiting: list[Deferred[None]] | None = None

    def __call__(self) -> Deferred[None]:
        """Fire if the store was reached within :data:`LASTS`; otherwise check it.

        :return: fails as the check does.
        """
        # The difference is negative when the clock has been set back.
        if self._reached_at is not None and 0 <= self._clock() - self._reached_at < LASTS:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._give_up)
        if self._waiting is None:
            self._waiting = [waiting]
            # A new check forgets the last success, so that its failure is noticed at once.
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
        """Stop waiting for one caller that cancels. The check goes on for the others."""
        if self._waiting and one in self._waiting:
            self._waiting.remove(one)
