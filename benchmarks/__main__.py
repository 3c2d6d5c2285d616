"""Runs the measurements and prints one table, in reStructuredText."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks import (
    delegation,
    figures,
    homeserver,
    measure,
    metrics,
    plots,
    prune,
    refusals,
    resources,
    running,
    sweep,
    workers,
)
from benchmarks.figures import FAILED, Row, Run
from benchmarks.size import Size
from tests.support import REPOSITORY
from tests.support.postgresql import release

_POSTGRESQL = "postgresql"
_OF_SYNAPSE = ("synapse-", "delegated-")

_MEASUREMENTS: dict[str, Callable[[Path, Size], Iterator[Row]]] = {
    "refreshes": measure.refreshes,
    _POSTGRESQL: measure.postgresql,
    "introspection": measure.introspection,
    "logins": measure.logins,
    "storm": measure.storm,
    "memory": resources.memory,
    "start-up": resources.start_up,
    "growth": resources.growth,
    "workers": workers.workers,
    "metrics": metrics.refreshes,
    "pruning": prune.pruning,
    "timing": refusals.standalone,
    "timing-backends": refusals.at_backends,
    "synapse-refreshes": homeserver.refreshes,
    "synapse-logins": homeserver.logins,
    "synapse-storm": homeserver.storm,
    "synapse-standalone": homeserver.standalone,
    "synapse-sweep": sweep.sweep,
    "synapse-timing": refusals.in_synapse,
    "delegated-logins": delegation.logins,
    "delegated-tokens": delegation.tokens,
}

_DOCS = REPOSITORY / "docs"
_FEWEST = 1_000
"""The sessions in the database that larger ones are compared with."""

_LIBRARIES = ("twisted", "bcrypt", "pydantic")


def main() -> None:
    """Parse the command line, run the measurements and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this server side by side with what limits its speed, on this machine."
        " Only the ratios are meaningful.",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="run all measurements, and write docs/benchmarks.rst, docs/benchmarks.json and the"
        " drawings in docs/plots",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter measurements, for a first look"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=list(_MEASUREMENTS),
        help="run only this measurement; may be given more than once",
    )
    parser.add_argument(
        "--sessions",
        type=_count,
        action="append",
        metavar="N",
        help="compare a database of this many sessions with one of a thousand; may be given more"
        " than once (default: 1e5 and 1e6; 1e7 takes minutes to fill)",
    )
    parser.add_argument(
        "--folder", type=Path, help="make the databases in this folder, and so on its disk"
    )
    parser.add_argument(
        "--postgresql",
        action="store_true",
        help="measure this server and Synapse on PostgreSQL too, if it is installed",
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FILE",
        help="also write the table into this document, in place of the last one",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures into this file"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FOLDER", help="also draw the figures, as SVG, in this folder"
    )
    parser.add_argument(
        "--from",
        dest="figures",
        type=Path,
        metavar="FILE",
        help="measure nothing, and take the figures that --json has written",
    )
    options = parser.parse_args()
    if options.publish:
        if options.only:
            parser.error("--publish takes all measurements; leave out --only")
        options.postgresql = True
        options.into, options.json = _DOCS / "benchmarks.rst", _DOCS / "benchmarks.json"
        options.plot = _DOCS / "plots"
    runs = figures.read(options.figures) if options.figures else [_run(options)]
    if options.json is not None:
        figures.write(options.json, runs)
        runs = figures.read(options.json)  # as rounded there, so that all that is drawn agrees
    print(figures.tables(runs), end="")
    if options.into is not None:
        document = options.into.read_text("utf-8")
        options.into.write_text(figures.into(document, runs), "utf-8")
    if options.plot is not None:
        options.plot.mkdir(parents=True, exist_ok=True)
        for name, drawing in plots.draw(runs):
            (options.plot / f"{name}.svg").write_text(drawing, "utf-8")
    if any(row.verdict == FAILED for run in runs for row in run.rows):
        raise SystemExit(1)


def _run(options: argparse.Namespace) -> Run:
    """Run the measurements, and print each figure as it comes."""
    size = _size(options.quick, options.sessions or [], options.postgresql)
    names = options.only or (
        list(_MEASUREMENTS) if options.publish else _possible(options.postgresql)
    )
    if options.folder is not None:
        # tests.support makes PostgreSQL's folder there, too.
        tempfile.tempdir = str(options.folder.resolve())
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        circumstances = _circumstances(Path(folder), _libraries(names, options.postgresql))
        rows = running.run({name: partial(_measure, name, Path(folder), size) for name in names})
    return Run(circumstances, rows)


def _measure(name: str, folder: Path, size: Size) -> Iterator[Row]:
    """Run one measurement, in a folder of its own that is removed afterwards."""
    if name.startswith(_OF_SYNAPSE):
        # It answers a tenth of what this server does alone.
        size = replace(size, rounds=min(size.rounds, 6), refreshes=size.refreshes // 2)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        yield from _MEASUREMENTS[name](Path(place), size)


def _possible(postgresql: bool) -> list[str]:
    """List the measurements that can run with the installed programs."""
    names = [name for name in _MEASUREMENTS if postgresql or name != _POSTGRESQL]
    if find_spec("synapse") is None:
        return [name for name in names if not name.startswith(_OF_SYNAPSE)]
    return names


def _libraries(names: Sequence[str], postgresql: bool) -> list[str]:
    """List the libraries and programs that take part, with their versions."""
    distributions = list(_LIBRARIES)
    if any(name.startswith(_OF_SYNAPSE) for name in names):
        distributions.append("matrix-synapse")
    postgresql = postgresql or _POSTGRESQL in names
    if postgresql:
        distributions.append("psycopg")
    found = [f"{name} {version(name)}" for name in distributions]
    return [*found, release()] if postgresql else found


def _size(quick: bool, sessions: Sequence[int], postgresql: bool) -> Size:
    if quick:
        counts = sorted({_FEWEST, *(sessions or [100_000])})
        return Size(4, refreshes=1000, hashing=1.5, cost=10, sessions=counts, postgresql=postgresql)
    counts = sorted({_FEWEST, *(sessions or [100_000, 1_000_000])})
    return Size(8, refreshes=3000, hashing=3.0, cost=12, sessions=counts, postgresql=postgresql)


def _count(text: str) -> int:
    count = int(float(text))
    if not 100 <= count <= 100_000_000:
        raise argparse.ArgumentTypeError("from 100 to 1e8")
    return count


def _circumstances(folder: Path, libraries: Sequence[str]) -> str:
    """Describe the machine, the versions and the cost of a durable write."""
    took = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return (
        f"{date.today()}: Python {platform.python_version()}, {', '.join(libraries)},"
        f" SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.release()},"
        f" {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} before;"
        f" a durable write takes {sorted(took)[25] * 1e3:.2f} ms."
    )


if __name__ == "__main__":
    main()
