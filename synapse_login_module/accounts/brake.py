"""The brake: when too many accounts vanish at once, the directory is at fault and not they."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from synapse_login_module.accounts.questions import Questions
from synapse_login_module.accounts.sampling import MOST, Sampler
from synapse_login_module.accounts.watch import in_milliseconds
from synapse_login_module.linkwatch import ILinkWatch, LinkCounts, WatchedLink
from synapse_login_module.model import Link

_ESTIMATE_LASTS = 5.0
_PER_SECOND = 10
"""How many questions a second all samples may cost, if somebody vanishes all the time."""

_WARN_EVERY = 60.0
_UNLINKED = ""
"""What stands for the provider of accounts that are linked to none."""


class BrakeLimit(NamedTuple):
    """How many accounts may vanish within one interval: whichever of the two is more.

    :param accounts: so many.
    :param percent: so many of a hundred linked ones.
    """

    accounts: int
    percent: float

    def of(self, present: int) -> int:
        """The number, of so many linked accounts."""
        return max(self.accounts, int(present * self.percent / 100))


class Estimate(NamedTuple):
    """How many more accounts of a provider have vanished than is known, by a sample.

    :param good_until: when it is to be made anew, in seconds.
    :param known: how many were known to have vanished then.
    :param more: so many on top of them.
    """

    good_until: float
    known: int
    more: float

    def on_top_of(self, known: int) -> float:
        """How many are left on top of those who are known by now, some of whom it foresaw."""
        return max(0.0, self.more - (known - self.known))


class Brake:
    """Decides whether accounts that their provider knows no more are gone.

    They are written down as held first, then counted, and only then let go, so that whatever
    happens in between nobody's sessions end by mistake. So that the first of many do not go before
    the count is high enough, some accounts of the same provider are asked for too.

    :param watch: the links, where what the brake remembers is kept.
    :param questions: how the sample is asked for.
    :param limit: ``None`` lets everybody go.
    :param interval: seconds within which vanished accounts are counted together.
    :param clock: tells the time.
    """

    log = Logger()

    def __init__(
        self,
        watch: ILinkWatch,
        questions: Questions,
        limit: BrakeLimit | None,
        interval: float,
        clock: IReactorTime,
    ) -> None:
        self._watch = watch
        self._limit = limit
        self._interval = interval
        self._clock = clock
        self._sampler = Sampler(questions, clock)
        self._estimates: dict[str, Estimate] = {}
        self._unlinked: dict[str, float] = {}
        self._warned: float | None = None

    async def let_go(self, rows: Sequence[WatchedLink], all_asked: bool) -> bool:
        """Decide of accounts that have just been found to be gone; one caller at a time.

        :param rows: which; none that is marked as gone already.
        :param all_asked: whether every account of their provider has been asked for, so that the
            number of these says it all.
        :return: whether they are gone; the rows say so then. Otherwise they are held.
        """
        user_ids = [row.user_id for row in rows]
        now = in_milliseconds(self._clock.seconds())
        await self._watch.mark(user_ids, gone_since=now, held=True)
        if self._limit is not None:
            counts = await self._count()
            providers = set() if all_asked else {row.link.provider for row in rows}
            if await self._is_too_many(counts, providers):
                return False
        await self._watch.mark(user_ids, gone_since=now, held=False)
        return True

    async def lets_go_unlinked(self, user_id: str) -> bool:
        """The same for an account that is linked to no provider, and has no row to be marked."""
        if self._limit is None:
            return True
        now = self._clock.seconds()
        self._unlinked = {
            name: when for name, when in self._unlinked.items() if when > now - self._interval
        }
        self._unlinked.setdefault(user_id, now)
        return not await self._is_too_many_unlinked(await self._count())

    def is_past(self, when: int | None) -> bool:
        """Whether a moment is longer ago than an interval."""
        since = in_milliseconds(self._clock.seconds() - self._interval)
        return when is not None and when <= since

    async def is_over(self) -> bool:
        """Whether those who are held may be let go: all have been looked at since, those who are
        gone are few, and a new sample says the same. So it is when a sample misled, or when most
        have come back.
        """
        counts = await self._count()
        if not counts.held:
            return False
        if self._limit is None:
            return True
        newest, oldest = counts.newest_held, counts.oldest_look
        if newest is None or oldest is None or oldest <= newest:
            return False
        return not await self._is_too_many(counts, set(counts.living))

    def warn(self, counts: LinkCounts) -> None:
        """Say so once a minute while anybody is held."""
        now = self._clock.seconds()
        lately = self._warned is not None and 0 <= now - self._warned < _WARN_EVERY
        if counts.held and not lately:
            self._warned = now
            self.log.warn(
                "the brake is on: {held} of {present} linked accounts have vanished; their sessions"
                " are not ended until `sessions end-gone --yes` says that they are gone",
                held=counts.held,
                present=counts.present,
            )

    async def _count(self) -> LinkCounts:
        since = in_milliseconds(self._clock.seconds() - self._interval)
        return await self._watch.counts(since)

    async def _is_too_many(self, counts: LinkCounts, providers: set[str]) -> bool:
        assert self._limit is not None
        limit = self._limit.of(counts.present)
        vanished = counts.vanished + len(self._unlinked)
        more = 0.0
        for provider in sorted(providers):
            if vanished + more > limit:
                break
            if not self._is_good(provider):
                drawn = await self._watch.sample(provider, MOST)
                size = counts.living.get(provider, 0)
                await self._estimate(provider, drawn, size, vanished, limit)
            more += self._estimates[provider].on_top_of(vanished)
        return vanished + more >= limit + 0.5

    async def _is_too_many_unlinked(self, counts: LinkCounts) -> bool:
        assert self._limit is not None
        names = await self._watch.sample_unlinked(MOST)
        limit = self._limit.of(counts.present + len(names))
        vanished = counts.vanished + len(self._unlinked)
        if vanished <= limit and not self._is_good(_UNLINKED):
            # Nothing is written down of them, so those known to have vanished are taken out here.
            drawn = [name for name in names if name not in self._unlinked]
            await self._estimate(_UNLINKED, drawn, len(drawn), vanished, limit)
        more = self._estimates[_UNLINKED].on_top_of(vanished) if vanished <= limit else 0
        return vanished + more >= limit + 0.5

    def _is_good(self, provider: str) -> bool:
        """Whether there is an estimate that is not too old.

        One that would be good for longer than any is from before the clock was set back.
        """
        estimate = self._estimates.get(provider)
        if estimate is None:
            return False
        return 0 < estimate.good_until - self._clock.seconds() <= self._interval / 10

    async def _estimate(
        self, provider: str, drawn: Sequence[Link | str], size: int, vanished: int, limit: int
    ) -> None:
        more = await self._sampler.gone(drawn, size, limit - vanished)
        lasts = min(max(_ESTIMATE_LASTS, size / _PER_SECOND), self._interval / 10)
        self._estimates[provider] = Estimate(self._clock.seconds() + lasts, vanished, more)
