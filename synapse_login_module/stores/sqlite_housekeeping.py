"""Pruning, leases and the links for the sweep, in an SQLite file.

Reads that may take long run on a separate connection and thread. In WAL mode writers do not wait
for them. Writes are small, and share the transactions of refreshes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.model import Pruned
from synapse_login_module.stores.group_commit import GroupCommitThread
from synapse_login_module.stores.link_watch import TableLinkWatch, Value
from synapse_login_module.stores.over_sql import was_over
from synapse_login_module.stores.table_housekeeping import TableHousekeeping
from synapse_login_module.stores.table_notes import SQL, note_again
from synapse_login_module.tokens.over import Bounds

T = TypeVar("T")

_OVER = was_over("?1", "?2", "?3")
_LAST_OF_BATCH = (
    "SELECT MAX(session_id), COUNT(*) FROM (SELECT session_id FROM sessions WHERE session_id > ?"
    " ORDER BY session_id LIMIT ?)"
)
_FIND = (
    "SELECT session_id FROM sessions WHERE session_id > ?4 AND session_id <= ?5"
    f" AND {_OVER} ORDER BY session_id LIMIT ?6"
)
_DELETE = f"DELETE FROM sessions WHERE session_id = ?4 AND {_OVER}"
_NOTE = (
    "INSERT INTO device_notes (user_id, device_id, due_at, owed) SELECT user_id, device_id, ?5, 1"
    f" FROM sessions WHERE session_id = ?4 AND {_OVER} {note_again('device_notes')}"
)
_DELETE_SESSION = "DELETE FROM sessions WHERE session_id = ?"
_NOTE_SESSION = (
    "INSERT INTO device_notes (user_id, device_id, due_at, owed) SELECT user_id, device_id, ?, 1"
    f" FROM sessions WHERE session_id = ? {note_again('device_notes')}"
)
_DELETE_LOGIN_TOKENS = (
    "DELETE FROM login_tokens WHERE token_id IN"
    " (SELECT token_id FROM login_tokens WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)

# A lease that lasts longer than a new one would is from before the clock was set back, and does not
# count.
_HOLD = (
    "INSERT INTO leases (name, holder, ends_at) VALUES (?1, ?2, ?3 + ?4) ON CONFLICT (name)"
    " DO UPDATE SET holder = excluded.holder, ends_at = excluded.ends_at"
    " WHERE holder = excluded.holder OR ends_at <= ?3 OR ends_at > ?3 + ?4"
)
_RELEASE = "DELETE FROM leases WHERE name = ? AND holder = ?"


class SQLiteReader:
    """A thread with a connection for reading.

    :param connect: opens the connection; called on the thread.
    :param reactor: provides ``callFromThread``.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], reactor: Any) -> None:
        self._connect = connect
        self._reactor = reactor
        self._pool = ThreadPool(0, 1, "sqlite-reader")
        self._connection: sqlite3.Connection | None = None
        self.start = self._pool.start

    def run(self, work: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        """Run work that reads, on the thread.

        :return: fires with what ``work`` returned. Fails with
            :class:`~synapse_login_module.errors.StoreUnavailable` when SQLite fails.
        """

        def read() -> T:
            if self._connection is None:
                self._connection = self._connect()
            return work(self._connection)

        def failed(failure: Failure) -> Failure:
            failure.trap(sqlite3.Error)
            return Failure(StoreUnavailable(failure.getErrorMessage()))

        done: Deferred[T] = deferToThreadPool(self._reactor, self._pool, read)
        return done.addErrback(failed)

    def stop(self) -> None:
        """Wait for the current read, and close the connection. Blocks until then."""
        self._pool.stop()
        if self._connection is not None:
            self._connection.close()


class SQLiteHousekeeping(TableHousekeeping):
    """See :class:`~synapse_login_module.stores.housekeeping.Housekeeping`.

    :param reader: the thread that reads.
    :param writer: the thread that writes.
    """

    links = "links"
    sessions = "sessions"
    device_notes = "device_notes"
    name_reservations = "name_reservations"
    # There is one writer at a time.
    lock_notes = keep_sessions = ""

    def __init__(self, reader: SQLiteReader, writer: GroupCommitThread) -> None:
        self._reader = reader
        self._writer = writer
        self.link_watch = TableLinkWatch(self)

    def prune(
        self, bounds: Bounds, after: int, scan: int, most: int, note: int | None
    ) -> Deferred[Pruned]:
        """Find rows that were over, and delete those that still are."""
        return Deferred.fromCoroutine(self._prune(bounds, after, scan, most, note))

    async def _prune(
        self, bounds: Bounds, after: int, scan: int, most: int, note: int | None
    ) -> Pruned:
        def find(connection: sqlite3.Connection) -> tuple[list[int], int | None]:
            last, seen = connection.execute(_LAST_OF_BATCH, (after, scan)).fetchone()
            if last is None:
                return [], None
            found = connection.execute(_FIND, (*bounds, after, last, most)).fetchall()
            if len(found) == most:
                last, seen = found[-1][0], scan
            return [row[0] for row in found], last if seen == scan else None

        def remove(connection: sqlite3.Connection) -> tuple[int, int]:
            if note is not None:
                for session_id in found:
                    connection.execute(_NOTE, (*bounds, session_id, note))
            sessions = sum(
                connection.execute(_DELETE, (*bounds, session_id)).rowcount for session_id in found
            )
            tokens = connection.execute(_DELETE_LOGIN_TOKENS, (bounds.ended, most)).rowcount
            return sessions, tokens

        def has_login_tokens(connection: sqlite3.Connection) -> bool:
            oldest: int | None = connection.execute(
                "SELECT MIN(expires_at) FROM login_tokens"
            ).fetchone()[0]
            return oldest is not None and oldest <= bounds.ended

        found, last = await self._reader.run(find)
        if not found and not await self._reader.run(has_login_tokens):
            return Pruned(0, 0, last)
        sessions, tokens = await self._writer.run(remove)
        return Pruned(sessions, tokens, last)

    def delete_sessions(self, session_ids: Sequence[int], note: int | None) -> Deferred[None]:
        """Delete sessions; see :class:`~synapse_login_module.stores.ending.SessionTables`."""

        def delete(connection: sqlite3.Connection) -> None:
            if note is not None:
                connection.executemany(_NOTE_SESSION, [(note, each) for each in session_ids])
            connection.executemany(_DELETE_SESSION, [(each,) for each in session_ids])
            connection.execute("DELETE FROM login_tokens")

        return self._writer.run(delete)

    def hold(self, lease: str, holder: str, seconds: float, now: float) -> Deferred[bool]:
        """Take or renew a lease, by this machine's clock, which all processes on the file share."""
        return self._writer.run(
            lambda connection: (
                connection.execute(_HOLD, (lease, holder, now, seconds)).rowcount == 1
            )
        )

    def release(self, lease: str, holder: str) -> Deferred[None]:
        """Give up a lease."""
        done = self._writer.run(lambda connection: connection.execute(_RELEASE, (lease, holder)))
        return done.addCallback(lambda _: None)

    def fetch(self, sql: str, values: Sequence[Value]) -> Deferred[list[tuple[Any, ...]]]:
        """Read rows; see :class:`~synapse_login_module.stores.link_watch.Tables`."""
        return self._reader.run(lambda connection: connection.execute(sql, values).fetchall())

    def write(self, sql: str, values: Sequence[Value]) -> Deferred[int]:
        """Write rows; see :class:`~synapse_login_module.stores.link_watch.Tables`."""
        return self._writer.run(lambda connection: connection.execute(sql, values).rowcount)

    def transact(self, statements: Sequence[SQL]) -> Deferred[list[list[tuple[Any, ...]]]]:
        """Run statements; see :class:`~synapse_login_module.stores.table_notes.NoteTables`."""
        return self._writer.run(
            lambda connection: [
                connection.execute(sql, values).fetchall() for sql, values in statements
            ]
        )
