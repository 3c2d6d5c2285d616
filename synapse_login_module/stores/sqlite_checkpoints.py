"""Checkpoints of an SQLite file beside the commits, so that no commit waits for one.

SQLite itself copies the write-ahead log into the file at a commit, once the log has 1,000 pages.
Between many sessions these are 1,000 different pages of the file, and the commit waits until all of
them are on the disk. So a thread with a connection of its own copies them. It copies few at a time,
since a commit that comes meanwhile waits for the same disk.

Once the log has enough pages, the writer copies the few that were committed meanwhile. Then all of
the log is in the file, and the next commit begins the log anew.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from twisted.logger import Logger

from synapse_login_module.common.repeats import OncePerPeriod

_ROWS = 50
"""The number of written rows between two checkpoints of the thread: about a hundred pages."""

_ENOUGH_PAGES = 1_000
"""The pages of a log that is to begin anew."""

_FEW_PAGES = 100
"""How many pages the writer copies to have the log begin anew."""

_MANY_PAGES = 500
"""How many it copies to have a log begin anew that is longer than :data:`_LONG`."""

_MOST_PAGES = 20_000
"""The pages of a log that the writer copies at a commit after all: 80 MB. It gets that long while a
reader holds it up, or where the thread fails.
"""

_LONG = 4_000
"""The pages of a log that has to begin anew: 16 MB. It gets that long where several processes
write, or a reader holds it up.
"""
_RESTART_WAIT = 10
"""Milliseconds that this waits for the other writers and the readers."""

_COPY = "PRAGMA wal_checkpoint(PASSIVE)"
_RESTART = "PRAGMA wal_checkpoint(RESTART)"


class _Copied(NamedTuple):
    """What a checkpoint left: the pages of the log, and how many of them are not copied yet.

    The pages are -1 if another process makes a checkpoint at the same time.
    """

    pages: int
    left: int

    @property
    def is_nearly_all(self) -> bool:
        """Whether the log is to begin anew, and the writer can copy what is left of it."""
        most = _FEW_PAGES if self.pages <= _LONG else _MANY_PAGES
        return self.pages >= _ENOUGH_PAGES and self.left <= most


class Checkpoints:
    """The checkpoints of a file that one thread writes to.

    One that fails is tried again when the next is due. Meanwhile nothing is lost, as the log keeps
    what is not copied.

    :param connect: opens a connection to the file that waits for no lock; called on any thread.
    :param clock: a monotonic clock, in seconds. Failures are logged once a minute.
    """

    log = Logger()

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._failures = OncePerPeriod(clock)
        self._wanted = threading.Event()
        self._copied = threading.Event()
        self._is_stopping = False
        self._before = 0
        self._restart_above = _LONG
        self._thread = threading.Thread(target=self._serve, name="sqlite-checkpoint", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Blocks until then."""
        self._is_stopping = True
        self._wanted.set()
        self._thread.join()

    def connect(self) -> sqlite3.Connection:
        """Open the connection of the thread that writes."""
        connection = self._connect()
        connection.execute(f"PRAGMA wal_autocheckpoint = {_MOST_PAGES}").fetchall()
        return connection

    def committed(self, connection: sqlite3.Connection) -> None:
        """Checkpoint if that is due; called on the thread that writes, between transactions."""
        if self._copied.is_set():
            self._copied.clear()
            copied = self._copy(lambda: connection)
            if copied is not None:
                self._see_length(connection, copied)
        elif connection.total_changes - self._before >= _ROWS:
            self._before = connection.total_changes
            self._wanted.set()

    def _see_length(self, connection: sqlite3.Connection, copied: _Copied) -> None:
        """Have a long log begin anew.

        Where several processes write, one commits while another copies the rest, so the log is
        never all in the file. Then the rest is copied while the writers wait. A reader that stays
        prevents it, so it is tried again only once the log is longer by as much.

        :param copied: what the writer's own checkpoint left.
        """
        if 0 <= copied.pages <= _LONG:
            self._restart_above = _LONG
        elif copied.pages > self._restart_above and self._restart(connection):
            self._restart_above = copied.pages + _LONG
        else:
            self._wanted.set()

    def _restart(self, connection: sqlite3.Connection) -> bool:
        """Copy the rest while the other writers wait; return whether this was its turn to do so.

        It was not if another process makes a checkpoint, or SQLite failed.
        """
        pages = -1
        with suppress(sqlite3.Error):
            connection.execute(f"PRAGMA busy_timeout = {_RESTART_WAIT}").fetchall()
            _, pages, _ = connection.execute(_RESTART).fetchone()
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA busy_timeout = 0").fetchall()
        return pages >= 0

    def _serve(self) -> None:
        """Copy the log whenever that is wanted; the function of the thread."""
        connection: sqlite3.Connection | None = None

        def connected() -> sqlite3.Connection:
            nonlocal connection
            connection = connection or self._connect()
            return connection

        while self._wanted.wait() and not self._is_stopping:
            self._wanted.clear()
            copied = self._copy(connected)
            if copied is not None:
                if copied.is_nearly_all:
                    self._copied.set()
            elif connection is not None:
                _close(connection)  # which may be at fault
                connection = None
        if connection is not None:
            _close(connection)

    def _copy(self, connected: Callable[[], sqlite3.Connection]) -> _Copied | None:
        """Copy what no reader or writer keeps from being copied. A later checkpoint copies the
        rest.

        :param connected: returns the connection.
        :return: ``None`` if it failed.
        """
        try:
            _, pages, copied = connected().execute(_COPY).fetchone()
        except Exception as error:  # whatever it is, the threads have to go on
            if self._failures.is_written():
                self.log.warn(
                    "a checkpoint of the sessions failed, and is tried again: {error}", error=error
                )
            return None
        return _Copied(pages, pages - copied)


def _close(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        connection.close()
