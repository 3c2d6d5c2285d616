"""Running statements in SQL databases on threads, with connections that can be cut."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any, Protocol

from synapse_login_module.config.conninfo import connect, load_psycopg, read, unverified_host
from synapse_login_module.errors import ProviderUnavailable

Rows = Sequence[Mapping[str, Any]]

_MOST_ROWS = 10
_IDLE_SECONDS = 60.0


class Driver(Protocol):
    """What differs between databases. All methods but ``cut`` are called on a thread of the pool.

    :ivar parameter: a regular expression for a parameter in a statement.
    :ivar stray: a regular expression for what no statement may contain; ``None`` for nothing.
    :ivar errors: the exceptions that the database raises.
    :ivar no_such_text: the exceptions for text that the database cannot store, and so cannot find.
    :ivar lasting: whether a connection is kept for the next statement.
    :ivar unverified_host: the server's host, if its certificate is not verified; else ``None``.
    """

    parameter: str
    stray: str | None
    unverified_host: str | None
    errors: tuple[type[Exception], ...]
    no_such_text: tuple[type[Exception], ...]
    lasting: bool

    def connect(self) -> Any:
        """Connect in autocommit mode, where each statement is a transaction."""

    def begin(self, connection: Any) -> None:
        """Set up a new connection before its first statement."""

    def run(self, connection: Any, statement: str, values: Mapping[str, str]) -> tuple[Rows, int]:
        """Run a statement; return its first rows, and the database's count of rows."""

    def cut(self, connection: Any) -> None:
        """Make the running statement end soon; called on another thread."""


class SQLiteDriver:
    """Opens the SQLite file anew for each statement, so that a file that replaces it is seen.

    :param path: the file.
    :param seconds: how long to wait for a lock.
    :param writes: whether the statements may write.
    """

    parameter = r"(?<![:\w]):([A-Za-z_]\w*)"
    stray: str | None = None
    unverified_host: str | None = None
    # Python 3.10 raises a Warning for several statements in one, which is not an Error.
    errors: tuple[type[Exception], ...] = (sqlite3.Error, sqlite3.Warning, UnicodeError)
    no_such_text: tuple[type[Exception], ...] = ()
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
        rows = [dict(row) for row in cursor.fetchmany(_MOST_ROWS)]
        return rows, cursor.rowcount

    def cut(self, connection: sqlite3.Connection) -> None:
        """Interrupt the running statement."""
        connection.interrupt()


class PostgreSQLDriver:
    """Keeps connections to PostgreSQL, and has the server cancel statements that take too long.

    :param conninfo: the connection string or URI of libpq.
    :param seconds: how long connecting, or a statement, may take.
    :param writes: whether the statements may write.
    """

    parameter = r"%\((\w+)\)s"
    stray: str | None = r"%(?!\(\w+\)s|%)"
    lasting = True

    def __init__(self, conninfo: str, seconds: float, writes: bool) -> None:
        self.unverified_host = unverified_host(read("postgresql", conninfo))
        self._psycopg = load_psycopg("postgresql")
        errors = self._psycopg.errors
        self.errors: tuple[type[Exception], ...] = (self._psycopg.Error, UnicodeError)
        self.no_such_text: tuple[type[Exception], ...] = (errors.UntranslatableCharacter,)
        self._conninfo = conninfo
        self._seconds = seconds
        self._writes = writes

    def connect(self) -> Any:
        """Connect. Statements are not prepared, so that a connection pooler may be in between."""
        connection = connect(
            "postgresql",
            self._conninfo,
            autocommit=True,
            connect_timeout=max(2, ceil(self._seconds)),
            client_encoding="utf8",
            row_factory=self._psycopg.rows.dict_row,
        )
        connection.prepare_threshold = None
        return connection

    def begin(self, connection: Any) -> None:
        """Set the statement timeout, and make transactions read-only unless queries may write."""
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('default_transaction_read_only', %s, false)",
            [str(ceil(self._seconds * 1000)), "off" if self._writes else "on"],
        )

    def run(self, connection: Any, statement: str, values: Mapping[str, str]) -> tuple[Rows, int]:
        """Run a statement; return its first rows, and PostgreSQL's count of rows."""
        cursor = connection.execute(statement, values)
        return (cursor.fetchmany(_MOST_ROWS) if cursor.description else []), cursor.rowcount

    def cut(self, connection: Any) -> None:
        """Shut the socket down, since the server may not respond to a cancel request any more."""
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)


class _Broken(ProviderUnavailable):
    """A kept connection turned out to be broken."""


class Idle:
    """Idle connections, which any thread may take.

    :param clock: returns the time in seconds, and never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: list[tuple[float, Any]] = []

    def put(self, connection: Any) -> None:
        """Keep a connection."""
        self._kept.append((self._clock(), connection))

    def taken(self) -> Iterator[Any]:
        """Take connections one by one, the latest first. The caller owns each of them.

        A connection that has been idle for a minute is closed, since a firewall on the way may have
        dropped it.
        """
        with suppress(IndexError):
            while True:
                since, connection = self._kept.pop()
                if self._clock() - since < _IDLE_SECONDS:
                    yield connection
                else:
                    connection.close()

    def close(self) -> None:
        """Close all connections."""
        while self._kept:
            self._kept.pop()[1].close()


class Work:
    """One statement, to be run on a thread, whose connection can be cut meanwhile.

    :param driver: the database.
    :param idle: the idle connections, of which one is taken and put back.
    :param statement: the SQL.
    :param values: the values of its parameters.
    """

    def __init__(
        self, driver: Driver, idle: Idle, statement: str, values: Mapping[str, str]
    ) -> None:
        self._driver = driver
        self._idle = idle
        self._statement = statement
        self._values = values
        self._lock = threading.Lock()
        self._connection: Any = None
        self._cut = False

    def __call__(self) -> tuple[Rows, int]:
        """Run the statement, on a new connection if all idle ones are broken.

        :return: its first rows, and the database's count of rows.
        :raise ProviderUnavailable: when the database cannot be reached, or the statement fails.
        """
        try:
            for connection in self._idle.taken():
                try:
                    return self._run(connection)
                except _Broken:
                    continue
            return self._run(self._driver.connect(), new=True)
        except self._driver.errors as error:
            raise ProviderUnavailable(summary(error)) from None

    def cut(self) -> None:
        """Make the statement end soon; called on the reactor's thread."""
        with self._lock:
            self._cut = True
            if self._connection is not None:
                with suppress(OSError, *self._driver.errors):
                    self._driver.cut(self._connection)

    def _run(self, connection: Any, new: bool = False) -> tuple[Rows, int]:
        keep = False
        with self._lock:
            self._connection = connection
            cut = self._cut
        try:
            if cut:
                raise ProviderUnavailable("connecting took too long")
            if new:
                self._driver.begin(connection)
            try:
                answer = self._driver.run(connection, self._statement, self._values)
            except self._driver.no_such_text:
                answer = [], 0
            keep = self._driver.lasting
            return answer
        except self._driver.errors as error:
            if self._driver.lasting and connection.broken and not self._cut:
                raise _Broken(summary(error)) from None
            raise
        finally:
            with self._lock:
                self._connection = None
                keep = keep and not self._cut
            if keep:
                self._idle.put(connection)
            else:
                connection.close()


def summary(error: BaseException) -> str:
    """Return the first line of an error. Later lines may quote the statement's values."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__
