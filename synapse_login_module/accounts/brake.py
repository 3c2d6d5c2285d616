"""The brake: when too many accounts vanish at once, the directory is at fault and not they."""

from __future__ import annotations

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
_PROBE_LASTS = 5.0
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


class Sample(NamedTuple):
    """What a sample of the accounts of a provider says.

    :param asked: how many were asked for.
    :param gone: how much of them is gone, from 0 to 1.
    """

    asked: int
    gone: float


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
        self._probes: dict[str, tuple[float, Sample]] = {}
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
        """Whether whoever is held may be let go: all have been looked at since, and those that are
        gone are few. So it is when a sample misled, or most have come back.
        """
        counts = await self._count()
        if not counts.held:
            return False
        if self._limit is None:
            return True
        newest, oldest = counts.newest_held, counts.oldest_look
        if newest is None or oldest is None or oldest <= newest:
            return False
        return counts.vanished + len(self._unlinked) <= self._limit.of(counts.present)

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
        for provider in sorted(providers):
            sample = await self._sample(provider)
            if provider != _UNLINKED:
                # Whoever has vanished so far is not in the sample.
                vanished += round(sample.gone * counts.living.get(provider, 0))
            elif sample.asked < _SAMPLE:
                vanished += round(sample.gone * sample.asked)
            elif sample.gone * 100 > self._limit.percent:
                return True
        return vanished > limit

    async def _sample(self, provider: str) -> Sample:
        """Ask for a sample of a provider's accounts.

        When less than half of it can be asked for, all of it counts as gone.
        """
        asked_at, sample = self._probes.get(provider, (float("-inf"), Sample(0, 0.0)))
        if self._clock.seconds() - asked_at < min(_PROBE_LASTS, self._interval / 10):
            return sample
        answers = await self._probe(provider)
        said = [status for answered, status in answers if answered]
        gone = 0.0
        if 2 * len(said) < len(answers):
            gone = 1.0
        elif answers:
            gone = sum(status is None for status in said) / len(said)
        sample = Sample(len(answers), gone)
        self._probes[provider] = self._clock.seconds(), sample
        return sample

    async def _probe(self, provider: str) -> list[tuple[bool, AccountStatus | None]]:
        """Ask for some accounts; each answer says whether it is one."""
        drawn: list[Link | str]
        if provider == _UNLINKED:
            drawn = list(await self._watch.sample_unlinked(_SAMPLE))
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
