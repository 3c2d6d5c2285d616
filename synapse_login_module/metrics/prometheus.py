"""The metrics in ``prometheus_client``."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from synapse_login_module.metrics.definitions import Definition, Kind, Place
from synapse_login_module.metrics.recording import Metric, Metrics, kept_nowhere

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The variable of the environment that has ``prometheus_client`` keep all values in files, in the
folder that it names. It reads the variable when it is imported."""


def is_installed() -> bool:
    """Return whether ``prometheus_client`` is installed."""
    return find_spec("prometheus_client") is not None


def own_registry() -> Any:
    """Make the registry of a process that has its metrics to itself.

    They are kept in memory, even if the environment says otherwise for some other program.
    """
    os.environ.pop(FOLDER_VARIABLE, None)
    from prometheus_client import CollectorRegistry, disable_created_metrics

    disable_created_metrics()  # a third of the page, and Prometheus makes nothing of them
    return CollectorRegistry()


def metrics_in(registry: Any) -> Metrics:
    """Make the metrics of one process.

    :param registry: the ``CollectorRegistry`` that shows them.
    """
    return Metrics(_maker(registry, gathers=True))


def metrics_of_worker(slot: str) -> Metrics:
    """Make the metrics of one of several processes, in files of the folder they share.

    :param slot: the name of its files, which no other process uses at the same time. Values of an
        earlier process with this name are continued, so that there are never more files than
        processes at once.
    """
    from prometheus_client import values

    values.ValueClass = values.MultiProcessValue(lambda: slot)
    return Metrics(_maker(None, in_files=True, gathers=True))


def drop_gauges(folder: Path, slot: str) -> None:
    """Remove the gauges of a process that has ended; its counters and histograms stay.

    :param slot: see :func:`metrics_of_worker`.
    """
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(slot, str(folder))


@cache
def metrics_of_synapse() -> Metrics:
    """Make the metrics in the registry that Synapse's own metrics listener shows.

    They are made once in a process, since the registry takes no name twice.
    """
    from prometheus_client import REGISTRY

    maker = _maker(REGISTRY)

    def make(definition: Definition) -> Metric:
        if definition.place is Place.EVERYWHERE:
            return maker(definition)
        return kept_nowhere(definition)

    sampling = _Sampling()
    REGISTRY.register(sampling)  # first of all, as the registry asks in this order
    sampling.metrics = metrics = Metrics(make)
    return metrics


class _Sampling:
    """Sets the gauges that are watched whenever the registry is asked; shows nothing itself."""

    metrics: Metrics | None = None

    def describe(self) -> list[Any]:
        """Name no metric."""
        return []

    def collect(self) -> list[Any]:
        """Set the gauges."""
        if self.metrics is not None:
            self.metrics.sample()
        return []


def _maker(
    registry: Any, in_files: bool = False, gathers: bool = False
) -> Callable[[Definition], Metric]:
    """Return what makes the metric of a definition.

    :param registry: where it is shown; ``None`` where it is read from files.
    :param gathers: whether frequent counters are gathered. They have to be sampled before they are
        read, on the thread that counts. Synapse's listener may read them on another one.
    """
    from prometheus_client import Counter, Gauge, Histogram

    classes: dict[Kind, Any] = {
        Kind.COUNTER: Counter,
        Kind.GAUGE: Gauge,
        Kind.HISTOGRAM: Histogram,
    }

    def make(definition: Definition) -> Metric:
        options: dict[str, Any] = {}
        if definition.kind is Kind.HISTOGRAM:
            options["buckets"] = definition.buckets
        if definition.kind is Kind.GAUGE and in_files:
            options["multiprocess_mode"] = definition.multiprocess_mode
        made = classes[definition.kind](
            definition.name, definition.help, definition.labels, registry=registry, **options
        )
        series = made.labels if definition.labels else lambda: made
        return Metric(series, len(definition.labels), gathers and definition.is_frequent)

    return make
