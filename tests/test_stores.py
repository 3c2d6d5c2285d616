"""Tests for the token stores."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from synapse_login_module import testing
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import TokenPolicy
from synapse_login_module.stores import MemoryTokenStore, SQLiteTokenStore


class MemoryTokenStoreTests(testing.TokenStoreContract, TestCase):
    """The contract, kept in memory."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        return MemoryTokenStore(None, testing.environment(clock=clock, policy=policy))


class SQLiteTokenStoreTests(testing.TokenStoreContract, TestCase):
    """The contract, kept in a file."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        path = Path(self.mktemp())
        environment = testing.environment(reactor=reactor, clock=clock, policy=policy)
        store = SQLiteTokenStore(path, environment)
        store.startService()
        self.addCleanup(store.stopService)
        return store
