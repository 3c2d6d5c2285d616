"""Tests for imported sessions in the stores."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from synapse_login_module import testing
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import TokenPolicy
from synapse_login_module.stores import MemoryTokenStore, SQLiteTokenStore
from synapse_login_module.stores.postgresql.store import PostgreSQLTokenStore
from tests.support.postgresql import shared_postgresql


class MemoryImportTests(testing.ImportsSessionsContract, TestCase):
    """The contract, kept in memory."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        return MemoryTokenStore(None, testing.environment(clock=clock, policy=policy))


class SQLiteImportTests(testing.ImportsSessionsContract, TestCase):
    """The contract, kept in a file."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        environment = testing.environment(reactor=reactor, clock=clock, policy=policy)
        store = SQLiteTokenStore(Path(self.mktemp()), environment)
        store.startService()
        self.addCleanup(store.stopService)
        return store


class PostgreSQLImportTests(testing.ImportsSessionsContract, TestCase):
    """The contract, kept in PostgreSQL."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        dsn = shared_postgresql().new_database("imports")
        config = PostgreSQLTokenStore.parse_config({"dsn": dsn}, Path())
        environment = testing.environment(reactor=reactor, clock=clock, policy=policy)
        store = PostgreSQLTokenStore(config, environment)
        store.startService()
        self.addCleanup(store.stopService)
        return store
