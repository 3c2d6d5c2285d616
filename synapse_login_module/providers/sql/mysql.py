"""Accounts in a MariaDB or MySQL database."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Any

from synapse_login_module.providers.sql.driver import MOST_ROWS, Rows, first_line
from synapse_login_module.providers.sql.mysql_server import MySQLServer, load_pymysql

_CANNOT_CONNECT, _UNKNOWN_HOST, _MALFORMED = 2003, 2005, 2027

_ENDED = frozenset((1053, 1927, 3169, 4031))
"""The errors that a server sends before it closes a connection: at its shutdown, when the
connection is killed, or when it was idle for too long.
"""

_MIXED_TEXT = frozenset((1267, 3988))
"""The errors for text that the character set of a column lacks."""

_WITH_NAMES = frozenset(
    (
        *(1044, 1045, 1049, 1054, 1064, 1109, 1129, 1130, 1142, 1143, 1146, 1193, 1203, 1226, 1227),
        *(1267, 1305, 1356, 1370, 1698),
    )
)
"""The server's errors whose message quotes the statement, or names of users, tables and columns.
Any other message may quote a value.
"""

_WRITTEN = re.compile(r"_utf8mb4 X'[0-9a-f]*'?|X'[0-9a-f]*'?")
"""A value in a statement, which a message may cut short."""

_QUOTED = re.compile(r"(['\"`]).*\1", re.DOTALL)


@dataclass(frozen=True)
class _Connection:
    """A connection to a server.

    :param session: PyMySQL's connection.
    :param wire: its socket, until the session has it.
    :param handle: another handle of the socket, by which any thread can cut the connection. TLS
        replaces the socket of the session.
    """

    session: Any
    wire: socket.socket
    handle: socket.socket

    def close(self) -> None:
        """Close it."""
        self.session.close()
        self.wire.close()
        self.handle.close()


class MySQLDriver:
    """Keeps connections to MariaDB or MySQL, and has the server end statements that take too long.

    :param server: the server.
    :param seconds: how long connecting, or a statement, may take.
    :param writes: whether the statements may write.
    """

    key = "mysql"
    parameter = r"%\((\w+)\)s"
    stray: str | None = r"%(?!\(\w+\)s|%)"
    exact = False
    lasting = True
    to_verify = "set tls and verify_certificate in mysql to true"

    def __init__(self, server: MySQLServer, seconds: float, writes: bool) -> None:
        self.unverified_host = server.unverified_host
        self._pymysql = load_pymysql()
        self.errors: tuple[type[Exception], ...] = (self._pymysql.Error, UnicodeError)
        self._server = server
        self._seconds = seconds
        self._writes = writes

    def connect(self) -> _Connection:
        """Connect the socket. That leaves the handshake to ``begin``, which can be cut."""
        try:
            wire = self._server.connect(self._seconds)
            handle = wire.dup()
        except socket.gaierror as error:
            problem = f"cannot resolve {self._server.host}: {error.strerror}"
            raise self._pymysql.OperationalError(_UNKNOWN_HOST, problem) from None
        except OSError as error:
            problem = f"connection failed: {error}"
            raise self._pymysql.OperationalError(_CANNOT_CONNECT, problem) from None
        session = self._pymysql.connections.Connection(
            defer_connect=True,
            host=self._server.host,
            user=self._server.user,
            password=self._server.password.encode(),
            database=self._server.database,
            ssl=self._server.tls,
            ssl_disabled=self._server.tls is None,
            # Work that takes too long is cut before that.
            read_timeout=2 * self._seconds,
            write_timeout=2 * self._seconds,
            charset="utf8mb4",
            autocommit=True,
            local_infile=False,
        )
        return _Connection(session, wire, handle)

    def begin(self, connection: _Connection) -> None:
        """Log in, set the timeouts, and make transactions read-only unless queries may write.

        MariaDB alone reads the first comment, and MySQL alone the second.
        """
        with self._protocol():
            connection.session.connect(connection.wire)
            with connection.session.cursor() as cursor:
                cursor.execute(
                    f"SET sql_mode = 'STRICT_ALL_TABLES', sql_select_limit = {MOST_ROWS},"
                    f" lock_wait_timeout = {ceil(self._seconds)}"
                    f" /*M!100101 , max_statement_time = {self._seconds} */"
                    f" /*!50708 , max_execution_time = {ceil(self._seconds * 1000)} */"
                )
                if not self._writes:
                    cursor.execute("SET SESSION TRANSACTION READ ONLY")

    def run(
        self, connection: _Connection, statement: str, values: Mapping[str, str]
    ) -> tuple[Rows, int]:
        """Run a statement; return its first rows, and the server's count of rows.

        A value is written in hexadecimal digits. So nothing in it has to be escaped, whatever the
        server's ``sql_mode`` and character set are.
        """
        written = {name: f"_utf8mb4 X'{value.encode().hex()}'" for name, value in values.items()}
        with self._protocol(), connection.session.cursor() as cursor:
            try:
                cursor.execute(statement % written)
            except self._pymysql.Error as error:
                if _code(error) in _MIXED_TEXT and not all(map(str.isascii, values.values())):
                    return [], 0
                raise
            columns = [each[:2] for each in cursor.description or ()]
            rows = [
                {
                    name: self._converted(name, kind, value)
                    for (name, kind), value in zip(columns, row, strict=True)
                }
                for row in cursor.fetchmany(MOST_ROWS)
            ]
            return rows, cursor.rowcount

    def is_broken(self, connection: _Connection, error: Exception) -> bool:
        """Say whether the connection was lost, or the server is about to close it."""
        return not connection.session.open or _code(error) in _ENDED

    def cut(self, connection: _Connection) -> None:
        """Shut the socket down."""
        connection.handle.shutdown(socket.SHUT_RDWR)

    def describe(self, error: Exception) -> str:
        """Return the message and the number of an error. What may be a value is left out."""
        code = _code(error)
        if code is None:
            return first_line(error)
        message = _WRITTEN.sub("…", " ".join(str(error.args[1]).split()))
        if code not in _WITH_NAMES and not 2000 <= code < 3000:
            message = _QUOTED.sub("'…'", message)
        return f"{message} ({code})"

    @contextmanager
    def _protocol(self) -> Iterator[None]:
        """Raise an error of the database for whatever else PyMySQL raises.

        That is a ``RuntimeError`` for what is not installed or not allowed, and for an answer that
        is not MySQL's anything.
        """
        try:
            yield
        except self.errors:
            raise
        except Exception as error:
            problem = f"not an answer of MySQL: {type(error).__name__}"
            if isinstance(error, RuntimeError):
                problem = first_line(error)
            raise self._pymysql.InternalError(_MALFORMED, problem) from None

    def _converted(self, name: str, kind: int, value: object) -> object:
        """Convert a value to the type that other databases return in its place.

        :param name: the name of the column.
        :param kind: the type of the column.
        """
        kinds = self._pymysql.constants.FIELD_TYPE
        if isinstance(value, Decimal) and value == value.to_integral_value():
            return int(value)
        if not isinstance(value, bytes):
            return value
        if kind == kinds.BIT:
            return int.from_bytes(value, "big")
        if kind == kinds.STRING:  # BINARY, which is filled up with zeros
            if name == "subject":
                return value.hex()
            value = value.rstrip(b"\0")
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value


def _code(error: Exception) -> int | None:
    """Return the number of an error; ``None`` if it is not MySQL's or PyMySQL's."""
    numbered = len(error.args) == 2 and isinstance(error.args[0], int)
    return error.args[0] if numbered else None
