"""The diagnosis of the store in an SQLite file, which leaves the file as it is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from synapse_login_module.errors import ConfigError
from synapse_login_module.model import Finding, TokenKey
from synapse_login_module.model.findings import failed, good, in_milliseconds, on_one_line, warning
from synapse_login_module.plugin import Environment
from synapse_login_module.stores.diagnosis import (
    SAMPLE,
    Snapshot,
    missing_of,
    of_clock,
    of_keys,
    of_schema,
)
from synapse_login_module.stores.sqlite_connection import BUSY_TIMEOUT
from synapse_login_module.stores.sqlite_schema import MIGRATIONS, version_of

_TRIED = 256 * 1024
"""Bytes that the trial of the disk writes."""

_NEWEST = (
    "SELECT max(issued_at) FROM (SELECT issued_at FROM sessions ORDER BY session_id DESC LIMIT ?)"
)
_LITTLE = 100 * 1024 * 1024
_LITTLE_SHARE = 0.05


def examine(path: Path, environment: Environment) -> list[Finding]:
    """Examine the file and the disk that it is on. Blocks."""
    findings = list(_of_disk(path))
    if not path.exists():
        absent = warning(
            str(path),
            "there is no such file",
            "the server makes it at its first start; if it has run before, token_store.config.path"
            " is mistyped",
        )
        return [absent, *of_keys(environment.keys, ()), *findings]
    try:
        return [*_of_file(path, environment), *findings]
    except sqlite3.Error as error:
        return [_broken(path, error), *findings]
    except ConfigError as error:
        newer = "install the version of this program that has used the file last"
        return [failed(str(path), error.problem, newer), *findings]


def _of_file(path: Path, environment: Environment) -> Iterator[Finding]:
    began = time.perf_counter()
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(
        sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT / 2, isolation_level=None)
    ) as connection:
        snapshot = _read(connection)
        took = in_milliseconds(time.perf_counter() - began)
        yield good(str(path), f"read in {took}, {_size(path.stat().st_size)}")
        yield of_schema(snapshot, len(MIGRATIONS))
        yield _write(connection, path)
    yield from of_keys(environment.keys, snapshot.keys)
    yield from of_clock(environment, snapshot.newest)


def _read(connection: sqlite3.Connection) -> Snapshot:
    version = version_of(connection)
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    missing = missing_of(MIGRATIONS[:version], there)
    keys, newest = [], None
    if "token_keys" in there:
        rows = connection.execute(
            "SELECT key_id, fingerprint, retired FROM token_keys ORDER BY key_id"
        )
        keys = [TokenKey(key_id, known, bool(retired)) for key_id, known, retired in rows]
    if "sessions" in there:
        (newest,) = connection.execute(_NEWEST, (SAMPLE,)).fetchone()
    return Snapshot(version, missing, keys, newest)


def _write(connection: sqlite3.Connection, path: Path) -> Finding:
    """Write in a transaction that is rolled back."""
    began = time.perf_counter()
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE synapse_login_doctor (trial INTEGER)")
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return _broken(path, error)
    took = in_milliseconds(time.perf_counter() - began)
    return good("a write", f"taken in {took}, and rolled back")


def _of_disk(path: Path) -> Iterator[Finding]:
    """Try the disk with a file without a name beside the database, which leaves nothing."""
    folder = path.absolute().parent
    what = f"the disk of {folder}"
    try:
        usage = shutil.disk_usage(folder)
        with tempfile.TemporaryFile(dir=folder) as trial:
            began = time.perf_counter()
            trial.write(os.urandom(_TRIED))
            trial.flush()
            os.fsync(trial.fileno())
            took = in_milliseconds(time.perf_counter() - began)
    except OSError as error:
        yield failed(
            what,
            f"it cannot be written to: {error.strerror}",
            "free some space there, or remount it for reading and writing; the folder has to belong"
            " to the server's user",
        )
        return
    share = usage.free / usage.total if usage.total else 0.0
    free = f"{_size(usage.free)} free of {_size(usage.total)}"
    if usage.free < _LITTLE or share < _LITTLE_SHARE:
        yield warning(what, free, "free some space: every login and refresh fails on a full disk")
    else:
        yield good(what, f"{free}; a write is on the disk after {took}")


def _broken(path: Path, error: sqlite3.Error) -> Finding:
    text = on_one_line(error)
    if "readonly" in text:
        advice = "give the file and its folder to the server's user, and mount it for writing"
    elif "full" in text:
        advice = "free some space on its disk"
    elif "locked" in text or "busy" in text:
        advice = "another program holds it: find it with `fuser`, and end it"
    elif "malformed" in text or "not a database" in text:
        advice = "stop the server, and put the file back from a backup"
    else:
        advice = "give the file and its folder to the server's user"
    return failed(str(path), f"SQLite: {text}", advice)


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
