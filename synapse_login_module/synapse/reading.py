"""Reads Synapse's database, whether Synapse runs or not, without Synapse and without writing.

Each query is a transaction of its own and short, so that a running Synapse does not wait for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from synapse_login_module.errors import ConfigError, StoreUnavailable
from synapse_login_module.synapse.homeserver_files import HomeserverFiles

_TIMEOUT = 5.0


class ReadRows(Protocol):
    """Runs queries whose placeholder is ``?``."""

    def fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query; return its rows."""

    def close(self) -> None:
        """Close the connection."""


class SQLiteReading:
    """Reads Synapse's SQLite file.

    :param arguments: the arguments of the connection, as ``args`` in homeserver.yaml.
    :raise StoreUnavailable: when the file cannot be opened.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        path = Path(str(arguments.get("database", ":memory:")))
        if not path.exists():
            raise StoreUnavailable(
                f"there is no {path}; a relative path is relative to the folder that Synapse"
                " runs in, so run the command there"
            )
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        try:
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=_TIMEOUT, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{path}: {error}") from None
        self.close = self._connection.close

    def fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query; return its rows."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise StoreUnavailable(str(error)) from None


class PostgreSQLReading:
    """Reads Synapse's PostgreSQL database.

    :param arguments: the arguments of the connection, as ``args`` in homeserver.yaml.
    :raise StoreUnavailable: when it cannot be reached.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        try:
            import psycopg
        except ImportError:
            raise ConfigError(
                "database", "to read PostgreSQL, install synapse-login-module[postgres]"
            ) from None
        self._psycopg = psycopg
        # Synapse's driver has another name for it, and the pool's own arguments begin with cp_.
        given = {
            "dbname" if name == "database" else name: value
            for name, value in arguments.items()
            if not name.startswith("cp_")
        }
        try:
            self._connection = psycopg.connect(
                **{"application_name": "import-synapse", "connect_timeout": 5, **given},
                autocommit=False,
            )
        except (psycopg.Error, TypeError) as error:
            raise StoreUnavailable(_line(error)) from None
        self._connection.read_only = True
        self.close = self._connection.close

    def fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query; return its rows."""
        try:
            with self._connection.transaction():
                return self._connection.execute(sql.replace("?", "%s"), values).fetchall()
        except self._psycopg.Error as error:
            raise StoreUnavailable(_line(error)) from None


def open_database(files: HomeserverFiles) -> ReadRows:
    """Open Synapse's database for reading.

    :raise StoreUnavailable: when it cannot be opened.
    """
    if files.database == "sqlite3":
        return SQLiteReading(files.arguments)
    return PostgreSQLReading(files.arguments)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
