"""Checkpoints of an SQLite file beside the commits, so that no commit waits for one.

SQLite itself copies the write-ahead log into the file at a commit, once the log has 1,000 pages.
Between many sessions these are 1,000 different pages of the file, and the commit waits until all of
them are on the disk. So a thread with a connection of its own copies them. It copies few at a time,
since a commit that comes meanwhile waits for the same disk.

Once the log is long, the writer copies the few pages that were committed meanwhile. Then all of the
log is in the file, and the next commit begins the log anew.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress

_ROWS = 50
"""The number of written rows between two checkpoints of the thread: about a hundred pages."""

_ENOUGH_PAGES = 1_000
"""The pages of a log that is to begin anew."""

_FEW_PAGES = 100
"""How many pages the writer copies to have the log begin anew."""

_MOST_PAGES = 20_000
"""The pages of a log that the writer copies at a commit after all: 80 MB. It gets that long while a
reader holds it up, where the thread fails, and where several processes write without pause.
"""

_LONG = 4_000
"""The pages of a log that is checkpointed after each commit. It gets that long where several
processes write, as one commits while another copies the rest.
"""

_COPY = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpoints:
    """The checkpoints of a file that one thread writes to.

    :param connect: opens a connection to the file; called on any thread.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._wanted = threading.Event()
        self._copied = threading.Event()
        self._is_stopping = False
        self._before = 0
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
            if _checkpoint(connection)[0] > _LONG:
                self._wanted.set()
        elif connection.total_changes - self._before >= _ROWS:
            self._before = connection.total_changes
            self._wanted.set()

    def _serve(self) -> None:
        """Copy the log whenever that is wanted; the function of the thread."""
        connection: sqlite3.Connection | None = None
        while self._wanted.wait() and not self._is_stopping:
            self._wanted.clear()
            with suppress(sqlite3.Error):
                connection = connection or self._connect()
            if connection is not None:
                pages, left = _checkpoint(connection)
                if pages >= _ENOUGH_PAGES and left <= _FEW_PAGES:
                    self._copied.set()
        if connection is not None:
            connection.close()


def _checkpoint(connection: sqlite3.Connection) -> tuple[int, int]:
    """Copy what no reader or writer keeps from being copied. A later checkpoint copies the rest.

    :return: the pages of the log, and how many of them are not copied yet. Both are 0 or less if
        they are not known.
    """
    with suppress(sqlite3.Error):
        _, pages, copied = connection.execute(_COPY).fetchone()
        return pages, pages - copied
    return 0, 0
