"""A pool of connections to PostgreSQL that runs work in batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.common.lru import Recent
from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.model import Session
from synapse_login_module.stores.postgresql.connection import (
    ConnectionLost,
    DatabaseError,
    PipelineConnection,
    Statement,
)
from synapse_login_module.stores.postgresql.operations import (
    CompareAndSwap,
    Delete,
    DeleteDevice,
    Found,
    Insert,
    Key,
    SessionKey,
)
from synapse_login_module.stores.postgresql.optimistic import Assumed, Execution, execute_on
from synapse_login_module.stores.postgresql.statements import Fetch, Store
from synapse_login_module.stores.postgresql.work import Piece, PoolLimits, keys_of, nothing
from synapse_login_module.stores.rows import Rows

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.pq.abc import PGresult

T = TypeVar("T")

_MAX_ATTEMPTS = 20
_MAX_CACHED = 10_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

_RETRYABLE = frozenset({"40001", "40P01", "23505"})
"""SQLSTATEs after which work is run again: a serialization failure, a deadlock, a taken number."""

_NO_PRIMARY = "25006"
_UNUSABLE_CONNECTION = ("08", _NO_PRIMARY, "57P")
"""SQLSTATE prefixes that make a connection unusable: broken, no primary, or shutting down."""

# Local to the transaction, because a connection pooler gives the connection to another client next.
_PREAMBLE = (
    b"SELECT set_config('statement_timeout', $1::TEXT, true),"
    b" current_setting('transaction_read_only')"
)
"""The first statement of each pipeline: sets the timeout, and asks if the server is a primary."""


class PostgreSQLDatabase:
    """A :class:`~synapse_login_module.stores.rows.Database` in PostgreSQL.

    When a connection is free, it takes the waiting work as a batch. One round trip reads the rows
    of the batch, and another one writes and commits. The sessions read or written last are cached,
    so that a compare-and-swap needs no read. If another server has changed the row in the meantime,
    the swap fails, and the row is read. Inserting a session needs no read either.

    :param connect: opens a connection in autocommit mode. It is called on a thread and may block.
    :param reactor: provides ``IReactorFDSet``, ``IReactorTime`` and ``callFromThread``.
    :param limits: the limits of the pool.
    :param metrics: measures the transactions that write.
    """

    log = Logger()

    def __init__(
        self,
        connect: Callable[[], Connection[Any]],
        reactor: Any,
        limits: PoolLimits,
        metrics: Metrics | None = None,
    ) -> None:
        self._connect = connect
        self._metrics = metrics or Metrics()
        self._reactor = reactor
        self._limits = limits
        self._waiting: deque[Piece] = deque()
        self._connections: set[PipelineConnection] = set()
        self._idle: list[PipelineConnection] = []
        self._connecting = 0
        self._pause = 0.0
        self._retry_timer: Any = None
        self._is_scheduled = False
        self._cached_rows: Recent[Key, Any] = Recent(_MAX_CACHED)
        self._stopped: Deferred[None] | None = None
        self._preamble = Statement(_PREAMBLE, [str(int(limits.timeout * 1000))])

    def run(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run work that makes one write at most, after its reads."""
        return self._queue(Piece(work, Deferred()))

    def read(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run work that only reads. No writer waits for a reader."""
        return self.run(work)

    def execute(
        self, statements: Sequence[Statement], writes: bool = True
    ) -> Deferred[list[PGresult]]:
        """Run statements in a transaction of their own, and again if the connection is lost.

        :param writes: whether they write, and are to be measured as such.
        :return: fires with one result for each statement. Fails with
            :class:`~synapse_login_module.errors.StoreUnavailable`.
        """
        return self._queue(Piece(nothing, Deferred(), statements, writes, alone=True))

    def _queue(self, piece: Piece) -> Deferred[Any]:
        if self._stopped is not None:
            return fail(StoreUnavailable("the store is closed"))
        self._drop_timed_out()
        if len(self._waiting) >= self._limits.queue:
            return fail(StoreUnavailable(f"{len(self._waiting)} requests wait for it already"))
        self._waiting.append(piece)
        self._wake()
        return piece.done.addTimeout(self._limits.timeout, self._reactor, self._timed_out)

    def stop(self) -> Deferred[None]:
        """Run the waiting work and close the connections; fires when that is done."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._wake()
        return self._stopped

    @staticmethod
    def _timed_out(_: Any, seconds: float) -> Failure:
        return Failure(StoreUnavailable(f"the database did not answer in {seconds} seconds"))

    def _drop_timed_out(self) -> None:
        """Remove timed-out work from the queue. All timeouts are equal, so it is at the front."""
        while self._waiting and self._waiting[0].done.called:
            self._waiting.popleft()

    def _wake(self) -> None:
        """Begin batches in the next turn of the reactor, so that work of this turn shares one."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        self._is_scheduled = False
        self._drop_timed_out()
        while self._idle and (batch := self._take_batch()):
            connection = self._idle.pop()
            Deferred.fromCoroutine(self._serve(connection, batch)).addErrback(self._fail, batch)
        if self._waiting:
            may_open = len(self._connections) + self._connecting < self._limits.connections
            if may_open and self._retry_timer is None:
                self._open()
        elif self._stopped is not None and len(self._idle) == len(self._connections):
            self._close()

    def _take_batch(self) -> list[Piece]:
        """Take the next batch from the queue."""
        batch: list[Piece] = []
        while self._waiting and len(batch) < self._limits.batch:
            if self._waiting[0].done.called:
                self._waiting.popleft()
            elif self._waiting[0].alone and batch:
                break
            else:
                batch.append(self._waiting.popleft())
                if batch[-1].alone:
                    break
        return batch

    def _open(self) -> None:
        self._connecting += 1
        threading.Thread(target=self._open_in_thread, name="postgresql", daemon=True).start()

    def _open_in_thread(self) -> None:
        result: Connection[Any] | str
        try:
            result = self._connect()
        except Exception as error:
            result = str(error)
        self._reactor.callFromThread(self._opened, result)

    def _opened(self, result: Connection[Any] | str) -> None:
        self._connecting -= 1
        if self._stopped is not None and self._stopped.called:
            if not isinstance(result, str):
                result.close()
            return
        if isinstance(result, str):
            self._connect_later(result)
            return
        try:
            connection = PipelineConnection(result, self._reactor, self._lost)
        except Exception as error:  # the connection is closed already, or no descriptor is free
            result.close()
            self._connect_later(str(error))
            return
        self._connections.add(connection)
        Deferred.fromCoroutine(self._run(connection, [])).addCallbacks(
            self._probed, self._probe_failed, callbackArgs=(connection,), errbackArgs=(connection,)
        )

    def _probed(self, _: object, connection: PipelineConnection) -> None:
        if self._pause:
            self.log.info("connected to the database again")
        self._pause = 0.0
        self._idle.append(connection)
        self._wake()

    def _probe_failed(self, failure: Failure, connection: PipelineConnection) -> None:
        connection.lose(failure.getErrorMessage())
        self._connect_later(failure.getErrorMessage())

    def _connect_later(self, problem: str) -> None:
        """Try to connect again after a pause, which doubles with each failure."""
        self._metrics.store_failures.inc()
        if not self._pause:
            line = " ".join(problem.split())  # psycopg's text has several lines
            self.log.warn("cannot connect to the database: {problem}", problem=line)
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        if self._retry_timer is None:
            self._retry_timer = self._reactor.callLater(self._pause, self._connect_again)

    def _connect_again(self) -> None:
        self._retry_timer = None
        self._wake()

    def _lost(self, connection: PipelineConnection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake()

    def _close(self) -> None:
        assert self._stopped is not None
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        if not self._stopped.called:
            self._stopped.callback(None)
        for connection in list(self._connections):
            connection.lose("the store is closed")

    async def _run(
        self, connection: PipelineConnection, statements: Sequence[Statement]
    ) -> list[PGresult]:
        """Run statements in one transaction; close the connection when they take too long.

        The results of a server that takes no writes are rejected, because they may be out of date.
        """
        deadline = self._reactor.callLater(self._limits.timeout, self._give_up, connection)
        try:
            preamble, *results = await connection.run([self._preamble, *statements])
        finally:
            if deadline.active():
                deadline.cancel()
        if preamble.get_value(0, 1) == b"on":
            raise DatabaseError(_NO_PRIMARY, "its server takes no writes")
        return results

    async def _run_writes(
        self, connection: PipelineConnection, statements: Sequence[Statement], operations: int
    ) -> list[PGresult]:
        """Run statements that write, and measure how long that takes.

        :param operations: how many pieces of work they are of.
        """
        began = time.perf_counter()
        results = await self._run(connection, statements)
        self._metrics.committed(time.perf_counter() - began, operations)
        return results

    def _give_up(self, connection: PipelineConnection) -> None:
        """Close a connection that does not answer, and the idle ones too.

        They probably do not answer either, and each would delay work until its timeout.
        """
        for each in (connection, *self._idle):
            each.lose(f"no answer in {self._limits.timeout} seconds")

    async def _serve(self, connection: PipelineConnection, batch: list[Piece]) -> None:
        """Run a batch, and put the pieces of work that have to be run again back into the queue."""
        try:
            if batch[0].statements:
                results = (
                    self._run_writes(connection, batch[0].statements, 1)
                    if batch[0].writes
                    else self._run(connection, batch[0].statements)
                )
                batch[0].finish(await results)
            elif writing := await self._read(connection, batch):
                await self._write(connection, writing)
        except ConnectionLost as error:
            self._connection_failed(batch, error)
        except DatabaseError as error:
            if error.state.startswith(_UNUSABLE_CONNECTION):
                connection.lose(str(error))
                self._connection_failed(batch, error)
            else:
                self._rejected(batch, error)
        finally:
            if connection in self._connections:
                self._idle.append(connection)
            self._wake()

    async def _read(
        self, connection: PipelineConnection, batch: list[Piece]
    ) -> list[tuple[Piece, Execution]]:
        """Run the work of a batch, and finish the pieces that write nothing.

        :return: the other pieces, with their writes.
        """
        attempts = [(piece, self._run_on_cache(piece)) for piece in batch]
        found: Found = {}
        while absent := {key for _, each in attempts for key in each.absent}:
            fetch = Fetch(absent)
            found.update(fetch.found(await self._run(connection, fetch.statements)))
            attempts = [
                (piece, self._run_on_fetched(piece, found) if each.absent else each)
                for piece, each in attempts
            ]
        for row in found.values():
            if isinstance(row, Session):
                self._cached_rows.remember(SessionKey(row.session_id), row)
        writing = []
        for piece, each in attempts:
            if each.write is None:
                piece.finish(each.result)
            else:
                writing.append((piece, each))
        return writing

    def _run_on_cache(self, piece: Piece) -> Execution:
        """Run work on cached rows and assumptions, at its first attempt.

        That is enough for a compare-and-swap and for inserting a session, which check the row when
        they write.
        """
        if piece.in_doubt is None and not piece.attempts:
            guess = execute_on(piece.work, Assumed(self._cached_rows), remembered=True)
            if guess.absent or isinstance(guess.write, CompareAndSwap | Insert):
                return guess
        return piece.execute_on({})

    @staticmethod
    def _run_on_fetched(piece: Piece, found: Found) -> Execution:
        """Run work again on fetched rows, and on assumptions too at its first attempt."""
        if piece.in_doubt is None and not piece.attempts:
            assumed = Assumed(found)
            guess = execute_on(piece.work, assumed)
            if guess.absent or isinstance(guess.write, Insert) or not assumed.used:
                return guess
        return piece.execute_on(found)

    async def _write(
        self, connection: PipelineConnection, attempts: list[tuple[Piece, Execution]]
    ) -> None:
        """Make the first write of each row, finish its work, and run the other work again."""
        rows: set[Key] = set()
        writing: list[tuple[Piece, Execution]] = []
        late: list[tuple[Piece, Execution]] = []
        for piece, each in attempts:
            mine = keys_of(each.write)
            (late if rows & mine else writing).append((piece, each))
            rows |= mine
        store = Store([each.write for _, each in writing if each.write is not None])
        for key in rows:
            self._cached_rows.pop(key, None)
        try:
            results = await self._run_writes(connection, store.statements, len(writing))
        except ConnectionLost as error:
            for piece, each in writing:
                if isinstance(each.write, CompareAndSwap | Insert):
                    piece.in_doubt = each
                elif not isinstance(each.write, Delete | DeleteDevice):
                    piece.finish(Failure(StoreUnavailable(str(error))))
            raise
        failed = [piece for piece, _ in late]
        for (piece, each), written in zip(writing, store.written(results), strict=True):
            if written:
                if isinstance(each.write, CompareAndSwap):
                    new = each.write.new
                    self._cached_rows.remember(SessionKey(new.session_id), new)
                piece.finish(each.result)
            else:
                failed.append(piece)
        self._run_again(failed, "the row keeps changing")

    def _run_again(self, pieces: Sequence[Piece], problem: object) -> None:
        """Put pieces of work that have not timed out back at the front of the queue.

        A piece that has used up its attempts fails with ``StoreUnavailable``.
        """
        for piece in reversed(pieces):
            piece.attempts += 1
            if piece.attempts == _MAX_ATTEMPTS:
                piece.finish(Failure(StoreUnavailable(str(problem))))
            elif not piece.done.called:
                self._waiting.appendleft(piece)

    def _connection_failed(self, batch: Sequence[Piece], problem: Exception) -> None:
        self._metrics.store_failures.inc()
        self.log.info("a connection is lost: {problem}", problem=str(problem))
        self._run_again(batch, problem)

    def _rejected(self, batch: Sequence[Piece], error: DatabaseError) -> None:
        """Run each piece of a rejected batch again, in a transaction of its own.

        So only the piece that is at fault fails.
        """
        if len(batch) == 1 and error.state not in _RETRYABLE:
            self._metrics.store_failures.inc()
            batch[0].finish(Failure(StoreUnavailable(str(error))))
        for piece in batch:
            piece.alone = True
        self._run_again(batch, error)

    def _fail(self, failure: Failure, batch: Sequence[Piece]) -> None:
        for piece in batch:
            piece.finish(failure)
