"""Measures how the sweep over linked accounts slows down the homeserver's clients.

There are two Synapses with the module and the same number of linked accounts. One looks at all of
them every 15 minutes, which is the default, the other one every year.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import CONNECTIONS, Row
from benchmarks.homeserver import Engine, Synapse, running_synapse, sqlite_engine
from benchmarks.load import GET, Result
from benchmarks.measure import Size, compared, drive
from benchmarks.servers import SERVER_NAME

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
        running_synapse(folder, "with", _engine(), _CHEAP, _module(directory, "with")) as here,
        running_synapse(folder, "without", _engine(), _CHEAP, _module(directory, "without")) as off,
    ):
        databases = {name: _database(folder, name) for name in _INTERVALS}
        for database in databases.values():
            _fill(database)
        probes = {side: side.probes()["/sync"] for side in (here, off)}
        made: dict[Synapse, list[Result]] = {here: [], off: []}
        # The sweep begins once it has counted the links.
        time.sleep(15)
        began, looked = time.monotonic(), _looked_at(databases["with"])
        for number in range(_ROUNDS * size.rounds):
            for side in (here, off) if number % 2 else (off, here):
                made[side].append(
                    drive(side.own, GET, [probes[side]] * CONNECTIONS, size.refreshes)
                )
        seconds = time.monotonic() - began
        looked = _looked_at(databases["with"]) - looked
        yield Row(
            f"accounts looked at a second, of {ACCOUNTS:,}, every {_INTERVALS['with']}",
            f"{looked / seconds:.1f}",
            f"{ACCOUNTS / 900:.1f}",
            looked / seconds / (ACCOUNTS / 900),
            "0.9 to 2",
            0.9 <= looked / seconds / (ACCOUNTS / 900) <= 2,
        )
        none = _looked_at(databases["without"])
        yield Row("accounts looked at where there is no sweep", str(none))
        for figure, most in (("p50", None), ("p99", _MOST)):
            yield compared(
                f"SQLite: /sync {figure} with the sweep over {ACCOUNTS:,} linked accounts,"
                f" against without, {CONNECTIONS} connections",
                [getattr(each, figure) * 1000 for each in made[here]],
                [getattr(each, figure) * 1000 for each in made[off]],
                unit="ms",
                most=most,
            )


def _engine() -> Engine:
    return Engine("SQLite", sqlite_engine)


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
