"""The sweep: looks at every linked account once an interval, and at once when a file changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.accounts.brake import Brake
from synapse_login_module.accounts.judge import Answer, Judge
from synapse_login_module.accounts.lane import Lane
from synapse_login_module.accounts.questions import AT_ONCE, Questions
from synapse_login_module.accounts.watch import SweepMeter, in_milliseconds
from synapse_login_module.errors import ProviderUnavailable, StoreUnavailable
from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import AccountStatus, LinkCounts, WatchedLink

_COUNT_EVERY = 10.0
_COUNTING_SHARE = 0.05
"""The largest share of the time that is spent on counting, which reads all links."""

_LONGEST_PERIOD = 1.0
_PAGE = 500
_YIELD_AFTER = 100

Versions = Mapping[tuple[str, ...], object]
"""The versions of the providers that have one, by the provider's names, current and former. A
version differs from the last one when the provider's accounts may have changed."""


class AccountSweep(Service):
    """A service that looks at all linked accounts in the background while it runs.

    Each provider has its own lane, so that a slow one does not delay the accounts of the others. A
    beat that fails is logged, and does not stop the next one.

    :param watch: the links.
    :param questions: asks the providers.
    :param judge: acts on the answers.
    :param brake: says when the held accounts may be let go.
    :param interval: seconds in which each account is looked at once.
    :param clock: the wall clock; also runs the beats.
    :param versions: returns the versions of the providers. It is called each beat, and is cheap.
    :param meter: receives the metrics.
    :param processor_time: as for :class:`~synapse_login_module.accounts.lane.Lane`.
    :param steady: a monotonic clock, in seconds. It measures how long counting takes.
    """

    log = Logger()

    def __init__(
        self,
        watch: ILinkWatch,
        questions: Questions,
        judge: Judge,
        brake: Brake,
        interval: float,
        clock: IReactorTime,
        versions: Callable[[], Versions],
        meter: SweepMeter,
        processor_time: Callable[[], float] = time.thread_time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = watch
        self._questions = questions
        self._judge = judge
        self._brake = brake
        self._interval = interval
        self._clock = clock
        self._versions = versions
        self._meter = meter
        self._processor_time = processor_time
        self._steady = steady
        self._lanes: dict[str, Lane] = {}
        self._seen: dict[tuple[str, ...], object] = {}
        self._counted_at = float("-inf")
        self._count_took = 0.0
        self._measured: set[str] = set()
        self._next: IDelayedCall | None = None

    def startService(self) -> None:
        """Start the beats. The present versions of the providers count as seen."""
        super().startService()
        self._seen = dict(self._versions())
        self._schedule(0)

    def stopService(self) -> None:
        """Stop the beats and the lanes. Looks that have begun are not waited for, since a provider
        may be slow.
        """
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()
        for lane in self._lanes.values():
            lane.stop()
        self._lanes.clear()
        # Another process goes on, and tells its own meter.
        for provider in self._measured:
            self._meter.links(provider, 0)
        self._measured.clear()
        self._meter.held(0)
        self._meter.lag(0.0)

    def _schedule(self, delay: float) -> None:
        self._next = self._clock.callLater(delay, self._beat)

    def _beat(self) -> None:
        mine = self._next

        def failed(failure: Failure) -> None:
            self.log.failure("the sweep over linked accounts failed; it goes on", failure)

        def again(_: object) -> None:
            # The service may have been stopped and started again meanwhile.
            if self.running and self._next is mine:
                self._schedule(min(_LONGEST_PERIOD, self._interval / 20))

        Deferred.fromCoroutine(self._do_beat()).addErrback(failed).addCallback(again)

    async def _do_beat(self) -> None:
        try:
            await self._look_at_changed()
            every = max(
                min(_COUNT_EVERY, self._interval / 4),
                min(self._interval, self._count_took / _COUNTING_SHARE),
            )
            # The difference is negative if the clock was set back.
            if not 0 <= self._clock.seconds() - self._counted_at < every:
                self._counted_at = self._clock.seconds()
                await self._count()
        except StoreUnavailable as error:
            self.log.warn("linked accounts are not looked at: {problem}", problem=str(error))

    # Counting, and a lane for each provider.

    async def _count(self) -> None:
        began = self._steady()
        past = self._clock.seconds() - self._interval
        counts = await self._watch.counts(in_milliseconds(past))
        self._count_took = self._steady() - began
        self._measure(counts)
        self._brake.warn(counts)
        if counts.held and await self._brake.is_over():
            await self._release()
        self._set_lanes(counts)
        oldest = counts.oldest_look
        self._meter.lag(0.0 if oldest is None else max(0.0, past - oldest / 1000))

    def _measure(self, counts: LinkCounts) -> None:
        """Tell the meter how many links there are, and which providers have none any more."""
        for provider in self._measured - counts.living.keys():
            self._meter.links(provider, 0)
        for provider, number in counts.living.items():
            self._meter.links(provider, number)
        self._measured = set(counts.living)
        self._meter.held(counts.held)

    def _set_lanes(self, counts: LinkCounts) -> None:
        for provider in [name for name in self._lanes if name not in counts.by_provider]:
            self._lanes.pop(provider).stop()
        for provider, number in counts.by_provider.items():
            if provider not in self._lanes and self.running:
                self._lanes[provider] = Lane(
                    provider,
                    self._watch,
                    self._look,
                    self._interval,
                    self._clock,
                    self._processor_time,
                )
            if provider in self._lanes:
                width = max(1, AT_ONCE // len(counts.by_provider))
                self._lanes[provider].resize(number, width)

    async def _release(self) -> None:
        """Look at all held accounts once more, and act on the answers without the brake."""
        after = ""
        while rows := await self._watch.page((), after, _PAGE, held=True):
            after = rows[-1].user_id
            for row in rows:
                for answered, status in await self._ask(row):
                    await self._judge.end_held(answered, status)

    # Looking.

    async def _look(self, row: WatchedLink) -> None:
        """Look at one account. If its provider is unavailable, nothing changes."""
        if row.is_admin != row.admin:
            if row.is_admin:
                self.log.warn(
                    "{user_id}, linked to {subject} of {provider}, is a server administrator now",
                    user_id=row.user_id,
                    subject=row.link.subject,
                    provider=row.link.provider,
                )
            await self._watch.mark_admin(row.user_id, row.is_admin)
        if not (row.alive or row.locked or row.held):
            return
        await self._judge.settle(await self._ask(row), all_asked=False)

    async def _ask(self, row: WatchedLink) -> list[Answer]:
        """Ask about one account; return an empty list if its provider is unavailable or fails."""
        try:
            return [(row, await self._questions.ask(row.link))]
        except ProviderUnavailable:
            return []
        except Exception:  # a third-party provider may raise anything
            self.log.failure("cannot look at {user_id}; the sweep goes on", user_id=row.user_id)
            return []

    async def _look_at_changed(self) -> None:
        """Look at all accounts of each provider whose accounts may have changed."""
        for names, version in self._versions().items():
            if self._seen.get(names) != version:
                await self._look_at_all(names)
                # Set only now, so that looks that failed are tried again in the next beat.
                self._seen[names] = version

    async def _look_at_all(self, providers: Sequence[str]) -> None:
        """Look at all accounts of a provider. Ask about all of them before acting on any answer, so
        that the brake counts all that are gone together.

        :param providers: the provider's names, current and former.
        """
        answers: list[Answer] = []
        asked, after, complete = 0, "", True
        while rows := await self._watch.page(providers, after, _PAGE):
            after = rows[-1].user_id
            for row in rows:
                answer = await self._ask(row)
                answers += answer
                complete = complete and bool(answer)
                asked += 1
                if asked % _YIELD_AFTER == 0:
                    pause: Deferred[None] = deferLater(self._clock, 0)
                    await pause
        await self._judge.settle(
            [(row, status) for row, status in answers if not _is_known_to_be_gone(row, status)],
            all_asked=complete,
        )


def _is_known_to_be_gone(row: WatchedLink, status: AccountStatus | None) -> bool:
    """Say whether an account was known to be gone and has no session left to end."""
    return status is None and row.gone_since is not None and not row.alive
