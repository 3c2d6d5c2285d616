"""Running statements in SQL databases on threads, with connections that can be cut."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.providers.sql.driver import Driver, Rows

_IDLE_SECONDS = 60.0


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
            raise ProviderUnavailable(self._driver.describe(error)) from None

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
            answer = self._driver.run(connection, self._statement, self._values)
            keep = self._driver.lasting
            return answer
        except self._driver.errors as error:
            if self._driver.is_broken(connection, error) and not self._cut:
                raise _Broken(self._driver.describe(error)) from None
            raise
        finally:
            with self._lock:
                self._connection = None
                keep = keep and not self._cut
            if keep:
                self._idle.put(connection)
            else:
                connection.close()
