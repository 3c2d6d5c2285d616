"""The page that Prometheus reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from synapse_login_module.metrics.definitions import Definition

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""

PROCESSES = "processes.json"
"""The file, in the folder of the workers, that maps the number of each worker to its process id;
that of the parent is 0."""


class Reading(NamedTuple):
    """A value that was read when the page was made.

    :param labels: the values of its labels.
    """

    definition: Definition
    labels: tuple[str, ...]
    value: float


class Page(Protocol):
    """Makes the page. It may block, and may be called on any thread."""

    def __call__(self, readings: Sequence[Reading]) -> bytes:
        """Return the page, with these values too."""


def page_of(registry: Any) -> Page:
    """Return the page of one process: the metrics of a registry, and those of the process."""
    from prometheus_client import ProcessCollector

    process = ProcessCollector(registry=None)
    return _page(lambda: (*registry.collect(), *process.collect()))


def page_of_workers(folder: Path) -> Page:
    """Return the page of several processes that keep their metrics in files of a folder."""
    from prometheus_client.multiprocess import MultiProcessCollector

    workers = MultiProcessCollector(None, str(folder))
    return _page(lambda: (*workers.collect(), *_processes(folder / PROCESSES)))


def _page(collect: Callable[[], Iterable[Any]]) -> Page:
    from prometheus_client import generate_latest

    def make(readings: Sequence[Reading]) -> bytes:
        page: bytes = generate_latest(_Collected([*collect(), *_families(readings)]))
        return page

    return make


class _Collected:
    """What ``generate_latest`` needs of a registry."""

    def __init__(self, families: Sequence[Any]) -> None:
        self._families = families

    def collect(self) -> Sequence[Any]:
        """Return the metrics."""
        return self._families


def _families(readings: Sequence[Reading]) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily

    by_definition: dict[Definition, list[Reading]] = {}
    for reading in readings:
        by_definition.setdefault(reading.definition, []).append(reading)
    for definition, values in by_definition.items():
        family = GaugeMetricFamily(definition.name, definition.help, labels=definition.labels)
        for each in values:
            family.add_metric(each.labels, each.value)
        yield family


def _processes(file: Path) -> Iterable[Any]:
    """Read the metrics of several processes, which have the label ``worker``."""
    from prometheus_client import ProcessCollector
    from prometheus_client.core import Metric

    try:
        pids = json.loads(file.read_text())
    except (OSError, ValueError):  # the parent has logged why it could not write the file
        return ()
    families: dict[str, Any] = {}
    for worker, pid in sorted(pids.items()):
        for metric in ProcessCollector(registry=None, pid=_always(pid)).collect():
            family = families.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            for sample in metric.samples:
                family.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
    return families.values()


def _always(value: int) -> Callable[[], int]:
    return lambda: value
