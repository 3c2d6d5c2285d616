"""Lines of a log that anybody may cause: some are written, the others counted."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall

K = TypeVar("K", bound=Hashable)
P = TypeVar("P", bound=Hashable)

PERIOD = 60.0
"""Seconds for which lines are counted together."""

OF_ONE = 10
"""Lines of one source that are written in that time; fail2ban's jails ban at fewer."""

OF_ALL = 300
"""Lines of one kind that are written in that time, whatever their sources."""

_MAX_SOURCES = 10_000
"""Beyond that, the oldest period ends early: so lines of many users crowd out nobody's."""


@dataclass(frozen=True)
class Omitted(Generic[K]):
    """Lines that were not written.

    :param source: whose they were; ``None`` for those of many.
    """

    kind: K
    source: str | None
    lines: int


class _Period:
    __slots__ = ("omitted", "since", "written")

    def __init__(self, since: float) -> None:
        self.since = since
        self.written = self.omitted = 0


class Repeats(Generic[K]):
    """Says which lines are to be written.

    :param clock: a clock.
    :param tell: called with what was omitted, once a period at the most for each source, and for
        each kind.
    :param call_later: has something called after so many seconds, as
        :meth:`~twisted.internet.interfaces.IReactorTime.callLater` does: so ``tell`` is called soon
        after the end of a period. Otherwise it waits for another line, or for :meth:`flush`.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        tell: Callable[[Omitted[K]], object],
        call_later: Callable[[float, Callable[[], None]], IDelayedCall] | None = None,
    ) -> None:
        self._clock = clock
        self._tell = tell
        self._call_later = call_later
        self._timer: IDelayedCall | None = None
        self._sources: OrderedDict[tuple[K, str], _Period] = OrderedDict()
        self._kinds: OrderedDict[K, _Period] = OrderedDict()
        self._oldest = -math.inf

    def is_written(self, kind: K, source: str, bounded: bool = True) -> bool:
        """Count a line, and say whether it is written.

        :param bounded: whether it counts among those of all sources too.
        """
        now = self._clock()
        if not now - PERIOD < self._oldest <= now:
            self._end_periods(now - PERIOD, now)
        of_all = self._kinds.get(kind)
        if of_all is None:
            of_all = self._kinds[kind] = _Period(now)
        is_full = bounded and of_all.written >= OF_ALL
        of_one = self._sources.get((kind, source))
        if of_one is None:
            if is_full:
                # Not remembered: sources without end would crowd out those of other kinds.
                self._omit(of_all)
                return False
            if len(self._sources) >= _MAX_SOURCES:
                self._end(*self._sources.popitem(last=False))
            of_one = self._sources[kind, source] = _Period(now)
        if of_one.written >= OF_ONE:
            self._omit(of_one)
            return False
        if is_full:
            self._omit(of_all)
            return False
        of_one.written += 1
        of_all.written += bounded
        return True

    def flush(self) -> None:
        """Tell all that has been omitted so far, and leave no timer behind."""
        now = self._clock()
        self._end_periods(now, now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _omit(self, period: _Period) -> None:
        period.omitted += 1
        if self._timer is None and self._call_later is not None:
            self._timer = self._call_later(PERIOD, self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = self._clock()
        self._end_periods(now - PERIOD, now)
        periods = chain(self._sources.values(), self._kinds.values())
        if self._call_later is not None and any(period.omitted for period in periods):
            self._timer = self._call_later(PERIOD, self._wake)

    def _end_periods(self, until: float, now: float) -> None:
        """End the periods that began by then, or in the future: the clock may be set back."""
        for key, period in _take(self._sources, until, now):
            self._end(key, period)
        for kind, period in _take(self._kinds, until, now):
            if period.omitted:
                self._tell(Omitted(kind, None, period.omitted))
        firsts = (next(iter(each.values()), None) for each in (self._sources, self._kinds))
        self._oldest = min((first.since for first in firsts if first is not None), default=now)

    def _end(self, key: tuple[K, str], period: _Period) -> None:
        """Tell of one source, or count it among all where there were too many lines already."""
        kind, source = key
        if not period.omitted:
            return
        of_all = self._kinds.get(kind)
        if of_all is not None and of_all.written >= OF_ALL:
            of_all.omitted += period.omitted
            return
        if of_all is not None:
            of_all.written += 1
        self._tell(Omitted(kind, source, period.omitted))


def _take(
    periods: OrderedDict[P, _Period], until: float, now: float
) -> Sequence[tuple[P, _Period]]:
    taken = []
    while periods:
        key = next(iter(periods))
        if until < periods[key].since <= now:
            break
        taken.append((key, periods.pop(key)))
    return taken
