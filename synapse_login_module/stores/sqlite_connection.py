"""Connections to an SQLite file."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

BUSY_TIMEOUT = 5.0
"""Seconds that a transaction waits for a transaction of another process."""

_PAUSE = 0.01


def connect(path: Path) -> sqlite3.Connection:
    """Open the file in WAL mode, with commits that are on the disk when they return."""
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    try:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Put the file into WAL mode, retrying while it is locked.

    When several processes change the mode at once, SQLite rejects all but one without waiting.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return
