"""A connection to PostgreSQL that the reactor watches: no thread waits for an answer.

libpq speaks the protocol, TLS and SCRAM; psycopg gives it to Python. Statements are sent as one
pipeline, and so cost one round trip; they stand or fall together. Source: PostgreSQL's
documentation of libpq, "Asynchronous Command Processing" and "Pipeline Mode".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.pq.abc import PGresult

_BINARY = 1
_NO_SUCH_STATE = "08000"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement and its values.

    :param values: bytes are in PostgreSQL's binary form, text in its text form, without NUL.
    """

    sql: bytes
    values: Sequence[str | bytes | None]


class DatabaseError(Exception):
    """PostgreSQL refused a statement, and with it all that were sent together.

    :param state: the SQLSTATE, five characters.
    """

    def __init__(self, state: str, problem: str) -> None:
        super().__init__(problem)
        self.state = state


class ConnectionLost(Exception):
    """The connection is gone; what was sent last may have been done or not."""


@implementer(IReadWriteDescriptor)
class PipelineConnection:
    """Runs statements on a connection, one pipeline at a time.

    :param connection: open, in autocommit mode, and nobody else's.
    :param reactor: provides ``IReactorFDSet``.
    :param on_lost: called once when the connection is gone, after whoever waits was told.
    """

    def __init__(
        self,
        connection: Connection[Any],
        reactor: Any,
        on_lost: Callable[[PipelineConnection], object],
    ) -> None:
        from psycopg import Error, pq

        self._status = pq.ExecStatus
        self._state_field = pq.DiagnosticField.SQLSTATE
        self._problem_field = pq.DiagnosticField.MESSAGE_PRIMARY
        self._errors = Error
        self._connection = connection
        self._libpq = connection.pgconn
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        # One of its own: libpq closes its socket whenever it finds the connection lost.
        self._descriptor = os.dup(self._libpq.socket)
        self._reactor = reactor
        self._on_lost = on_lost
        self._waiting: Deferred[list[PGresult]] | None = None
        self._results: list[PGresult] = []
        self._error: DatabaseError | None = None
        reactor.addReader(self)

    def run(self, statements: Sequence[Statement]) -> Deferred[list[PGresult]]:
        """Run statements in one transaction.

        :return: fires with a result for each, once they are committed. Fails with
            :class:`DatabaseError` or :class:`ConnectionLost`.
        """
        assert self._waiting is None
        if self._descriptor < 0:
            return fail(ConnectionLost("it is closed"))
        self._waiting = waiting = Deferred["list[PGresult]"]()
        self._results = []
        self._error = None
        try:
            for statement in statements:
                values = [
                    value.encode() if isinstance(value, str) else value
                    for value in statement.values
                ]
                formats = [int(isinstance(value, bytes)) for value in statement.values]
                self._libpq.send_query_params(
                    statement.sql,
                    values,
                    param_formats=formats,
                    result_format=_BINARY,
                )
            self._libpq.pipeline_sync()
            self._flush()
        except self._errors as error:
            self.lose(str(error))
        return waiting

    def lose(self, problem: str) -> None:
        """Give the connection up: whoever waits is told :class:`ConnectionLost`."""
        self._give_up(ConnectionLost(problem))

    def fileno(self) -> int:
        """The socket, for the reactor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Its name in the log."""
        return "postgresql"

    def doRead(self) -> None:
        """Take what has arrived, and tell whoever waits once all of it has."""
        try:
            self._libpq.consume_input()
            self._flush()
            self._take()
        except self._errors as error:
            self.lose(str(error))

    def doWrite(self) -> None:
        """Send what did not fit."""
        try:
            self._flush()
        except self._errors as error:
            self.lose(str(error))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the socket dead."""
        self.lose(reason.getErrorMessage())

    def _give_up(self, error: Exception) -> None:
        if self._descriptor < 0:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        os.close(self._descriptor)
        self._descriptor = -1
        self._connection.close()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(error)
        self._on_lost(self)

    def _flush(self) -> None:
        if self._libpq.flush():
            self._reactor.addWriter(self)
        else:
            self._reactor.removeWriter(self)

    def _take(self) -> None:
        if self._waiting is None:
            return
        ended = False
        while not self._libpq.is_busy():
            result = self._libpq.get_result()
            if result is None:
                if ended:
                    # Some versions of libpq lose count when it is the commit that fails.
                    self._give_up(self._error or ConnectionLost("the pipeline ended early"))
                    return
                ended = True
                continue
            ended = False
            if result.status == self._status.PIPELINE_SYNC:
                self._tell()
                return
            if result.status == self._status.FATAL_ERROR:
                self._error = self._error or self._refusal(result)
            self._results.append(result)

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        if self._error is not None:
            waiting.errback(self._error)
        else:
            waiting.callback(self._results)

    def _refusal(self, result: PGresult) -> DatabaseError:
        state = result.error_field(self._state_field) or _NO_SUCH_STATE.encode()
        problem = result.error_field(self._problem_field) or b""
        return DatabaseError(state.decode(), problem.decode(errors="replace"))
