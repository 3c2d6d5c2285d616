"""Makes the page of metrics of the standalone server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from synapse_login_module.common.coalescing import Coalescing, shield
from synapse_login_module.common.repeats import OncePerPeriod
from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.interfaces import IDelegatedStore, ITokenKeys
from synapse_login_module.metrics import definitions
from synapse_login_module.metrics.page import Page, Reading
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.model import OwedDeletions
from synapse_login_module.stores.keys import state_of
from synapse_login_module.tokens.format import KeyRing

LIFETIME = 1.0
"""Seconds for which a page is sent again, so that a client cannot keep the server busy with it."""

STORE_TIMEOUT = 2.0
"""Seconds within which the store has to answer. A scrape of Prometheus may take ten."""

SAMPLE_INTERVAL = 1.0
"""Seconds from one sample of the gauges of a worker to the next."""

InThread = Callable[[Callable[[], bytes]], "Deferred[bytes]"]
"""Calls a function on a thread; fires with its result."""


_Readings = Sequence[Reading]


class Scrape:
    """Makes the page: what this process and its siblings have counted, and what the store says.

    The page is put together on a thread. Nothing is counted by reading many rows.

    :param metrics: the metrics of this process.
    :param make: makes the page.
    :param in_thread: runs that.
    :param store: the token store.
    :param keys: the token keys of this server.
    :param is_delegated: whether the store keeps notes for a homeserver.
    :param clock: a monotonic clock, which also schedules the timeouts.
    :param wall_clock: seconds since the epoch.
    """

    log = Logger()

    def __init__(
        self,
        metrics: Metrics,
        make: Page,
        in_thread: InThread,
        store: Any,
        keys: KeyRing,
        is_delegated: bool,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._make = make
        self._in_thread = in_thread
        self._store = store
        self._keys = keys
        self._is_delegated = is_delegated
        self._clock = clock
        self._wall_clock = wall_clock
        self._made: tuple[float, bytes] | None = None
        self._requests: Coalescing[None, bytes] = Coalescing(self._collect)

    def page(self) -> Deferred[bytes]:
        """Fire with the page, which is at most :data:`LIFETIME` old."""
        return Deferred.fromCoroutine(self._page())

    async def _page(self) -> bytes:
        if self._made is not None and self._clock.seconds() - self._made[0] < LIFETIME:
            return self._made[1]
        return await self._requests.ask(None)

    async def _collect(self, _: None) -> bytes:
        readings = await self._read_store()
        self._metrics.sample()
        page = await self._in_thread(lambda: self._make(readings))
        self._made = self._clock.seconds(), page
        return page

    async def _read_store(self) -> _Readings:
        """Read what the store knows for all servers, and whether logins can use it.

        A store may be readable when it takes no writes, for instance because its disk is full. So
        all is asked at once, and what is answered is on the page.
        """
        answers = [Deferred.fromCoroutine(self._unless_down(self._ping()))]
        if ITokenKeys.providedBy(self._store):
            answers.append(Deferred.fromCoroutine(self._unless_down(self._read_keys())))
        if self._is_delegated and IDelegatedStore.providedBy(self._store):
            answers.append(Deferred.fromCoroutine(self._unless_down(self._read_outbox())))
        readings = await gatherResults(answers)
        is_up = float(None not in readings)
        known = chain.from_iterable(filter(None, readings))
        return [*known, Reading(definitions.STORE_UP, (), is_up)]

    async def _unless_down(self, reading: Awaitable[_Readings]) -> _Readings | None:
        try:
            return await reading
        except StoreUnavailable:
            return None  # that it is down is on the page
        except Exception:  # of a third party's store
            self.log.failure("the metrics of the store cannot be read")
            return None

    async def _ping(self) -> _Readings:
        await self._ask(self._store.ping)
        return []

    async def _read_keys(self) -> _Readings:
        known = {key.key_id: key for key in await self._ask(self._store.token_keys)}
        self._keys.renew()  # an idle server does not look at its key file otherwise
        mine = self._keys.fingerprints
        readings = []
        for key_id in sorted({*known, *mine}):
            fingerprint = mine.get(key_id) or known[key_id].fingerprint
            state = state_of(mine.get(key_id), known.get(key_id)).value
            signs = "yes" if key_id == self._keys.newest else "no"
            labels = (str(key_id), fingerprint, state, signs)
            readings.append(Reading(definitions.KEYS, labels, 1.0))
        return readings

    async def _read_outbox(self) -> _Readings:
        owed: OwedDeletions = await self._ask(self._store.owed_deletions)
        age = 0.0
        if owed.oldest is not None:
            age = max(0.0, self._wall_clock() - owed.oldest / 1000)
        return [
            Reading(definitions.OUTBOX_NOTES, (), owed.number),
            Reading(definitions.OUTBOX_AGE, (), age),
        ]

    def _ask(self, method: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        def too_late(_: object, seconds: float) -> Any:
            raise StoreUnavailable(f"no answer in {seconds} seconds")

        asked = shield(maybeDeferred(method))
        if asked.called:
            return asked
        return asked.addTimeout(STORE_TIMEOUT, self._clock, too_late)


class Sampling(Service):
    """Samples the gauges of a worker, since any of its siblings may make the page.

    :param metrics: the metrics of this process.
    :param clock: schedules the samples.
    """

    log = Logger()

    def __init__(self, metrics: Metrics, clock: IReactorTime) -> None:
        self._metrics = metrics
        self._clock = clock
        self._warnings = OncePerPeriod(clock.seconds)
        self._next: IDelayedCall | None = None

    def startService(self) -> None:
        """Sample now, and from then on."""
        super().startService()
        self._sample()

    def stopService(self) -> None:
        """Sample for the last time."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()
            self._sample_now()

    def _sample(self) -> None:
        self._next = self._clock.callLater(SAMPLE_INTERVAL, self._sample)
        self._sample_now()

    def _sample_now(self) -> None:
        try:
            self._metrics.sample()
        except Exception:  # the next sample adds what this one could not
            if self._warnings.is_written():
                self.log.failure("the metrics could not be sampled")
