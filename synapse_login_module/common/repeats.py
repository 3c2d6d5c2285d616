"""Limits repeated log lines: some are written, the others only counted."""

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
"""The length of a period, in seconds."""

OF_ONE = 10
"""The most lines of one kind and source in a period. The jails of fail2ban ban at fewer."""

OF_ALL = 300
"""The most lines of one kind in a period, from all sources."""

_MAX_SOURCES = 10_000
"""The most sources that are remembered. One more source ends the oldest period early."""


@dataclass(frozen=True)
class Omitted(Generic[K]):
    """The number of lines of a period that were not written.

    :param source: the source of the lines; ``None`` for lines of several sources.
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
    """Decides which log lines are written.

    :param clock: a clock, in seconds.
    :param tell: called with the number of omitted lines, at most once a period for each source and
        for each kind.
    :param call_later: as :meth:`~twisted.internet.interfaces.IReactorTime.callLater`. With it,
        ``tell`` is called soon after the end of a period. Without it, ``tell`` is called at a later
        line, or at :meth:`flush`.
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
        """Count a line, and decide whether it is to be written.

        :param kind: the kind of line.
        :param source: the source of the line, such as a network or a user.
        :param bounded: whether the limit for all sources holds for the line too.
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
                # The source is not remembered: new sources would displace those of other kinds.
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
        """Report all lines that have been omitted so far, and cancel the timer."""
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
        """End the periods that began by ``until``.

        End those that began in the future too, because the clock may have been set back.
        """
        for key, period in _take(self._sources, until, now):
            self._end(key, period)
        for kind, period in _take(self._kinds, until, now):
            if period.omitted:
                self._tell(Omitted(kind, None, period.omitted))
        firsts = (next(iter(each.values()), None) for each in (self._sources, self._kinds))
        self._oldest = min((first.since for first in firsts if first is not None), default=now)

    def _end(self, key: tuple[K, str], period: _Period) -> None:
        """Report the omitted lines of one source.

        Where there were too many lines of the kind already, count them with those of all sources.
        """
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


class OncePerPeriod:
    """Decides that one log line in a period is written.

    :param clock: a clock, in seconds. When it is set back, a new period begins.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = -math.inf

    def is_written(self) -> bool:
        """Decide whether a line is to be written; if so, begin a period."""
        now = self._clock()
        if 0 <= now - self._since < PERIOD:
            return False
        self._since = now
        return True


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
