"""Tests for what stores keep for a homeserver that delegates to this server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from synapse_login_module import testing
from synapse_login_module.errors import ReusedToken
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import Claim, OwedDeletions, TokenPolicy
from synapse_login_module.plugin import Environment
from synapse_login_module.stores import MemoryTokenStore, SQLiteTokenStore
from synapse_login_module.stores.postgresql.store import PostgreSQLTokenStore
from tests.stores.test_stores import refresh_token
from tests.support.postgresql import shared_postgresql

ALICE = "@alice:example.com"


class InMemory(TestCase):
    """Makes stores in memory."""

    def build(self, environment: Environment) -> Any:
        """Make a store."""
        return MemoryTokenStore(None, environment)


class InFile(TestCase):
    """Makes stores in files."""

    def build(self, environment: Environment) -> Any:
        """Make a store."""
        store = SQLiteTokenStore(Path(self.mktemp()), replace(environment, reactor=reactor))
        store.startService()
        self.addCleanup(store.stopService)
        return store


class InPostgreSQL(TestCase):
    """Makes stores in PostgreSQL."""

    def build(self, environment: Environment) -> Any:
        """Make a store."""
        config = PostgreSQLTokenStore.parse_config(
            {"dsn": shared_postgresql().new_database("delegation")}, Path()
        )
        store = PostgreSQLTokenStore(config, replace(environment, reactor=reactor))
        store.startService()
        self.addCleanup(store.stopService)
        return store


class DelegatedContract(testing.DelegatedStoreContract, testing.NameReservationsContract):
    """Tests of stores of a server that a homeserver delegates to."""

    build: Any

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        store: ITokenStore = self.build(
            testing.environment(clock=clock, policy=policy, delegated=True)
        )
        return store


class AloneContract(testing.TokenStoreContract):
    """Tests of stores of a server that stands alone.

    It keeps the contract of a token store without any reservation.
    """

    build: Any

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        store: ITokenStore = self.build(testing.environment(clock=clock, policy=policy))
        return store

    async def test_notes_nothing(self) -> None:
        """However sessions end, no device is noted."""
        given, clock = await self._store(
            reuse_interval=0, session=100_000, keep_ended=1000, login_token=1000
        )
        store: Any = given
        for number in range(3):
            await store.issue(ALICE, f"D{number}", None, True, True, claim=Claim(("ldap",), "1"))
        pair = (await store.issue(ALICE, "REUSED", None, True, True)).tokens
        await testing.refresh(store, refresh_token(pair), None, True)
        with self.assertRaises(ReusedToken):
            await testing.refresh(store, refresh_token(pair), None, True)
        await store.revoke((await store.sessions(ALICE))[0])
        clock.advance(2)
        self.assertEqual((await store.prune(None, 100, 100)).sessions, 1)
        await store.expire_all()
        clock.advance(2)
        self.assertEqual((await store.prune(None, 100, 100)).sessions, 2)
        await store.issue(ALICE, "LAST", None, True, True)
        await store.revoke_all(ALICE, device_grace=1)
        clock.advance(1000)
        self.assertEqual(await store.owed_deletions(), OwedDeletions(0, None))
        self.assertEqual(await store.claim_deletions(9), [])


class MemoryDelegatedTests(DelegatedContract, InMemory):
    """In memory."""


class SQLiteDelegatedTests(DelegatedContract, InFile):
    """In a file."""


class PostgreSQLDelegatedTests(DelegatedContract, InPostgreSQL):
    """In PostgreSQL."""


class MemoryAloneTests(AloneContract, InMemory):
    """In memory."""


class SQLiteAloneTests(AloneContract, InFile):
    """In a file."""


class PostgreSQLAloneTests(AloneContract, InPostgreSQL):
    """In PostgreSQL."""
