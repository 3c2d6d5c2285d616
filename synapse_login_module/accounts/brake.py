"""The brake: when too many accounts vanish at once, the directory is at fault and not they."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from synapse_login_module.accounts.questions import Questions
from synapse_login_module.accounts.watch import (
    ILinkWatch,
    LinkCounts,
    WatchedLink,
    in_milliseconds,
)
from synapse_login_module.errors import LoginServiceError
from synapse_login_module.model import AccountStatus, Link

_SAMPLE = 50
_ESTIMATE_LASTS = 5.0
_PROBE_TIMEOUT = 10.0
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

    :param made_at: seconds.
    :param known: how many were known to have vanished then.
    :param more: so many on top of them.
    """

    made_at: float
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
        self._questions = questions
        self._limit = limit
        self._interval = interval
        self._clock = clock
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
        return not await self._is_too_many(await self._count(), {_UNLINKED})

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
        if counts.held and (self._warned is None or now - self._warned >= _WARN_EVERY):
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
        if vanished > limit:
            return True
        more = 0.0
        for provider in sorted(providers):
            estimate = self._estimates.get(provider)
            lasts = min(_ESTIMATE_LASTS, self._interval / 10)
            if estimate is None or self._clock.seconds() - estimate.made_at >= lasts:
                more_now = await self._estimate(provider, counts)
                estimate = Estimate(self._clock.seconds(), vanished, more_now)
                self._estimates[provider] = estimate
            more += estimate.on_top_of(vanished)
        return vanished + more >= limit + 0.5

    async def _estimate(self, provider: str, counts: LinkCounts) -> float:
        """How many more of a provider's accounts have vanished than is known.

        When less than half of the sample can be asked for, all of it counts as gone.
        """
        answers = await self._probe(provider)
        if not answers:
            return 0.0
        said = [status for answered, status in answers if answered]
        gone = 1.0
        if 2 * len(said) >= len(answers):
            gone = sum(status is None for status in said) / len(said)
        if provider != _UNLINKED:
            return gone * counts.living.get(provider, 0)
        if len(answers) < _SAMPLE:
            return gone * len(answers)
        # Nobody has counted them: what is too much of the sample is too much.
        assert self._limit is not None
        return math.inf if gone * 100 > self._limit.percent else 0.0

    async def _probe(self, provider: str) -> list[tuple[bool, AccountStatus | None]]:
        """Ask for some accounts; each answer says whether it is one."""
        drawn: list[Link | str]
        if provider == _UNLINKED:
            # Whoever is known to have vanished is not to be counted twice.
            names = await self._watch.sample_unlinked(_SAMPLE)
            drawn = [name for name in names if name not in self._unlinked]
        else:
            drawn = list(await self._watch.sample(provider, _SAMPLE))
        asking = [Deferred.fromCoroutine(self._ask(each)) for each in drawn]
        answers: list[tuple[bool, AccountStatus | None]] = await gatherResults(asking)
        return answers

    async def _ask(self, whom: Link | str) -> tuple[bool, AccountStatus | None]:
        asked = self._questions.ask(whom).addTimeout(_PROBE_TIMEOUT, self._clock)
        try:
            return True, await asked
        except LoginServiceError:
            return False, None
        except Exception as error:  # a provider of somebody else's, or the time is up
            self.log.debug("no answer for the brake: {problem}", problem=repr(error))
            return False, None
