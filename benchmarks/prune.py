"""Measures how pruning slows refreshes down, and how fast it is.

``python -m benchmarks.prune [--rows N] [--rounds R] [--requests N] [--folder F] [--only STORE]``

There are two servers, each with a database of many sessions that ended long ago and a few live
ones. One prunes in the background, the other keeps ended sessions. They are loaded in turn, and the
results are the medians of the rounds' ratios. Then the command prunes the rest under load.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks import sessions
from benchmarks.driving import drive
from benchmarks.figures import CONNECTIONS
from benchmarks.load import CHAIN, Result
from benchmarks.servers import MeasuredServer, cluster, login_service
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.tokens.over import ENDED
from tests.support import REPOSITORY

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


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prune", description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000, help="sessions that are over")
    parser.add_argument("--rounds", type=int, default=5, help="the number of rounds")
    parser.add_argument("--requests", type=int, default=4000, help="refreshes in one run")
    parser.add_argument("--folder", type=Path, help="make the databases in this folder")
    parser.add_argument("--only", choices=("SQLite", "PostgreSQL"), help="leave the other out")
    options = parser.parse_args()
    for name in [options.only] if options.only else ["SQLite", "PostgreSQL"]:
        with ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
            make = _sqlite if name == "SQLite" else _postgresql
            sides = make(stack, place, options.rows, options.rounds)
            _measure(name, sides, options.rounds, options.requests)


def _measure(name: str, sides: tuple[Side, Side], rounds: int, requests: int) -> None:
    calm, busy = sides
    bytes_each = busy.size() / busy.count()
    with calm.server, busy.server:
        time.sleep(1.5)  # until the first batch
        runs: list[tuple[Result, Result, float]] = []
        for index in range(rounds):
            share = slice(index * CONNECTIONS, (index + 1) * CONNECTIONS)
            order = (calm, busy) if index % 2 else (busy, calm)
            results = {}
            for side in order:
                before, began = busy.count(), time.perf_counter()
                results[side is busy] = drive(side.server, CHAIN, side.lines[share], requests)
                if side is busy:
                    pruned = (before - busy.count()) / (time.perf_counter() - began)
            runs.append((results[False], results[True], pruned))
        left = busy.count()
        print(f"{name}: {bytes_each:.0f} bytes a session; {left} rows left after the rounds")
        _print("refreshes a second", [(c.rate, b.rate) for c, b, _ in runs], "{:.0f}")
        _print("p50", [(c.p50 * 1000, b.p50 * 1000) for c, b, _ in runs], "{:.2f} ms")
        _print("p99", [(c.p99 * 1000, b.p99 * 1000) for c, b, _ in runs], "{:.2f} ms")
        print(f"  rows pruned a second in the background: {median(p for *_, p in runs):.0f}")
        before, began = calm.count(), time.perf_counter()
        # The server that keeps ended sessions: only the command sees this change.
        config = calm.folder / "config.yaml"
        text = config.read_text("utf-8")
        config.write_text(text.replace("keep_ended: null", "keep_ended: 1d"), "utf-8")
        command = [sys.executable, "-m", "synapse_login_module.cli", "sessions", "prune"]
        done = subprocess.Popen([*command, "--config", str(config)], cwd=REPOSITORY)
        share = slice(rounds * CONNECTIONS, (rounds + 1) * CONNECTIONS)
        during = drive(calm.server, CHAIN, calm.lines[share], requests)
        assert done.wait() == 0
        seconds = time.perf_counter() - began
        print(
            f"  sessions prune beside the load: {(before - calm.count()) / seconds:.0f} rows a"
            f" second with its start; meanwhile p99 {during.p99 * 1000:.2f} ms"
        )


def _print(what: str, pairs: Sequence[tuple[float, float]], form: str) -> None:
    calm, busy = (median(each) for each in zip(*pairs, strict=True))
    ratio = median(mine / other for other, mine in pairs)
    numbers = f"{form.format(calm)} calm, {form.format(busy)} while pruning"
    print(f"  {what}: {numbers}, ratio {ratio:.2f}")


def _sqlite(stack: ExitStack, place: Path, rows: int, rounds: int) -> tuple[Side, Side]:
    def side(name: str, tokens: dict[str, Any]) -> Side:
        folder = place / name
        folder.mkdir()
        lines = sessions.fill(folder, rows, (rounds + 1) * CONNECTIONS)
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
        lines = sessions.fill_postgresql(folder, dsn, rows, (rounds + 1) * CONNECTIONS)
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

if __name__ == "__main__":
    main()
