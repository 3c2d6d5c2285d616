"""Connections to an SQLite file, and how they wait for its lock."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

BUSY_TIMEOUT = 5.0
"""Seconds that a transaction waits for a transaction of another process."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0001, 0.005
_GROWTH = 1.1


def connect(path: Path, timeout: float = BUSY_TIMEOUT, creates: bool = True) -> sqlite3.Connection:
    """Open the file in WAL mode, with commits that are on the disk when they return.

    :param timeout: seconds that SQLite itself waits for a lock, in later statements.
    :param creates: whether to make a file that is missing, which everybody may then read.
    """
    mode = "rwc" if creates else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    try:
        # When several processes change the mode at once, SQLite rejects all but one without
        # waiting.
        _execute_unlocked(connection, "PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA busy_timeout = {round(timeout * 1000)}")
    except BaseException:
        connection.close()
        raise
    return connection


def begin(connection: sqlite3.Connection) -> None:
    """Begin a transaction that writes, once no other connection writes.

    A commit of another process takes a millisecond or two. SQLite waits in steps of 1 to 100
    milliseconds, so that a process which has waited often finds the next commit under way. The
    steps here are shorter.

    :param connection: opened with a timeout of 0.
    :raise sqlite3.OperationalError: when the file stays locked for :data:`BUSY_TIMEOUT`.
    """
    _execute_unlocked(connection, "BEGIN IMMEDIATE")


def _execute_unlocked(connection: sqlite3.Connection, statement: str) -> None:
    """Execute a statement, and again while the file is locked."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    pause = _FIRST_PAUSE
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(pause)
            pause = min(pause * _GROWTH, _LONGEST_PAUSE)
        else:
            return
