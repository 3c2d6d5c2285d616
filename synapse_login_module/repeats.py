"""Lines of a log that anybody may cause: some are written, the others counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
P = TypeVar("P", bound=Hashable)

PERIOD = 60.0
"""Seconds for which lines are counted together."""

OF_ONE = 10
"""Lines of one source that are written in that time; fail2ban's jails ban at as many."""

OF_ALL = 300
"""Lines of one kind that are written in that time, whatever their sources."""

_MAX_SOURCES = 10_000


class Omitted(NamedTuple, Generic[K]):
    """Lines that were not written.

    :param source: whose they were; ``None`` for those of many.
    """

    kind: K
    source: str | None
    lines: int


class _Period:
    def __init__(self, since: float) -> None:
        self.since = since
        self.written = self.omitted = 0


class Repeats(Generic[K]):
    """Says which lines are to be written.

    :param seconds: a clock.
    :param tell: called with what was omitted, once a period at the most for each source, and for
        each kind. It is called when a line comes after the end of the period, or at :meth:`flush`.
    """

    def __init__(self, seconds: Callable[[], float], tell: Callable[[Omitted[K]], object]) -> None:
        self._seconds = seconds
        self._tell = tell
        self._sources: OrderedDict[tuple[K, str], _Period] = OrderedDict()
        self._kinds: OrderedDict[K, _Period] = OrderedDict()

    def is_written(self, kind: K, source: str, bounded: bool = True) -> bool:
        """Count a line, and say whether it is written.

        :param bounded: whether it counts among those of all sources too.
        """
        now = self._seconds()
        self._flush(now - PERIOD, now)
        of_all = self._kinds.setdefault(kind, _Period(now))
        key = kind, source
        if key not in self._sources and len(self._sources) >= _MAX_SOURCES:
            of_all.omitted += 1
            return False
        of_one = self._sources.setdefault(key, _Period(now))
        if of_one.written >= OF_ONE:
            of_one.omitted += 1
            return False
        if bounded and of_all.written >= OF_ALL:
            of_all.omitted += 1
            return False
        of_one.written += 1
        of_all.written += bounded
        return True

    def flush(self) -> None:
        """Tell all that has been omitted so far."""
        now = self._seconds()
        self._flush(now, now)

    def _flush(self, until: float, now: float) -> None:
        """End the periods that began by then, or in the future: the clock may be set back."""
        for (kind, source), period in _take(self._sources, until, now):
            if not period.omitted:
                continue
            of_all = self._kinds.get(kind)
            if of_all is not None and of_all.written >= OF_ALL:
                of_all.omitted += period.omitted
                continue
            if of_all is not None:
                of_all.written += 1
            self._tell(Omitted(kind, source, period.omitted))
        for kind, period in _take(self._kinds, until, now):
            if period.omitted:
                self._tell(Omitted(kind, None, period.omitted))


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
