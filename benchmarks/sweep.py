"""Measures how the sweep over linked accounts slows down the homeserver's clients.

There are two Synapses with the module and the same number of linked accounts. One looks at all of
them every 15 minutes, which is the default, the other one every year.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.driving import drive, p50, p99
from benchmarks.engines import SQLITE
from benchmarks.figures import CONNECTIONS, Row
from benchmarks.load import GET, Result
from benchmarks.rounds import interleaved
from benchmarks.servers import SERVER_NAME
from benchmarks.size import Size
from benchmarks.spread import judge
from benchmarks.synapses import Synapse, running_synapse

ACCOUNTS = 10_000
_MOST = 1.1
_CHEAP = 4
_ROUNDS = 2
_INTERVALS = {"with": "15m", "without": "365d"}
_FIRST_ID = 1_000_000
"""The first id of our access tokens. Synapse counts from one and does not reach it."""


def sweep(folder: Path, size: Size) -> Iterator[Row]:
    """Compare ``/sync`` of a Synapse that sweeps with ``/sync`` of one that does not."""
    directory = folder / "directory.db"
    _fill_directory(directory)
    with (
        running_synapse(folder, "with", SQLITE, _CHEAP, _module(directory, "with")) as here,
        running_synapse(folder, "without", SQLITE, _CHEAP, _module(directory, "without")) as off,
    ):
        databases = {name: _database(folder, name) for name in _INTERVALS}
        for database in databases.values():
            _fill(database)
        probes = {side: side.probes()["/sync"] for side in (here, off)}

        def run(side: Synapse, _: int) -> Result:
            return drive(side.own, GET, [probes[side]] * CONNECTIONS, size.refreshes // 2)

        # The sweep begins once it has counted the links.
        time.sleep(15)
        began, looked = time.monotonic(), _looked_at(databases["with"])
        rounds = interleaved(
            _ROUNDS * size.rounds, {"with": partial(run, here), "without": partial(run, off)}
        )
        seconds = time.monotonic() - began
        looked = _looked_at(databases["with"]) - looked
        ratio = looked / seconds / (ACCOUNTS / 900)
        yield Row(
            f"accounts looked at a second, of {ACCOUNTS:,}, every {_INTERVALS['with']}",
            f"{looked / seconds:.1f}",
            f"{ACCOUNTS / 900:.1f}",
            ratio,
            reach="0.9 to 2",
            verdict=judge(ratio, ratio, 0.9, 2),
        )
        none = _looked_at(databases["without"])
        yield Row("accounts looked at where there is no sweep", str(none))
        for name, figure, most in (("p50", p50, None), ("p99", p99, _MOST)):
            yield rounds.compared(
                f"SQLite: /sync {name} with the sweep over {ACCOUNTS:,} linked accounts,"
                f" against without, {CONNECTIONS} connections",
                "with",
                "without",
                figure,
                unit="ms",
                most=most,
                quiet=True,
            )


def _module(directory: Path, name: str) -> dict[str, Any]:
    """Configure the module with a database of accounts, which it queries for each of them."""
    one = "SELECT name AS localpart, password_hash FROM accounts WHERE name = :localpart"
    provider = {
        "module": "synapse_login_module.providers.SQLProvider",
        "name": "directory",
        "config": {"sqlite": str(directory), "queries": {"by_user": one}},
    }
    return {
        "password_providers": [provider],
        "tokens": {"account_check_interval": _INTERVALS[name]},
        "hashing": {"rounds": _CHEAP},
    }


def _names() -> list[str]:
    return [f"person{number:05}" for number in range(ACCOUNTS)]


def _fill_directory(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE accounts (name TEXT PRIMARY KEY, password_hash TEXT)")
        unusable = "$2b$04$" + "." * 53
        connection.executemany(
            "INSERT INTO accounts VALUES (?, ?)", [(name, unusable) for name in _names()]
        )
    connection.close()


def _database(folder: Path, name: str) -> Path:
    return folder / f"sqlite-{name}-{_CHEAP}" / "homeserver.db"


def _fill(path: Path) -> None:
    """Insert the accounts into Synapse's database, each with a session and a link."""
    now = int(time.time() * 1000)
    users = [(f"@{name}:{SERVER_NAME}", name) for name in _names()]
    connection = _open(path)
    with connection:
        connection.executemany(
            "INSERT INTO users (name, creation_ts) VALUES (?, ?)",
            [(user, now // 1000) for user, _ in users],
        )
        connection.executemany(
            "INSERT INTO devices (user_id, device_id) VALUES (?, 'DEVICE')",
            [(user,) for user, _ in users],
        )
        connection.executemany(
            "INSERT INTO access_tokens (id, user_id, device_id, token) VALUES (?, ?, 'DEVICE', ?)",
            [(_FIRST_ID + number, user, f"syt_{number}") for number, (user, _) in enumerate(users)],
        )
        connection.executemany(
            "INSERT INTO synapse_login_links (user_id, provider, subject, linked_at, looked_at)"
            " VALUES (?, 'directory', ?, ?, ?)",
            [
                (user, name, now, now - 900_000 * (ACCOUNTS - number) // ACCOUNTS)
                for number, (user, name) in enumerate(users)
            ],
        )
    connection.close()


def _looked_at(path: Path) -> int:
    """Return the number of accounts that were looked at since the database was filled."""
    connection = _open(path)
    try:
        (count,) = connection.execute(
            "SELECT COUNT(*) FROM synapse_login_links WHERE looked_at > linked_at"
        ).fetchone()
    finally:
        connection.close()
    return int(count)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=60)
