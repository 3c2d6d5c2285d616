"""Measures how pruning slows refreshes down, and how fast it is.

``python -m benchmarks.prune [--rows N] [--rounds R] [--requests N] [--folder F] [--only STORE]``

There are two servers, each with a database of many sessions that ended long ago and a few live
ones. One prunes in the background, the other keeps ended sessions. They are loaded in turn. Then
the command prunes the rest under load.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psycopg

from benchmarks import sessions
from benchmarks.driving import MeasurementError, drive, p50, p99, rate
from benchmarks.figures import CONNECTIONS, Row, cells
from benchmarks.load import CHAIN, Result
from benchmarks.rounds import interleaved
from benchmarks.servers import MeasuredServer, cluster, login_service
from benchmarks.size import Size
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.tokens.over import ENDED
from tests.support import REPOSITORY

ROWS = 60_000
"""The sessions that are over, unless the command line says otherwise."""

_AT_MOST = 100
"""The most runs of the load generator while the command prunes."""

_KEEPS = {"refresh_token": "always", "keep_ended": None}
_PRUNES = {"refresh_token": "always", "keep_ended": "1d"}


@dataclass(frozen=True)
class Side:
    """One of the two servers.

    :param lines: the tokens of the live sessions.
    :param count: counts the rows of sessions.
    :param size: the bytes of the sessions and their indexes.
    """

    folder: Path
    server: MeasuredServer
    lines: Sequence[bytes]
    count: Callable[[], int]
    size: Callable[[], int]


class Loaded(NamedTuple):
    """What one run on a side has measured.

    :ivar pruned: the rows that were deleted a second.
    """

    result: Result
    pruned: float


def main() -> None:
    """Parse the command line, measure, and print the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prune", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="sessions that are over")
    parser.add_argument("--rounds", type=int, default=6, help="the number of rounds")
    parser.add_argument("--requests", type=int, default=4000, help="refreshes in one run")
    parser.add_argument("--folder", type=Path, help="make the databases in this folder")
    parser.add_argument("--only", choices=tuple(_STORES), help="leave the other out")
    options = parser.parse_args()
    for name in [options.only] if options.only else _STORES:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows = _pruning(name, Path(folder), options.rows, options.rounds, options.requests)
            for row in rows:
                print(*cells(row), sep="  ", flush=True)


def pruning(folder: Path, size: Size) -> Iterator[Row]:
    """Compare refreshes while sessions are pruned with refreshes on a calm server."""
    for name in _STORES if size.postgresql else ("SQLite",):
        place = folder / name.lower()
        place.mkdir()
        yield from _pruning(name, place, ROWS, size.rounds, size.refreshes)


def _pruning(name: str, folder: Path, rows: int, count: int, requests: int) -> Iterator[Row]:
    with ExitStack() as stack:
        calm, busy = _STORES[name](stack, folder, rows, count)
        yield Row(f"{name}: bytes a session, with its indexes", f"{busy.size() / busy.count():.0f}")
        stack.enter_context(calm.server)
        stack.enter_context(busy.server)
        time.sleep(1.5)  # until the first batch

        def run(side: Side, number: int) -> Loaded:
            share = slice(number * CONNECTIONS, (number + 1) * CONNECTIONS)
            before, began = side.count(), time.perf_counter()
            result = drive(side.server, CHAIN, side.lines[share], requests)
            return Loaded(result, (before - side.count()) / (time.perf_counter() - began))

        rounds = interleaved(count, {"calm": partial(run, calm), "pruning": partial(run, busy)})
        if not rounds.made["pruning"][-1].pruned:
            raise MeasurementError("all rows were pruned before the last round")
        results = rounds.each(attrgetter("result"))
        for what, figure, unit in (
            ("refreshes a second", rate, ""),
            ("p50 of a refresh", p50, "ms"),
            ("p99 of a refresh", p99, "ms"),
        ):
            yield results.compared(
                f"{name}: {what} while ended sessions are pruned, against calm",
                "pruning",
                "calm",
                figure,
                unit=unit,
                quiet=True,
            )
        yield rounds.measured(
            f"{name}: rows pruned a second in the background, under load",
            "pruning",
            attrgetter("pruned"),
            digits=0,
            quiet=True,
        )
        yield from _command(name, calm, calm.lines[count * CONNECTIONS :], requests)


def _command(name: str, side: Side, lines: Sequence[bytes], requests: int) -> Iterator[Row]:
    """Prune with the command at the server that keeps ended sessions, under load."""
    config = side.folder / "config.yaml"
    text = config.read_text("utf-8")
    # Only the command sees this change.
    config.write_text(text.replace("keep_ended: null", "keep_ended: 1d"), "utf-8")
    before, began = side.count(), time.perf_counter()
    command = [sys.executable, "-m", "synapse_login_module.cli", "sessions", "prune"]
    done = subprocess.Popen(
        [*command, "--config", str(config)], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    slowest = []
    while done.poll() is None and lines:
        slowest.append(p99(drive(side.server, CHAIN, lines, requests // 4)))
        lines = lines[CONNECTIONS:]
    if done.wait():
        raise MeasurementError("sessions prune failed")
    pruned = (before - side.count()) / (time.perf_counter() - began)
    what = f"{name}: rows that sessions prune deletes a second, with its start, under load"
    yield Row(what, f"{pruned:.0f}")
    yield Row(f"{name}: p99 of a refresh meanwhile", f"{median(slowest):.1f} ms")


def _sqlite(stack: ExitStack, place: Path, rows: int, rounds: int) -> tuple[Side, Side]:
    def side(name: str, tokens: dict[str, Any]) -> Side:
        folder = place / name
        folder.mkdir()
        lines = sessions.fill(folder, rows, (rounds + _AT_MOST) * CONNECTIONS)
        with closing(connect(folder / "sessions.db")) as connection:
            connection.execute(_END.format("sessions"))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        def count() -> int:
            with closing(connect(folder / "sessions.db")) as connection:
                (number,) = connection.execute("SELECT COUNT(*) FROM sessions").fetchone()
                return int(number)

        return Side(
            folder,
            login_service(folder, tokens=tokens),
            lines,
            count,
            lambda: sessions.bytes_on_disk(folder),
        )

    return side("calm", _KEEPS), side("busy", _PRUNES)


def _postgresql(stack: ExitStack, place: Path, rows: int, rounds: int) -> tuple[Side, Side]:
    postgresql = stack.enter_context(cluster())

    def side(name: str, tokens: dict[str, Any]) -> Side:
        folder = place / name
        folder.mkdir()
        dsn = postgresql.new_database(name)
        lines = sessions.fill_postgresql(folder, dsn, rows, (rounds + _AT_MOST) * CONNECTIONS)
        size = sessions.bytes_in_postgresql(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(_END.format("synapse_login_sessions"))
            connection.execute("VACUUM ANALYZE synapse_login_sessions")

        def count() -> int:
            with psycopg.connect(dsn) as connection:
                row = connection.execute("SELECT COUNT(*) FROM synapse_login_sessions").fetchone()
                assert row is not None
                return int(row[0])

        server = login_service(folder, dsn=dsn, tokens=tokens)
        return Side(folder, server, lines, count, lambda: size)

    return side("calm", _KEEPS), side("busy", _PRUNES)


_END = (
    f"UPDATE {{}} SET generation = {ENDED}, issued_at = 0 WHERE user_id <> '@alice:bench.example'"
)

_STORES = {"SQLite": _sqlite, "PostgreSQL": _postgresql}


if __name__ == "__main__":
    main()
