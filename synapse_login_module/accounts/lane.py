"""The sweep's part for one provider: looks at its accounts at an even rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.accounts.watch import in_milliseconds
from synapse_login_module.common.repeats import OncePerPeriod
from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import WatchedLink

_AHEAD = 1.2
"""The rate of looks, as a multiple of what is needed to look at each account once an interval."""

_CATCHING_UP = 2.0
"""The same while the lane is behind."""

_BATCH = 4
"""How many accounts a tick takes, where the shortest and the longest period allow it."""

_MOST = round(_BATCH * _CATCHING_UP)
"""How many accounts a tick takes at most."""

_SHORTEST_PERIOD = 0.005
_LONGEST_PERIOD = 1.0
_REST = 3.0
"""The pause after each look, as a multiple of the processor time that the reactor's thread used
during it. So a request waits for one look at most, and the sweep leaves most of the time to
requests, however many accounts there are. Waiting for a directory does not count, and other threads
that hash passwords do not either. What the thread does for requests meanwhile does count: the more
there are, the slower the sweep is.
"""

_SLOW = 0.01
"""Seconds after which a look does not hold up the next any more: its provider is far away."""


class Lane:
    """Looks at the accounts of one provider, in the order of their last looks, oldest first.

    It takes a few accounts a tick, at an even rate that looks at each once an interval, and looks
    at them one by one, with pauses. While it is behind, the rate is doubled. It is lower where it
    would slow requests down.

    :param provider: the provider's name as the links have it.
    :param watch: the links.
    :param look: looks at one account.
    :param interval: seconds in which each account is looked at once.
    :param clock: the wall clock; also runs the ticks.
    :param processor_time: returns the seconds of processor time that this thread has used.
    :ivar lag: how many seconds late the most overdue account of the last tick was.
    """

    log = Logger()

    def __init__(
        self,
        provider: str,
        watch: ILinkWatch,
        look: Callable[[WatchedLink], Coroutine[Any, Any, None]],
        interval: float,
        clock: IReactorTime,
        processor_time: Callable[[], float] = time.thread_time,
    ) -> None:
        self._provider = provider
        self._watch = watch
        self._look = look
        self._interval = interval
        self._clock = clock
        self._processor_time = processor_time
        self._size = 0
        self._width = 1
        self._owed = 0.0
        self._ticked_at = clock.seconds()
        self._next: IDelayedCall | None = None
        self._stopped = False
        self._lines = OncePerPeriod(clock.seconds)
        self.lag = 0.0

    def resize(self, size: int, width: int) -> None:
        """Set the size of the lane, and start it at the first call.

        :param size: how many accounts it has.
        :param width: how many of them it looks at concurrently.
        """
        self._size = size
        self._width = width
        if self._next is None and not self._stopped:
            self._schedule(0)

    def stop(self) -> None:
        """Begin no more ticks and looks. Looks that have begun go on."""
        self._stopped = True
        self._cancel_pause()

    def _schedule(self, delay: float) -> None:
        self._next = self._clock.callLater(delay, self._tick)

    @property
    def _period(self) -> float:
        """Seconds between two ticks, so that each takes about ``_BATCH`` accounts."""
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
        # If the clock was set back, no time has passed.
        passed, self._ticked_at = max(0.0, now - self._ticked_at), now
        even = self._size / self._interval
        self._owed += (_CATCHING_UP if self.lag > 0 else _AHEAD) * even * passed
        # Looks that were missed while the provider was slow are not made up for in a burst.
        self._owed = min(self._owed, _CATCHING_UP * even * self._period + 1, _MOST)
        number = int(self._owed)
        if not number:
            return
        self._owed -= number
        used = self._processor_time()
        rows = await self._watch.due(self._provider, number, in_milliseconds(now))
        if not rows:
            return
        oldest = min(row.looked_at for row in rows) / 1000
        self.lag = max(0.0, now - oldest - self._interval)
        self._warn()
        await self._look_at(rows, used)

    async def _look_at(self, rows: Sequence[WatchedLink], used: float) -> None:
        """Look at accounts, the next when the last look is done or known to be slow.

        :param used: the processor time that was used before the accounts were read.
        """
        turns = DeferredSemaphore(self._width)
        looks = []
        for row in rows:
            await turns.acquire()
            await self._rest_after(used)
            if self._stopped:
                return
            used = self._processor_time()
            look = Deferred.fromCoroutine(self._try(row))
            looks.append(look.addBoth(lambda _: turns.release()))
            if not look.called:
                slow = self._pause(_SLOW)
                await DeferredList([look, slow], fireOnOneCallback=True)
                self._cancel_pause()
        await gatherResults(looks)
        await self._rest_after(used)

    async def _rest_after(self, used: float) -> None:
        """Pause after some work.

        :param used: the processor time that was used before it.
        """
        rest = _REST * (self._processor_time() - used)
        if rest > 0 and not self._stopped:
            await self._pause(rest)

    def _pause(self, seconds: float) -> Deferred[None]:
        """Pause. The Deferred never fires if the lane is stopped meanwhile."""
        pause: Deferred[None] = Deferred()
        self._next = self._clock.callLater(seconds, pause.callback, None)
        return pause

    def _cancel_pause(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()

    async def _try(self, row: WatchedLink) -> None:
        try:
            await self._look(row)
        except StoreUnavailable:
            pass
        except Exception:
            failure = Failure()
            self.log.failure(
                "cannot look at {user_id}; the sweep goes on", failure, user_id=row.user_id
            )

    def _warn(self) -> None:
        if self.lag > self._interval and self._lines.is_written():
            self.log.warn(
                "the sweep over linked accounts is behind: one of {name} was looked at {lag:.0f} s"
                " later than account_check_interval says",
                name=self._provider,
                lag=self.lag,
            )
