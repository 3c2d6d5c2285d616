"""Stores for the real server, with a mistake in each, to show that these tests find it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import random
from typing import Any, ClassVar, TypeVar

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, execute
from twisted.internet.threads import deferToThread
from zope.interface import implementer, provider

from synapse_login_module.model import Session
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.stores import PostgreSQLTokenStore
from synapse_login_module.stores.derived import DerivedTokenStore
from synapse_login_module.stores.postgresql import statements
from synapse_login_module.stores.rows import Rows
from synapse_login_module.stores.sqlite import SQLiteTokenStore
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.stores.sqlite_rows import SQLiteRows

T = TypeVar("T")

_EVERY = 64
_LONGEST_GAP = 0.02


class _EagerDatabase:
    """A database that answers at once, and commits after every 64 pieces of work."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self.connection: sqlite3.Connection | None = None

    def run(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run the work at once, in a transaction that is committed later."""
        if self.connection is None:
            self.connection = connect(self._path)
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")
        done: Deferred[T] = execute(work, SQLiteRows(self.connection))
        self._count += 1
        if self._count % _EVERY == 0:
            self.connection.execute("COMMIT")
        return done

    read = run


class _BlindRows(SQLiteRows):
    """Rows that are written whatever they have become since they were read."""

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Write without comparing."""
        time.sleep(random() * _LONGEST_GAP)
        self._execute(
            "UPDATE sessions SET key_id = ?, generation = ?, confirmed = ?, issued_at = ?"
            " WHERE session_id = ?",
            (new.key_id, new.generation, new.confirmed, new.issued_at, new.session_id),
        )
        return True


class _HastyDatabase:
    """A database that runs work concurrently, each statement in a transaction of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run the work on any thread."""
        return deferToThread(self._run, work)

    read = run

    def _run(self, work: Callable[[Rows], T]) -> T:
        with closing(connect(self._path)) as connection:
            return work(_BlindRows(connection))


@implementer(IService)
class _BrokenStore(DerivedTokenStore, Service):
    """A store over an SQLite file, with the mistake of its database."""

    database: ClassVar[type[_HastyDatabase | _EagerDatabase]]
    parse_config = staticmethod(SQLiteTokenStore.parse_config)

    def __init__(self, config: Path, environment: Environment) -> None:
        SQLiteTokenStore(config, environment)  # creates the file
        super().__init__(
            self.database(config),
            environment.required_keys,
            environment.policy,
            environment.clock,
            environment.random,
        )


@provider(IPluginClass)
class ReadsThenWrites(_BrokenStore):
    """An SQLite store that writes the row that it read, whatever it has become since."""

    database = _HastyDatabase


@provider(IPluginClass)
class AcknowledgesFirst(_BrokenStore):
    """An SQLite store that acknowledges before it commits."""

    database = _EagerDatabase


class SwapsBlindly(PostgreSQLTokenStore):
    """A PostgreSQL store that writes rows whatever they have become since they were read."""

    def __init__(self, config: Any, environment: Environment) -> None:
        comparison = (
            b" AND row.generation = new.old_generation\n    AND row.confirmed = new.old_confirmed"
            b" AND row.issued_at = new.old_issued_at"
        )
        assert comparison in statements._COMPARE_AND_SWAP
        statements._COMPARE_AND_SWAP = statements._COMPARE_AND_SWAP.replace(comparison, b"")
        super().__init__(config, environment)
