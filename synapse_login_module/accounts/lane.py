"""The accounts of one provider, looked at one after the other."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.accounts.watch import in_milliseconds
from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.linkwatch import ILinkWatch, WatchedLink

_AHEAD = 1.2
"""How much faster than needed the accounts are looked at, so that each is within its interval."""

_CATCHING_UP = 2.0
_BATCH = 8
_SHORTEST_PERIOD = 0.2
_LONGEST_PERIOD = 1.0
_WARN_EVERY = 60.0


class Lane:
    """Looks at the accounts of one provider, those first that were not for the longest time.

    A few at a time, at an even rate: so that each is looked at once an interval, or at twice that
    rate while it is behind.

    :param provider: as it is written in the links.
    :param watch: the links.
    :param look: looks at one account.
    :param interval: seconds in which each account is looked at once.
    :param clock: tells the time and wakes us.
    :ivar lag: how many seconds later than wanted the last account was looked at.
    """

    log = Logger()

    def __init__(
        self,
        provider: str,
        watch: ILinkWatch,
        look: Callable[[WatchedLink], Coroutine[Any, Any, None]],
        interval: float,
        clock: IReactorTime,
    ) -> None:
        self._provider = provider
        self._watch = watch
        self._look = look
        self._interval = interval
        self._clock = clock
        self._size = 0
        self._width = 1
        self._owed = 0.0
        self._ticked_at = clock.seconds()
        self._next: IDelayedCall | None = None
        self._stopped = False
        self._warned: float | None = None
        self.lag = 0.0

    def resize(self, size: int, width: int) -> None:
        """Say how many accounts there are, and how many may be asked for at a time."""
        self._size = size
        self._width = width
        if self._next is None and not self._stopped:
            self._schedule(0)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _schedule(self, delay: float) -> None:
        self._next = self._clock.callLater(delay, self._tick)

    @property
    def _period(self) -> float:
        """Seconds between two ticks: so that there are a few accounts in each, not many."""
        even = self._interval / max(1, self._size)
        return min(_LONGEST_PERIOD, self._interval / 20, max(_SHORTEST_PERIOD, _BATCH * even))

    def _tick(self) -> None:
        def failed(failure: Failure) -> None:
            if not failure.check(StoreUnavailable):
                self.log.failure(
                    "looking at accounts of {name} failed; it goes on", failure, name=self._provider
                )

        def again(_: object) -> None:
            if not self._stopped:
                self._schedule(self._period)

        Deferred.fromCoroutine(self._do_tick()).addErrback(failed).addCallback(again)

    async def _do_tick(self) -> None:
        now = self._clock.seconds()
        # Where the clock was set back nothing is owed for it.
        passed, self._ticked_at = max(0.0, now - self._ticked_at), now
        even = self._size / self._interval
        self._owed += (_CATCHING_UP if self.lag > 0 else _AHEAD) * even * passed
        # What was not done while a provider was slow is not made up for in a burst.
        self._owed = min(self._owed, _CATCHING_UP * even * self._period + 1)
        number = int(self._owed)
        if not number:
            return
        self._owed -= number
        rows = await self._watch.due(self._provider, number, in_milliseconds(now))
        if not rows:
            return
        oldest = min(row.looked_at for row in rows) / 1000
        self.lag = max(0.0, now - oldest - self._interval)
        self._warn(now)
        waiting = iter(rows)
        working = [Deferred.fromCoroutine(self._work(waiting)) for _ in range(self._width)]
        await gatherResults(working)

    async def _work(self, waiting: Iterator[WatchedLink]) -> None:
        for row in waiting:
            try:
                await self._look(row)
            except StoreUnavailable:
                return
            except Exception:
                failure = Failure()
                self.log.failure(
                    "cannot look at {user_id}; the sweep goes on", failure, user_id=row.user_id
                )

    def _warn(self, now: float) -> None:
        if self.lag <= self._interval:
            return
        if self._warned is None or not 0 <= now - self._warned < _WARN_EVERY:
            self._warned = now
            self.log.warn(
                "the sweep over linked accounts is behind: one of {name} was looked at {lag:.0f} s"
                " later than account_check_interval says",
                name=self._provider,
                lag=self.lag,
            )
