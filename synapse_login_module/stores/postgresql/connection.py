"""A connection to PostgreSQL whose socket the reactor watches, so that no thread waits for it.

libpq implements the protocol, TLS and SCRAM; psycopg wraps it for Python. Statements are sent as
one pipeline, which costs one round trip and is one transaction. Source: PostgreSQL's documentation
of libpq, "Asynchronous Command Processing" and "Pipeline Mode".
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
_UNKNOWN_STATE = "08000"


@dataclass(frozen=True, slots=True)
class Statement:
    """An SQL statement and its values.

    :param values: bytes are in PostgreSQL's binary format. Text is in its text format, without NUL.
    """

    sql: bytes
    values: Sequence[str | bytes | None]


class DatabaseError(Exception):
    """PostgreSQL rejected a statement, and rolled back all statements of its pipeline.

    :param state: the SQLSTATE, five characters.
    :param problem: PostgreSQL's error text.
    """

    def __init__(self, state: str, problem: str) -> None:
        super().__init__(problem)
        self.state = state


class ConnectionLost(Exception):
    """The connection is lost. What was sent last may have been committed or not."""


@implementer(IReadWriteDescriptor)
class PipelineConnection:
    """Runs statements on a connection, one pipeline at a time.

    :param connection: an open connection in autocommit mode, for exclusive use.
    :param reactor: provides ``IReactorFDSet``.
    :param on_lost: called once when the connection is lost, after the waiting Deferred has failed.
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
        # A duplicate, because libpq closes its own socket as soon as it finds the connection lost.
        self._descriptor = os.dup(self._libpq.socket)
        self._reactor = reactor
        self._on_lost = on_lost
        self._waiting: Deferred[list[PGresult]] | None = None
        self._results: list[PGresult] = []
        self._error: DatabaseError | None = None
        reactor.addReader(self)

    def run(self, statements: Sequence[Statement]) -> Deferred[list[PGresult]]:
        """Run statements in one transaction.

        :return: fires with one result for each statement, once they are committed. Fails with
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
        """Close the connection; a waiting Deferred fails with :class:`ConnectionLost`."""
        self._give_up(ConnectionLost(problem))

    def fileno(self) -> int:
        """Return the file descriptor of the socket; the reactor calls this."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Return the name of the connection in the log."""
        return "postgresql"

    def doRead(self) -> None:
        """Read what has arrived, and fire the Deferred once the pipeline is complete."""
        try:
            self._libpq.consume_input()
            self._flush()
            self._read_results()
        except self._errors as error:
            self.lose(str(error))

    def doWrite(self) -> None:
        """Send what did not fit into the socket before."""
        try:
            self._flush()
        except self._errors as error:
            self.lose(str(error))

    def connectionLost(self, reason: Failure) -> None:
        """Close the connection, because the reactor has found the socket closed."""
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

    def _read_results(self) -> None:
        if self._waiting is None:
            return
        was_none = False
        while not self._libpq.is_busy():
            result = self._libpq.get_result()
            if result is None:
                if was_none:
                    # Some versions of libpq return no PIPELINE_SYNC when the commit fails.
                    self._give_up(self._error or ConnectionLost("the pipeline ended early"))
                    return
                was_none = True
                continue
            was_none = False
            if result.status == self._status.PIPELINE_SYNC:
                self._finish()
                return
            if result.status == self._status.FATAL_ERROR:
                self._error = self._error or self._database_error(result)
            self._results.append(result)

    def _finish(self) -> None:
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        if self._error is not None:
            waiting.errback(self._error)
        else:
            waiting.callback(self._results)

    def _database_error(self, result: PGresult) -> DatabaseError:
        state = result.error_field(self._state_field) or _UNKNOWN_STATE.encode()
        problem = result.error_field(self._problem_field) or b""
        return DatabaseError(state.decode(), problem.decode(errors="replace"))
