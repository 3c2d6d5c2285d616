"""SQL databases, asked on threads: connections that can be cut, and errors in one vocabulary."""

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
    """What differs between databases. All but ``cut`` is called on a thread.

    :ivar parameter: a pattern of how a statement names a parameter.
    :ivar stray: a pattern of what no statement may hold, besides.
    :ivar errors: what the database raises.
    :ivar no_such_text: what it raises for text that it cannot hold, and so holds nowhere.
    :ivar lasting: whether a connection is kept.
    :ivar unverified_host: a server that anybody in between can pose as.
    """

    parameter: str
    stray: str | None
    unverified_host: str | None
    errors: tuple[type[Exception], ...]
    no_such_text: tuple[type[Exception], ...]
    lasting: bool

    def connect(self) -> Any:
        """Connect, so that each statement is a transaction."""

    def begin(self, connection: Any) -> None:
        """Say on a new connection what there is to say before the first statement."""

    def run(self, connection: Any, statement: str, values: Mapping[str, str]) -> tuple[Rows, int]:
        """Run a statement; its first rows, and how many rows there are."""

    def cut(self, connection: Any) -> None:
        """Have what is running end soon; called on another thread."""


class SQLiteDriver:
    """Opens the file anew for each statement, so that one put in its place is seen."""

    parameter = r"(?<![:\w]):([A-Za-z_]\w*)"
    stray: str | None = None
    unverified_host: str | None = None
    # Several statements are a Warning on Python 3.10, which is no Error.
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
        """Say nothing."""

    def run(
        self, connection: sqlite3.Connection, statement: str, values: Mapping[str, str]
    ) -> tuple[Rows, int]:
        """Run a statement."""
        cursor = connection.execute(statement, dict(values))
        rows = [dict(row) for row in cursor.fetchmany(_MOST_ROWS)]
        return rows, cursor.rowcount

    def cut(self, connection: sqlite3.Connection) -> None:
        """Interrupt what is running."""
        connection.interrupt()


class PostgreSQLDriver:
    """Keeps connections, and has the server end what takes too long."""

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
        """Connect; nothing is prepared, so that a pooler may stand between."""
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
        """Have the server end what takes too long, and write nothing that is not to be written."""
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('default_transaction_read_only', %s, false)",
            [str(ceil(self._seconds * 1000)), "off" if self._writes else "on"],
        )

    def run(self, connection: Any, statement: str, values: Mapping[str, str]) -> tuple[Rows, int]:
        """Run a statement."""
        cursor = connection.execute(statement, values)
        return (cursor.fetchmany(_MOST_ROWS) if cursor.description else []), cursor.rowcount

    def cut(self, connection: Any) -> None:
        """End the connection under it: the server may be past hearing anything."""
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)


class _Broken(ProviderUnavailable):
    """The connection is of no more use."""


class Idle:
    """Connections that nobody uses just now, for any thread to take.

    :param clock: a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: list[tuple[float, Any]] = []

    def put(self, connection: Any) -> None:
        """Keep one."""
        self._kept.append((self._clock(), connection))

    def taken(self) -> Iterator[Any]:
        """Those that are good, the last one first, each for this thread alone from now on.

        What has been idle for long may be forgotten between here and the server, and is closed.
        """
        with suppress(IndexError):
            while True:
                since, connection = self._kept.pop()
                if self._clock() - since < _IDLE_SECONDS:
                    yield connection
                else:
                    connection.close()

    def close(self) -> None:
        """Close all of them."""
        while self._kept:
            self._kept.pop()[1].close()


class Work:
    """One statement, run on a thread, on a connection that can be cut meanwhile.

    :param idle: where a connection is taken from, if there is one, and put afterwards.
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
        """Run it; on a new connection when the kept ones turn out to be broken.

        :raise ProviderUnavailable: when the database cannot be reached, refuses, or fails.
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
        """Have it end soon; called on the reactor's thread."""
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
    """The first line of an error: the ones after it may quote what was asked."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__
