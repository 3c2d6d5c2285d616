"""Tests for imported sessions in the stores."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from synapse_login_module import testing
from synapse_login_module.errors import UnknownToken
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import ImportOutcome, TokenPolicy
from synapse_login_module.stores import MemoryTokenStore, SQLiteTokenStore
from synapse_login_module.stores.imported import LIFETIME, ImportingTokenStore
from synapse_login_module.stores.memory import MemoryDatabase
from synapse_login_module.stores.memory_imported import MemoryImportedTokens
from synapse_login_module.testing.importing import imported_session
from synapse_login_module.tokens.format import KEY_SIZE, KeyRing
from tests.support.stores import start_in_postgresql


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
        return start_in_postgresql(self, testing.environment(clock=clock, policy=policy))


class LookingTests(SynchronousTestCase):
    """Tests of when the store looks for imported tokens."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        self.random: Callable[[int], bytes] = os.urandom
        self.database = MemoryDatabase()
        self.store = self.open({1: b"1" * KEY_SIZE})
        self.asked: list[str] = []

    def open(self, keys: dict[int, bytes]) -> ImportingTokenStore:
        """Make a store over the same rows with these keys, as after a restart."""
        store = ImportingTokenStore(
            self.database,
            KeyRing(keys),
            TokenPolicy(),
            self.clock.seconds,
            lambda size: self.random(size),
        )
        store.imported = MemoryImportedTokens(self.database, self.database.notes.is_owed)
        return store

    def count(self, store: ImportingTokenStore) -> None:
        """Count the queries of a store from now on."""
        for name in ("any", "find"):
            self.patch(store.imported, name, self.counting(name, getattr(store.imported, name)))

    def counting(self, name: str, query: Callable[..., Any]) -> Callable[..., Any]:
        """Return a query that is counted."""

        def counted(*given: Any) -> Any:
            self.asked.append(name)
            return query(*given)

        return counted

    def reject(self, token: str) -> None:
        """Present an access token that is not known."""
        self.failureResultOf(self.store.session_for_access_token(token, False), UnknownToken)

    def test_own_tokens(self) -> None:
        """A token of this server costs no further query."""
        login = self.successResultOf(self.store.issue("@a:b", None, None, True, True))
        self.count(self.store)
        pair = login.tokens
        self.successResultOf(self.store.session_for_access_token(pair.access_token, False))
        self.successResultOf(
            testing.refresh(self.store, pair.refresh_token or "", pair.access_token, True)
        )
        self.reject("slmat_" + "A" * 64)
        self.assertEqual(self.asked, [])

    def test_none(self) -> None:
        """Without imported tokens, text that is no token costs one query a second at most."""
        self.count(self.store)
        for _ in range(3):
            self.reject("syt_alice")
            self.reject("x" * 5000)
        self.assertEqual(self.asked, ["any"])
        self.clock.advance(LIFETIME)
        self.reject("syt_alice")
        self.assertEqual(self.asked, ["any"] * 2)

    def test_imported_elsewhere(self) -> None:
        """What another process imports is known within a second, and then found at once."""
        self.reject("syt_alice")
        other = self.open({1: b"1" * KEY_SIZE})
        other.imported = self.store.imported
        self.successResultOf(other.import_sessions([imported_session("syt_alice")]))
        self.clock.advance(LIFETIME)
        self.count(self.store)
        for _ in range(3):
            self.successResultOf(self.store.session_for_access_token("syt_alice", False))
        self.assertEqual(self.asked, ["any", "find"])

    def test_key(self) -> None:
        """Imported tokens do not depend on the key that was there when they were imported."""
        self.successResultOf(self.store.import_sessions([imported_session("syt_a", "syr_a")]))
        imported = self.store.imported
        self.store = self.open({2: b"2" * KEY_SIZE})
        self.store.imported = imported
        self.successResultOf(self.store.session_for_access_token("syt_a", False))
        pair = self.successResultOf(testing.refresh(self.store, "syr_a", "syt_a", True))
        self.successResultOf(self.store.session_for_access_token(pair.access_token, False))

    def test_taken_number(self) -> None:
        """A session whose number is taken gets another one."""
        numbers = iter([b"\0\0\0\2", b"\0\0\0\2", b"\0\0\0\4", b"\0\0\0\2", b"\0\0\0\6"])
        self.random = lambda size: next(numbers) if size == 4 else bytes(size)
        wanted = [imported_session("syt_a", device="A"), imported_session("syt_b", device="B")]
        outcomes = self.successResultOf(self.store.import_sessions(wanted))
        self.assertEqual(outcomes, [ImportOutcome.TAKEN] * 2)
        third = [imported_session("syt_c", device="C")]
        self.successResultOf(self.store.import_sessions(third))
        found = self.successResultOf(self.store.sessions(None))
        self.assertEqual(sorted(int(each.handle) & 0xF for each in found), [1, 2, 3])
