"""A thread that owns an SQLite connection and commits many pieces of work in one transaction.

A durable commit costs a wait for the disk. Running also costs the reactor: while the thread waits
for the interpreter lock, each system call of the reactor releases the lock, wakes the thread, and
takes the lock back before the thread runs. So work is collected until a turn of the reactor brings
no more of it. Then the reactor is about to wait, and the thread does not slow it down. The Deferred
of a piece of work fires only after the commit that the work is part of.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import LoginServiceError, StoreUnavailable
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.stores.sqlite_connection import begin

T = TypeVar("T")

_Piece = tuple[Callable[[sqlite3.Connection], Any], "Deferred[Any]"]
_Result = tuple["Deferred[Any]", Any]

_ENOUGH = 64
_MAX_BATCH = 256


class GroupCommitThread:
    """Runs work on a connection, many pieces in one transaction.

    The methods are called on the reactor's thread, except those that say otherwise.

    :param connect: opens the connection, in autocommit mode; called on the thread.
    :param call_from_thread: the reactor's ``callFromThread``.
    :param call_later: the reactor's ``callLater``. In the reactor's own thread it is cheaper, as it
        wakes no reactor.
    :param metrics: measures the commits, on the thread.
    :param committed: called on the thread after each batch, when its results are on their way.
    """

    log = Logger()

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        call_from_thread: Callable[..., object],
        call_later: Callable[..., object],
        metrics: Metrics | None = None,
        committed: Callable[[sqlite3.Connection], None] = lambda connection: None,
    ) -> None:
        self._connect = connect
        self._metrics = metrics or Metrics()
        self._call_from_thread = call_from_thread
        self._call_later = call_later
        self._committed = committed
        self._waiting: list[_Piece] = []
        self._batches: SimpleQueue[list[_Piece] | None] = SimpleQueue()
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="sqlite", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def run(self, work: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        """Run one piece of work.

        :param work: called on the thread. It may be called again, when another piece of work in the
            transaction fails. It may raise an error of this package only before it writes.
        :return: fires with what ``work`` returned, once that is committed. Fails with what it
            raised, or with :class:`~synapse_login_module.errors.StoreUnavailable` when SQLite
            fails.
        """
        if self._stopping:
            return fail(StoreUnavailable("the store is closed"))
        done: Deferred[T] = Deferred()
        self._waiting.append((work, done))
        if not self._busy:
            self._busy = True
            self._call_later(0, self._once_quiet, len(self._waiting))
        return done

    def stop(self) -> None:
        """Run the waiting work, close the connection and end the thread. Blocks until then."""
        self._stopping = True
        while self._waiting:
            self._hand_over()
        self._batches.put(None)
        self._thread.join()

    def _once_quiet(self, before: int) -> None:
        """Give a batch to the thread, or wait another turn of the reactor for more work.

        It waits only while the last turn brought more work and there is less than ``_ENOUGH``.

        :param before: the number of waiting pieces of work a turn ago.
        """
        waiting = len(self._waiting)
        if before < waiting < _ENOUGH:
            self._call_later(0, self._once_quiet, waiting)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the waiting work to the thread, one batch at most."""
        batch = self._waiting[:_MAX_BATCH]
        del self._waiting[:_MAX_BATCH]
        self._busy = bool(batch)
        if batch:
            self._batches.put(batch)

    def _deliver(self, results: list[_Result]) -> None:
        """Fire the Deferreds of a batch, then collect the work that their callbacks begin."""
        for done, result in results:
            done.callback(result)
        self._call_later(0, self._once_quiet, 0)

    def _serve(self) -> None:
        """Run batches until :meth:`stop`; the function of the thread."""
        connection: sqlite3.Connection | None = None
        while (batch := self._batches.get()) is not None:
            began, changes = time.perf_counter(), 0
            try:
                connection = connection or self._connect()
                changes = connection.total_changes
                results = _commit(connection, batch)
            except Exception as error:
                results = [(done, _failure(error)) for _, done in batch]
            if _is_outage(results):
                self._metrics.store_failures.inc()
            elif connection is not None and connection.total_changes > changes:
                self._metrics.committed(time.perf_counter() - began, len(batch))
            self._call_from_thread(self._deliver, results)
            if connection is not None:
                self._tell_committed(connection)
        if connection is not None:
            connection.close()

    def _tell_committed(self, connection: sqlite3.Connection) -> None:
        try:
            self._committed(connection)
        except Exception:  # whatever it is, the thread has to go on
            self.log.failure("what follows a commit failed")


def _commit(connection: sqlite3.Connection, batch: list[_Piece]) -> list[_Result]:
    """Run a batch in one transaction.

    If a piece of work breaks the transaction, leave it out and run the others again.
    """
    results: list[_Result] = []
    while batch:
        broken = None
        try:
            begin(connection)
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
                # The file or the disk is at fault, and every piece of work would fail the same way.
                return results + [(done, _failure(error)) for _, done in batch]
            results.append((broken[1], _failure(error)))
            batch = [piece for piece in batch if piece is not broken]
    return results


def _attempt(work: Callable[[sqlite3.Connection], Any], connection: sqlite3.Connection) -> Any:
    """Run one piece of work; return its result, or the failure if it raised a package error."""
    try:
        return work(connection)
    except LoginServiceError as error:
        return Failure(error)


def _is_outage(results: list[_Result]) -> bool:
    """Return whether a whole batch has failed. A piece that fails alone comes first."""
    last = results[-1][1]
    return isinstance(last, Failure) and last.check(StoreUnavailable) is not None


def _failure(error: Exception) -> Failure:
    return Failure(StoreUnavailable(str(error)) if isinstance(error, sqlite3.Error) else error)
