"""One thread that owns one SQLite connection and commits what has gathered in one go.

A durable commit costs a wait for the disk. And while the thread wants the interpreter, each system
call of the reactor costs several more: it lets go of the interpreter, wakes the thread, and has the
interpreter again before the thread is there. So work is gathered until a turn of the reactor brings
no more of it; then the reactor is about to wait, and the thread is not in its way. Each piece of
work is answered only after the commit it was part of.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from synapse_login_module.errors import LoginServiceError, StoreUnavailable

T = TypeVar("T")

_Piece = tuple[Callable[[sqlite3.Connection], Any], "Deferred[Any]"]
_Result = tuple["Deferred[Any]", Any]

_ENOUGH = 64
_MAX_BATCH = 256


class GroupCommitThread:
    """Runs work on a connection, many pieces in one transaction.

    All but the thread itself is for the reactor's thread alone.

    :param connect: opens the connection, in autocommit mode; called on the thread.
    :param call_from_thread: the reactor's ``callFromThread``.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        call_from_thread: Callable[..., object],
    ) -> None:
        self._connect = connect
        self._call_from_thread = call_from_thread
        self._gathered: list[_Piece] = []
        self._batches: SimpleQueue[list[_Piece] | None] = SimpleQueue()
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="sqlite", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def run(self, work: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        """Do one piece of work.

        :param work: called on the thread; raises one of this package's errors only before it
            writes; may be called again when a neighbour in the transaction fails.
        :return: fires with what it returned, once that is committed. Fails with what it raised, or
            with :class:`~synapse_login_module.errors.StoreUnavailable` when SQLite fails.
        """
        if self._stopping:
            return fail(StoreUnavailable("the store is closed"))
        done: Deferred[T] = Deferred()
        self._gathered.append((work, done))
        if not self._busy:
            self._busy = True
            self._call_from_thread(self._once_quiet, len(self._gathered))
        return done

    def stop(self) -> None:
        """Do what is waiting, close the connection and end the thread. Blocks until then."""
        self._stopping = True
        while self._gathered:
            self._hand_over()
        self._batches.put(None)
        self._thread.join()

    def _once_quiet(self, before: int) -> None:
        """Hand over once a turn has brought no more, or there is enough as it is.

        :param before: how much there was a turn ago.
        """
        gathered = len(self._gathered)
        if before < gathered < _ENOUGH:
            self._call_from_thread(self._once_quiet, gathered)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the thread what has gathered, if anything has."""
        batch = self._gathered[:_MAX_BATCH]
        del self._gathered[:_MAX_BATCH]
        self._busy = bool(batch)
        if batch:
            self._batches.put(batch)

    def _deliver(self, results: list[_Result]) -> None:
        """Answer what the thread has done, and gather what comes of that."""
        for done, result in results:
            done.callback(result)
        self._call_from_thread(self._once_quiet, 0)

    def _serve(self) -> None:
        connection: sqlite3.Connection | None = None
        while (batch := self._batches.get()) is not None:
            try:
                connection = connection or self._connect()
                results = _commit(connection, batch)
            except Exception as error:
                results = [(done, _failure(error)) for _, done in batch]
            self._call_from_thread(self._deliver, results)
        if connection is not None:
            connection.close()


def _commit(connection: sqlite3.Connection, batch: list[_Piece]) -> list[_Result]:
    """Do a batch in one transaction; a piece that breaks it is left out and the rest done again."""
    results: list[_Result] = []
    while batch:
        broken = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            attempts: list[_Result] = []
            for broken in batch:
                attempts.append((broken[1], _attempt(broken[0], connection)))
            broken = None
            connection.execute("COMMIT")
            return results + attempts
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if broken is None or isinstance(error, sqlite3.OperationalError):
                # The file or the disk: it would fail whoever comes next just the same.
                return results + [(done, _failure(error)) for _, done in batch]
            results.append((broken[1], _failure(error)))
            batch = [piece for piece in batch if piece is not broken]
    return results


def _attempt(work: Callable[[sqlite3.Connection], Any], connection: sqlite3.Connection) -> Any:
    """What the work returns, or the failure that it chose."""
    try:
        return work(connection)
    except LoginServiceError as error:
        return Failure(error)


def _failure(error: Exception) -> Failure:
    return Failure(StoreUnavailable(str(error)) if isinstance(error, sqlite3.Error) else error)
