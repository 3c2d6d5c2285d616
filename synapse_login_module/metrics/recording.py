"""Counting and measuring, whether or not the result is shown anywhere."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from typing import Protocol

import twisted
from synapse_login_module.metrics import definitions
from synapse_login_module.metrics.definitions import Definition

MAX_SERIES = 200
"""How many combinations of labels a metric keeps apart at most."""

OTHER = "other"
"""The labels of all further combinations."""

LONGEST_VALUE = 100
"""How many bytes the value of a label has at most, as JSON without its quotes."""


class Series(Protocol):
    """One time series: a metric with values for its labels. The methods may run on any thread."""

    def inc(self, amount: float = 1) -> None:
        """Count up, if it is of a counter."""

    def set(self, value: float) -> None:
        """Set the value, if it is of a gauge."""

    def observe(self, value: float) -> None:
        """Count a value in its bucket, if it is of a histogram."""


class _Nothing:
    """A series that is not kept."""

    def inc(self, amount: float = 1) -> None:
        """Do nothing."""

    def set(self, value: float) -> None:
        """Do nothing."""

    def observe(self, value: float) -> None:
        """Do nothing."""


_NOTHING = _Nothing()


class Gathered:
    """A counter that is added to the one that is shown when the gauges are sampled.

    ``prometheus_client`` takes a lock for each addition, which costs twenty times this. One thread
    may use it.

    :param series: the counter that is shown.
    """

    __slots__ = ("_pending", "_series")

    def __init__(self, series: Series) -> None:
        self._series = series
        self._pending: float = 0

    def inc(self, amount: float = 1) -> None:
        """Count up."""
        self._pending += amount

    def set(self, value: float) -> None:
        """Refuse: it is no gauge."""
        raise TypeError("a counter cannot be set")

    def observe(self, value: float) -> None:
        """Refuse: it is no histogram."""
        raise TypeError("a counter observes nothing")

    def flush(self) -> None:
        """Add to the counter that is shown."""
        if self._pending:
            self._series.inc(self._pending)
            self._pending = 0  # only now, since adding may fail


class Metric:
    """A metric, and its series by the values of its labels.

    A series is looked up in a dictionary, which is cheap enough for every request. Beyond
    :data:`MAX_SERIES`, values are counted under :data:`OTHER`: some labels may come from a third
    party's provider, and one that puts a user's name there must not fill the memory.

    :param make: makes the series, from one value for each label.
    :param labels: the number of labels.
    :param gathers: whether to keep each series as :class:`Gathered`.
    :ivar other: the labels of what is not kept apart.
    """

    def __init__(self, make: Callable[..., Series], labels: int, gathers: bool = False) -> None:
        self._make = (lambda *values: Gathered(make(*values))) if gathers else make
        self.other = (OTHER,) * labels
        self._series: dict[tuple[str, ...], Series] = {}

    def of(self, *values: str) -> Series:
        """Return the series with these labels."""
        found = self._series.get(values)
        return self._add(values) if found is None else found

    def flush(self) -> None:
        """Have what was gathered shown."""
        for series in self._series.values():
            if isinstance(series, Gathered):
                series.flush()

    def _add(self, values: tuple[str, ...]) -> Series:
        if len(self._series) >= MAX_SERIES:
            if self.other not in self._series:
                self._series[self.other] = self._make(*self.other)
            return self._series[self.other]
        made = self._series[values] = self._make(*map(_printable, values))
        return made


def _printable(value: str) -> str:
    """Return a value as it can be written to the page: of bounded length, no lone surrogate."""
    printable = value[:LONGEST_VALUE].encode("utf-8", "replace").decode("utf-8")
    while len(json.dumps(printable)) - len('""') > LONGEST_VALUE:
        printable = printable[:-1]
    return printable


def kept_nowhere(definition: Definition) -> Metric:
    """Make a metric whose series are not kept."""
    return Metric(lambda *values: _NOTHING, len(definition.labels))


class Metrics:
    """All that is counted and measured; see :mod:`~synapse_login_module.metrics.definitions`.

    :param make: makes the metric of a definition; by default one that is kept nowhere.
    """

    def __init__(self, make: Callable[[Definition], Metric] = kept_nowhere) -> None:
        self._frequent: list[Metric] = []

        def begin(definition: Definition) -> Metric:
            metric = make(definition)
            if definition.is_frequent:
                self._frequent.append(metric)
            for values in definition.first:
                metric.of(*values)
            return metric

        self.outcomes = begin(definitions.OUTCOMES)
        self.limits_hit = begin(definitions.LIMITS_HIT)
        self.provider_outcomes = begin(definitions.PROVIDER_OUTCOMES)
        self.provider_duration = begin(definitions.PROVIDER_DURATION)
        self.circuit_open = begin(definitions.CIRCUIT_OPEN)
        self.hashing_queue = begin(definitions.HASHING_QUEUE).of()
        self.hashing_wait = begin(definitions.HASHING_WAIT).of()
        self.sweep_looks = begin(definitions.SWEEP_LOOKS)
        self.sweep_lag = begin(definitions.SWEEP_LAG).of()
        self.linked_accounts = begin(definitions.LINKED_ACCOUNTS)
        self.brake_held = begin(definitions.BRAKE_HELD).of()
        self.sessions_ended = begin(definitions.SESSIONS_ENDED)
        self.commit_duration = begin(definitions.COMMIT_DURATION).of()
        self.commit_size = begin(definitions.COMMIT_SIZE).of()
        self.store_failures = begin(definitions.COMMIT_FAILURES).of()
        self.connections = begin(definitions.CONNECTIONS)
        self.in_flight = begin(definitions.IN_FLIGHT)
        self.responses = begin(definitions.RESPONSES)
        self.pruned = begin(definitions.PRUNED)
        self.homeserver_calls = begin(definitions.HOMESERVER_CALLS)
        self._build = begin(definitions.BUILD)
        self._watched: list[tuple[Series, Callable[[], float]]] = []

    def watch(self, series: Series, read: Callable[[], float]) -> None:
        """Have :meth:`sample` set a gauge to what a function returns."""
        self._watched.append((series, read))

    def sample(self) -> None:
        """Set the gauges that are watched, and have frequent counters shown."""
        for metric in self._frequent:
            metric.flush()
        for series, read in self._watched:
            series.set(read())

    def tell_build(self, version: str) -> None:
        """Tell the version of this service, and of what it runs on."""
        self._build.of(version, platform.python_version(), twisted.__version__).set(1)

    def committed(self, seconds: float, operations: int) -> None:
        """Measure a transaction of the token store that wrote.

        :param operations: how many pieces of work shared it.
        """
        self.commit_duration.observe(seconds)
        self.commit_size.observe(operations)
