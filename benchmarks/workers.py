"""The measurements of ``--workers``: two against one, sharing the cores or with room for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from statistics import median

from benchmarks import servers, sessions
from benchmarks.driving import drive, p99, rate
from benchmarks.figures import CONNECTIONS, Row
from benchmarks.load import CHAIN, GET, Result
from benchmarks.machine import processor_time
from benchmarks.quota import can_hold, held
from benchmarks.rounds import interleaved
from benchmarks.servers import MeasuredServer, cluster
from benchmarks.size import Size
from tests.support.process import children

_SESSIONS = 2000
_FEW = 4
"""Connections that leave a worker little to commit in one transaction."""
_MANY = 2 * CONNECTIONS
"""Connections that give each of two workers as much to commit together as one has otherwise."""
_SHARE = 0.4
"""The share of a core that a held worker has. Two of them, the load generator and PostgreSQL fit on
two cores.
"""
_REFRESHES, _REFRESHES_OF_FEW, _LOOKUPS, _HELD = "refreshes", "of few", "lookups", "held"


@dataclass(frozen=True)
class _Database:
    """A kind of database.

    :param make: fills a database for a server; takes the server's folder and name, and returns the
        tokens of the sessions and the ``dsn``.
    :param backends: lists the processes of the database that serve.
    :param refreshes: the least ratio of refreshes at two workers that share the cores.
    :param held: the least ratio when each has room.
    """

    name: str
    make: Callable[[Path, str], tuple[list[bytes], str | None]]
    backends: Callable[[], Sequence[int]]
    refreshes: float | None = None
    held: float | None = None


@dataclass(frozen=True)
class _Side:
    """A running server.

    :param processes: the ids of its processes that answer requests.
    :param unused: the tokens of each run.
    :param looked_up: what is looked up.
    """

    server: MeasuredServer
    processes: Sequence[int]
    unused: Iterator[Sequence[bytes]]
    looked_up: Sequence[bytes]


def workers(folder: Path, size: Size) -> Iterator[Row]:
    """Compare two workers with one, and one with a process without, on each kind of database."""
    yield from _on(_Database("SQLite", _in_sqlite, lambda: (), refreshes=1.0), folder, size)
    if size.postgresql:
        with cluster() as cluster_:

            def make(place: Path, name: str) -> tuple[list[bytes], str | None]:
                dsn = cluster_.new_database(name)
                return sessions.fill_postgresql(place, dsn, _SESSIONS, _SESSIONS), dsn

            yield from _on(_Database("PostgreSQL", make, cluster_.backends, held=1.7), folder, size)


def _in_sqlite(place: Path, _: str) -> tuple[list[bytes], str | None]:
    return sessions.fill(place, _SESSIONS, _SESSIONS), None


def _on(database: _Database, folder: Path, size: Size) -> Iterator[Row]:
    """Measure on one kind of database. All servers run all the time, and one at a time has work."""
    holds = can_hold()
    with ExitStack() as stack:
        sides = {
            name: _start(stack, database, folder, name, count)
            for name, count in (("none", None), ("one", 1), ("two", 2))
        }
        rounds = interleaved(
            size.rounds,
            {name: partial(_run, side, database, size, holds) for name, side in sides.items()},
        )
    refresh, lookup = f"{database.name}: /tokenrefresh", f"{database.name}: /account/whoami"
    alone = rounds.each(itemgetter(_REFRESHES))
    yield alone.compared(
        f"{refresh} a second, --workers 1, against one process without",
        *("one", "none", _rate),
        quiet=True,
    )
    for what, part, least in (
        (f"{refresh}, {CONNECTIONS} connections", _REFRESHES, database.refreshes),
        (f"{refresh}, {_FEW} connections", _REFRESHES_OF_FEW, database.refreshes),
        (f"{lookup}, {CONNECTIONS} connections", _LOOKUPS, None),
    ):
        of = rounds.each(itemgetter(part))
        of_two = f"{what}, --workers 2 against 1 on the same cores"
        yield of.compared(f"{of_two}: a second", "two", "one", _rate, least=least, quiet=True)
        yield of.compared(f"{of_two}: p99", "two", "one", _p99, unit="ms", quiet=True)
    cores = len(os.sched_getaffinity(0))
    busy = median(each.busy for each in alone.made["one"])
    yield Row(
        f"{refresh}: cores that one worker, the database and the load generator keep busy, and the"
        f" most that two workers can gain on {cores}",
        f"{busy:.2f}",
        ratio=min(2.0, cores / busy),
    )
    what = (
        f"{refresh} a second, {_MANY} connections, --workers 2 against 1, each worker held to"
        f" {_SHARE * 100:.0f} % of a core"
    )
    if holds:
        yield rounds.each(itemgetter(_HELD)).compared(
            what, "two", "one", _rate, least=database.held, quiet=True
        )
    else:
        yield Row(f"{what}: this user cannot make control groups")


@dataclass(frozen=True)
class _Ran:
    """A run of the load generator.

    :param busy: the cores that the server, the database and the load generator kept busy.
    """

    result: Result
    busy: float


def _start(
    stack: ExitStack, database: _Database, folder: Path, name: str, count: int | None
) -> _Side:
    place = folder / f"{database.name}-{name}"
    place.mkdir()
    lines, dsn = database.make(place, name)
    server = stack.enter_context(servers.login_service(place, workers=count, dsn=dsn))
    return _Side(
        server,
        [server.pid] if count is None else children(server.pid),
        (lines[at : at + _MANY] for at in range(0, len(lines) - _MANY, _MANY)),
        [b"v3/account/whoami " + line.partition(b" ")[0] for line in lines[-CONNECTIONS:]],
    )


def _run(side: _Side, database: _Database, size: Size, holds: bool, number: int) -> dict[str, _Ran]:
    def run(mode: str, requests: int, connections: int = CONNECTIONS) -> _Ran:
        processes = (*side.processes, *database.backends())
        before = sum(map(processor_time, processes))
        lines = side.looked_up if mode == GET else next(side.unused)
        result = drive(side.server, mode, lines, requests, connections)
        took = sum(map(processor_time, processes)) - before
        return _Ran(result, result.cpu + took / result.seconds)

    if not number:
        run(CHAIN, size.refreshes // 4)
    made = {
        _REFRESHES: run(CHAIN, size.refreshes),
        _REFRESHES_OF_FEW: run(CHAIN, size.refreshes // 2, _FEW),
        _LOOKUPS: run(GET, size.refreshes),
    }
    if holds:
        with held(side.processes, _SHARE):
            made[_HELD] = run(CHAIN, size.refreshes, _MANY)
    return made


def _rate(ran: _Ran) -> float:
    return rate(ran.result)


def _p99(ran: _Ran) -> float:
    return p99(ran.result)
