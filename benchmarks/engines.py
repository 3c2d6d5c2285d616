"""The kinds of database that Synapse and the standalone server are measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.servers import cluster
from benchmarks.size import Size
from tests.support.postgresql import PostgreSQL


@dataclass(frozen=True)
class Engine:
    """A kind of database.

    :param configure: makes Synapse's ``database`` section from a folder and a name.
    """

    name: str
    configure: Callable[[Path, str], dict[str, Any]]


def engines(size: Size) -> Iterator[Engine]:
    """Yield the databases to measure on; PostgreSQL runs until the next is asked for."""
    yield SQLITE
    if size.postgresql:
        with cluster() as database:
            yield on_postgresql(database)


def on_postgresql(database: PostgreSQL) -> Engine:
    """Return the kind whose databases are made in a cluster."""
    return Engine("PostgreSQL", partial(_postgresql, database))


def _sqlite(folder: Path, name: str) -> dict[str, Any]:
    """Configure an SQLite database in the folder."""
    return {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}}


def _postgresql(database: PostgreSQL, folder: Path, name: str) -> dict[str, Any]:
    database.new_database(name)
    where = {"host": "127.0.0.1", "port": database.port, "user": "postgres", "dbname": name}
    return {"name": "psycopg2", "args": {**where, "cp_min": 5, "cp_max": 10}}


SQLITE = Engine("SQLite", _sqlite)
"""The kind whose database is a file in the folder."""
