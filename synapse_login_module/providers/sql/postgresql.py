"""Accounts in a PostgreSQL database."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from math import ceil
from typing import Any

from synapse_login_module.config.conninfo import connect, load_psycopg, read, unverified_host
from synapse_login_module.providers.sql.driver import MOST_ROWS, Rows, first_line


class PostgreSQLDriver:
    """Keeps connections to PostgreSQL, and has the server cancel statements that take too long.

    :param conninfo: the connection string or URI of libpq.
    :param seconds: how long connecting, or a statement, may take.
    :param writes: whether the statements may write.
    """

    key = "postgresql"
    parameter = r"%\((\w+)\)s"
    stray: str | None = r"%(?!\(\w+\)s|%)"
    exact = True
    lasting = True
    to_verify = "set sslmode=verify-full in postgresql"

    def __init__(self, conninfo: str, seconds: float, writes: bool) -> None:
        self.unverified_host = unverified_host(read("postgresql", conninfo))
        self._psycopg = load_psycopg("postgresql")
        self.errors: tuple[type[Exception], ...] = (self._psycopg.Error, UnicodeError)
        self._conninfo = conninfo
        self._seconds = seconds
        self._writes = writes

    def connect(self) -> Any:
        """Connect. Statements are not prepared, so that a connection pooler may be in between."""
        connection = connect(
            self.key,
            self._conninfo,
            autocommit=True,
            connect_timeout=max(2, ceil(self._seconds)),
            client_encoding="utf8",
            row_factory=self._psycopg.rows.dict_row,
        )
        connection.prepare_threshold = None
        return connection

    def begin(self, connection: Any) -> None:
        """Set the statement timeout, and make transactions read-only unless queries may write."""
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('default_transaction_read_only', %s, false)",
            [str(ceil(self._seconds * 1000)), "off" if self._writes else "on"],
        )

    def run(self, connection: Any, statement: str, values: Mapping[str, str]) -> tuple[Rows, int]:
        """Run a statement; return its first rows, and PostgreSQL's count of rows."""
        try:
            cursor = connection.execute(statement, values)
        except self._psycopg.errors.UntranslatableCharacter:
            return [], 0
        return (cursor.fetchmany(MOST_ROWS) if cursor.description else []), cursor.rowcount

    def is_broken(self, connection: Any, error: Exception) -> bool:
        """Say whether the connection was lost."""
        return bool(connection.broken)

    def cut(self, connection: Any) -> None:
        """Shut the socket down, since the server may not respond to a cancel request any more."""
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)

    def describe(self, error: Exception) -> str:
        """Return the first line. Later lines may quote the statement's values."""
        return first_line(error)
