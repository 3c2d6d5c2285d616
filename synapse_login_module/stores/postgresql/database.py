"""A pool of connections that do many pieces of work with few statements."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.lru import Recent
from synapse_login_module.model import Session
from synapse_login_module.stores.postgresql.connection import (
    ConnectionLost,
    DatabaseError,
    PipelineConnection,
    Statement,
)
from synapse_login_module.stores.postgresql.optimistic import (
    Assumed,
    CompareAndSwap,
    Delete,
    Execution,
    Found,
    Insert,
    Key,
    SessionKey,
    execute_on,
)
from synapse_login_module.stores.postgresql.statements import Fetch, Store
from synapse_login_module.stores.postgresql.work import Bounds, Piece, keys_of, nothing
from synapse_login_module.stores.rows import Rows

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.pq.abc import PGresult

T = TypeVar("T")

_MOST_ATTEMPTS = 20
_MOST_REMEMBERED = 10_000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

_TRY_AGAIN = frozenset({"40001", "40P01", "23505"})
"""A serialisation failure, a deadlock, a number that was taken meanwhile."""

_NO_PRIMARY = "25006"
_CONNECTION_OF_NO_USE = ("08", _NO_PRIMARY, "57P")
"""How what says that it is broken, or that its server is no primary or goes down, begins."""

# Of one transaction, as pools of connections demand that hand each to the next who comes.
_BEFORE = (
    b"SELECT set_config('statement_timeout', $1::TEXT, true),"
    b" current_setting('transaction_read_only')"
)
"""Stands before all else: limits what it costs, and says whether the answers are of a primary."""


class PostgreSQLDatabase:
    """A :class:`~synapse_login_module.stores.rows.Database`.

    A batch is whatever has gathered when a connection is free. It is read in one round trip and
    written in another, which commits it. The sessions that were last read or written here are
    remembered, and not read again only to be swapped: where another server has swapped them
    meanwhile, that fails, and they are read. Nothing is read only to insert a session.

    :param connect: opens a connection in autocommit mode; called on a thread, may block.
    :param reactor: provides ``IReactorFDSet``, ``IReactorTime`` and ``callFromThread``.
    """

    log = Logger()

    def __init__(
        self, connect: Callable[[], Connection[Any]], reactor: Any, bounds: Bounds
    ) -> None:
        self._connect = connect
        self._reactor = reactor
        self._bounds = bounds
        self._waiting: deque[Piece] = deque()
        self._connections: set[PipelineConnection] = set()
        self._idle: list[PipelineConnection] = []
        self._connecting = 0
        self._pause = 0.0
        self._resting: Any = None
        self._woken = False
        self._remembered: Recent[Key, Any] = Recent(_MOST_REMEMBERED)
        self._stopped: Deferred[None] | None = None
        self._before = Statement(_BEFORE, [str(int(bounds.timeout * 1000))])

    def run(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Do some work, which reads what it likes and then writes once."""
        return self._queue(Piece(work, Deferred()))

    def execute(self, statements: Sequence[Statement]) -> Deferred[list[PGresult]]:
        """Run statements in a transaction of their own, again if the connection is lost."""
        return self._queue(Piece(nothing, Deferred(), statements, alone=True))

    def _queue(self, piece: Piece) -> Deferred[Any]:
        if self._stopped is not None:
            return fail(StoreUnavailable("the store is closed"))
        self._forget()
        if len(self._waiting) >= self._bounds.queue:
            return fail(StoreUnavailable(f"{len(self._waiting)} requests wait for it already"))
        self._waiting.append(piece)
        self._wake()
        return piece.done.addTimeout(self._bounds.timeout, self._reactor, self._too_late)

    def stop(self) -> Deferred[None]:
        """Do what is waiting, and close the connections; fires when that is done."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._wake()
        return self._stopped

    @staticmethod
    def _too_late(_: Any, seconds: float) -> Failure:
        return Failure(StoreUnavailable(f"the database did not answer in {seconds} seconds"))

    def _forget(self) -> None:
        """Drop what nobody waits for any more: all wait equally long, so it comes first."""
        while self._waiting and self._waiting[0].done.called:
            self._waiting.popleft()

    def _wake(self) -> None:
        """Begin batches once everything that arrives with this piece of work has arrived."""
        if not self._woken:
            self._woken = True
            self._reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        self._woken = False
        self._forget()
        while self._idle and (batch := self._gather()):
            connection = self._idle.pop()
            Deferred.fromCoroutine(self._serve(connection, batch)).addErrback(self._mistake, batch)
        if self._waiting:
            few = len(self._connections) + self._connecting < self._bounds.connections
            if few and self._resting is None:
                self._open()
        elif self._stopped is not None and len(self._idle) == len(self._connections):
            self._close()

    def _gather(self) -> list[Piece]:
        """What is to share a transaction."""
        batch: list[Piece] = []
        while self._waiting and len(batch) < self._bounds.batch:
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
            self._rest(result)
            return
        try:
            connection = PipelineConnection(result, self._reactor, self._lost)
        except Exception as error:  # it is gone already, or the process has no file left for it
            result.close()
            self._rest(str(error))
            return
        self._connections.add(connection)
        Deferred.fromCoroutine(self._run(connection, [])).addCallbacks(
            self._is_good, self._is_bad, callbackArgs=(connection,), errbackArgs=(connection,)
        )

    def _is_good(self, _: object, connection: PipelineConnection) -> None:
        if self._pause:
            self.log.info("connected to the database again")
        self._pause = 0.0
        self._idle.append(connection)
        self._wake()

    def _is_bad(self, failure: Failure, connection: PipelineConnection) -> None:
        connection.lose(failure.getErrorMessage())
        self._rest(failure.getErrorMessage())

    def _rest(self, problem: str) -> None:
        """Try to connect again, but not at once."""
        if not self._pause:
            line = " ".join(problem.split())  # psycopg writes several
            self.log.warn("cannot connect to the database: {problem}", problem=line)
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        if self._resting is None:
            self._resting = self._reactor.callLater(self._pause, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._wake()

    def _lost(self, connection: PipelineConnection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake()

    def _close(self) -> None:
        assert self._stopped is not None
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if not self._stopped.called:
            self._stopped.callback(None)
        for connection in list(self._connections):
            connection.lose("the store is closed")

    async def _run(
        self, connection: PipelineConnection, statements: Sequence[Statement]
    ) -> list[PGresult]:
        """Run statements, on a connection that is given up when it takes too long.

        What a server says that takes no writes is not to be believed: it may be of yesterday.
        """
        giving_up = self._reactor.callLater(self._bounds.timeout, self._give_up, connection)
        try:
            before, *results = await connection.run([self._before, *statements])
        finally:
            if giving_up.active():
                giving_up.cancel()
        if before.get_value(0, 1) == b"on":
            raise DatabaseError(_NO_PRIMARY, "its server takes no writes")
        return results

    def _give_up(self, connection: PipelineConnection) -> None:
        """Nor are those trusted any more that are idle: each would cost somebody as long."""
        for each in (connection, *self._idle):
            each.lose(f"no answer in {self._bounds.timeout} seconds")

    async def _serve(self, connection: PipelineConnection, batch: list[Piece]) -> None:
        """Answer a batch, or what of it can be, and have the rest tried again."""
        try:
            if batch[0].statements:
                batch[0].finish(await self._run(connection, batch[0].statements))
            elif writing := await self._read(connection, batch):
                await self._write(connection, writing)
        except ConnectionLost as error:
            self._given_up(batch, error)
        except DatabaseError as error:
            if error.state.startswith(_CONNECTION_OF_NO_USE):
                connection.lose(str(error))
                self._given_up(batch, error)
            else:
                self._refused(batch, error)
        finally:
            if connection in self._connections:
                self._idle.append(connection)
            self._wake()

    async def _read(
        self, connection: PipelineConnection, batch: list[Piece]
    ) -> list[tuple[Piece, Execution]]:
        """Do the work of a batch, and answer what writes nothing; what is to be written."""
        attempts = [(piece, self._guess(piece)) for piece in batch]
        found: Found = {}
        while absent := {key for _, each in attempts for key in each.absent}:
            fetch = Fetch(absent)
            found.update(fetch.found(await self._run(connection, fetch.statements)))
            attempts = [
                (piece, self._go_on(piece, found) if each.absent else each)
                for piece, each in attempts
            ]
        for row in found.values():
            if isinstance(row, Session):
                self._remembered.remember(SessionKey(row.session_id), row)
        writing = []
        for piece, each in attempts:
            if each.write is None:
                piece.finish(each.result)
            else:
                writing.append((piece, each))
        return writing

    def _guess(self, piece: Piece) -> Execution:
        """Do the work on what is remembered or may be assumed. That is good enough for a swap,
        which compares, and for a session that is inserted.
        """
        if piece.in_doubt is None and not piece.attempts:
            guess = execute_on(piece.work, Assumed(self._remembered), remembered=True)
            if guess.absent or isinstance(guess.write, CompareAndSwap | Insert):
                return guess
        return piece.execute_on({})

    @staticmethod
    def _go_on(piece: Piece, found: Found) -> Execution:
        """Do the work on what was found, and on what may be assumed if it is the first time."""
        if piece.in_doubt is None and not piece.attempts:
            assumed = Assumed(found)
            guess = execute_on(piece.work, assumed)
            if guess.absent or isinstance(guess.write, Insert) or not assumed.used:
                return guess
        return piece.execute_on(found)

    async def _write(
        self, connection: PipelineConnection, attempts: list[tuple[Piece, Execution]]
    ) -> None:
        """Write what comes first for each row, answer that, and have the rest tried again."""
        rows: set[Key] = set()
        writing: list[tuple[Piece, Execution]] = []
        late: list[tuple[Piece, Execution]] = []
        for piece, each in attempts:
            mine = keys_of(each.write)
            (late if rows & mine else writing).append((piece, each))
            rows |= mine
        store = Store([each.write for _, each in writing if each.write is not None])
        for key in rows:
            self._remembered.pop(key, None)
        try:
            results = await self._run(connection, store.statements)
        except ConnectionLost as error:
            for piece, each in writing:
                if isinstance(each.write, CompareAndSwap | Insert):
                    piece.in_doubt = each
                elif not isinstance(each.write, Delete):
                    piece.finish(Failure(StoreUnavailable(str(error))))
            raise
        in_vain = [piece for piece, _ in late]
        for (piece, each), written in zip(writing, store.written(results), strict=True):
            if written:
                if isinstance(each.write, CompareAndSwap):
                    new = each.write.new
                    self._remembered.remember(SessionKey(new.session_id), new)
                piece.finish(each.result)
            else:
                in_vain.append(piece)
        self._again(in_vain, "the row keeps changing")

    def _again(self, pieces: Sequence[Piece], problem: object) -> None:
        """Have pieces of work done again, before all others, those that are not answered yet."""
        for piece in reversed(pieces):
            piece.attempts += 1
            if piece.attempts == _MOST_ATTEMPTS:
                piece.finish(Failure(StoreUnavailable(str(problem))))
            elif not piece.done.called:
                self._waiting.appendleft(piece)

    def _given_up(self, batch: Sequence[Piece], problem: Exception) -> None:
        self.log.info("a connection is lost: {problem}", problem=str(problem))
        self._again(batch, problem)

    def _refused(self, batch: Sequence[Piece], error: DatabaseError) -> None:
        """Find out whose fault it is, so that nobody else's work fails for it."""
        if len(batch) == 1 and error.state not in _TRY_AGAIN:
            batch[0].finish(Failure(StoreUnavailable(str(error))))
        for piece in batch:
            piece.alone = True
        self._again(batch, error)

    def _mistake(self, failure: Failure, batch: Sequence[Piece]) -> None:
        for piece in batch:
            piece.finish(failure)
