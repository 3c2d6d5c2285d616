"""The brake: when too many accounts vanish at once, it assumes that the directory is at fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from synapse_login_module.accounts.questions import Questions
from synapse_login_module.accounts.sampling import MOST, Sampler
from synapse_login_module.accounts.watch import in_milliseconds
from synapse_login_module.common.repeats import OncePerPeriod
from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import Link, LinkCounts, WatchedLink

_ESTIMATE_LASTS = 5.0
"""Seconds for which an estimate is good at least; a tenth of the interval is the most."""

_PER_SECOND = 10
"""How many accounts of a provider may be sampled a second while accounts keep vanishing. An
estimate from a large sample is therefore good for longer."""

_UNLINKED = ""
"""Stands in for the provider's name of accounts that have no link."""


class BrakeLimit(NamedTuple):
    """How many accounts may vanish within one interval: the larger of two numbers.

    :param accounts: an absolute number.
    :param percent: a percentage of the linked accounts.
    """

    accounts: int
    percent: float

    def of(self, present: int) -> int:
        """Return the limit.

        :param present: the number of linked accounts; see ``LinkCounts.present``.
        """
        return max(self.accounts, int(present * self.percent / 100))


class Estimate(NamedTuple):
    """How many accounts of a provider have vanished without being known yet, judged by a sample.

    :param good_until: when a new sample has to be drawn, in seconds of the clock.
    :param known: how many accounts of all providers were known to have vanished when the sample was
        drawn.
    :param more: how many accounts of this provider had vanished besides.
    """

    good_until: float
    known: int
    more: float

    def on_top_of(self, known: int) -> float:
        """Return how many vanished accounts are still unknown.

        Those that became known since the sample was drawn are part of ``more``.

        :param known: how many accounts are known to have vanished now.
        """
        return max(0.0, self.more - (known - self.known))


class Brake:
    """Decides whether accounts that their provider no longer knows are gone.

    It marks them as held, counts, and marks them as gone only then. A crash in between therefore
    ends no session by mistake. It also asks about a sample of other accounts of the same provider.
    Without the sample, the first of many vanished accounts would be gone before the count reaches
    the limit.

    :param watch: the links. The marks of the brake are kept in them.
    :param questions: asks about the sample.
    :param limit: ``None`` holds no account.
    :param interval: seconds within which vanished accounts are counted together.
    :param clock: the wall clock.
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
        self._lines = OncePerPeriod(clock.seconds)

    async def let_go(self, rows: Sequence[WatchedLink], all_asked: bool) -> bool:
        """Decide whether accounts that their provider no longer knows are gone.

        Calls must not overlap.

        :param rows: the links of the accounts. None is marked as gone already.
        :param all_asked: whether every account of their provider was asked about. No sample is
            needed then.
        :return: ``True`` when the accounts are gone, and marked so; ``False`` when they are held.
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
        """Decide whether an account without a link is gone, as :meth:`let_go` does.

        There is no row to mark. Such accounts are counted in memory.
        """
        if self._limit is None:
            return True
        now = self._clock.seconds()
        self._unlinked = {
            name: when for name, when in self._unlinked.items() if when > now - self._interval
        }
        self._unlinked.setdefault(user_id, now)
        return not await self._is_too_many_unlinked(await self._count())

    def is_past(self, when: int | None) -> bool:
        """Say whether a time is longer ago than one interval.

        :param when: milliseconds since the epoch; ``None`` is not past.
        """
        since = in_milliseconds(self._clock.seconds() - self._interval)
        return when is not None and when <= since

    async def is_over(self) -> bool:
        """Say whether the held accounts may be let go.

        They may when all links were looked at since the last account was held, few are gone, and a
        new sample agrees. That happens when a sample misled, or when most accounts came back.
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
        """Log a warning at most once a minute while any account is held."""
        if counts.held and self._lines.is_written():
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
            # They have no marks, so the database cannot leave out those known to have vanished.
            drawn = [name for name in names if name not in self._unlinked]
            await self._estimate(_UNLINKED, drawn, len(drawn), vanished, limit)
        more = self._estimates[_UNLINKED].on_top_of(vanished) if vanished <= limit else 0
        return vanished + more >= limit + 0.5

    def _is_good(self, provider: str) -> bool:
        """Say whether there is an estimate that is not too old.

        An estimate that ends later than any new one would was made before the clock was set back.
        It counts as too old.
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
