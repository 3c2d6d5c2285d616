"""Accounts in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from synapse_login_module.providers.sql.driver import MOST_ROWS, Rows, first_line


class SQLiteDriver:
    """Opens the SQLite file anew for each statement, so that a file that replaces it is seen.

    :param path: the file.
    :param seconds: how long to wait for a lock.
    :param writes: whether the statements may write.
    """

    key = "sqlite"
    parameter = r"(?<![:\w]):([A-Za-z_]\w*)"
    stray: str | None = None
    unverified_host: str | None = None
    to_verify = ""
    # Python 3.10 raises a Warning for several statements in one, which is not an Error.
    errors: tuple[type[Exception], ...] = (sqlite3.Error, sqlite3.Warning, UnicodeError)
    exact = True
    lasting = False

    def __init__(self, path: Path, seconds: float, writes: bool) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode={'rw' if writes else 'ro'}"
        self._seconds = seconds

    def connect(self) -> sqlite3.Connection:
        """Open the file, which must be there."""
        connection = sqlite3.connect(
            self._uri,
            timeout=self._seconds,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        connection.row_factory = sqlite3.Row
        return connection

    def begin(self, connection: sqlite3.Connection) -> None:
        """Do nothing."""

    def run(
        self, connection: sqlite3.Connection, statement: str, values: Mapping[str, str]
    ) -> tuple[Rows, int]:
        """Run a statement; return its first rows, and SQLite's count of rows."""
        cursor = connection.execute(statement, dict(values))
        rows = [dict(row) for row in cursor.fetchmany(MOST_ROWS)]
        return rows, cursor.rowcount

    def is_broken(self, connection: sqlite3.Connection, error: Exception) -> bool:
        """Say no: the file is opened again in any case."""
        return False

    def cut(self, connection: sqlite3.Connection) -> None:
        """Interrupt the running statement."""
        connection.interrupt()

    def describe(self, error: Exception) -> str:
        """Return the first line, which holds no values."""
        return first_line(error)
