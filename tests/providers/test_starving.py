"""Tests that nobody else waits while a backend hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from zope.interface import implementer

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus
from synapse_login_module.passwords import HashingPool
from synapse_login_module.plugin import Environment
from synapse_login_module.providers.chain import ProviderChain
from synapse_login_module.providers.cred import CredProvider
from synapse_login_module.providers.deadline import DeadlineProvider
from synapse_login_module.providers.htpasswd import HtpasswdProvider
from synapse_login_module.providers.http import HTTPProvider
from synapse_login_module.providers.sql import SQLProvider
from tests.postgresql import shared_postgresql
from tests.providers.helpers import (
    ALICE,
    PASSWORD,
    WONDERLAND,
    ProviderCase,
    WildServer,
    reactor,
    user,
)
from tests.providers.test_sql import POSTGRESQL

CROWD = 100


@implementer(ICredentialsChecker)
class BlockingChecker:
    """Blocks its thread until it is let go."""

    credentialInterfaces = (IUsernamePassword,)
    free: ClassVar[threading.Event]

    def requestAvatarId(self, credentials: Any) -> Any:
        """Block."""
        self.free.wait()
        return credentials.username


class StarvingTests(ProviderCase):
    """A hundred logins that hang, and others that do not."""

    def setUp(self) -> None:
        self.hashing = HashingPool(reactor, 2, 2 * CROWD, 4)
        self.hashing.startService()
        self.addCleanup(self.hashing.stopService)

    def environment(self) -> Environment:
        return replace(super().environment(), hashing=self.hashing)

    async def starve(self, hanging: IPasswordProvider, let_go: Callable[[], object]) -> None:
        """Have the crowd log in where it hangs, and alice where it does not.

        :param let_go: ends the hanging, where nothing else does.
        """
        self.write("passwords", f"alice:{WONDERLAND}")
        mine = self.build(HtpasswdProvider, {"path": "passwords"})
        chain = ProviderChain([mine, DeadlineProvider(hanging, 1.5, reactor)], self.hashing)
        crowd = [chain.authenticate(user(f"user{number}"), "x") for number in range(CROWD)]
        for _ in range(20):
            account = await chain.authenticate(user("alice"), PASSWORD)
            self.assertEqual(account, Account(ALICE, provider="htpasswd"))
            self.assertIs(await chain.account_status(ALICE), AccountStatus.ACTIVE)
        waiting = [each for each in crowd if not each.called]
        self.assertGreater(len(waiting), 0)
        for each in crowd:
            await self.fails(each, ProviderUnavailable)
        let_go()

    async def test_http(self) -> None:
        """An HTTP service that never answers."""
        server = WildServer("hang", self.folder())
        self.addCleanup(server.kill)
        config = {"endpoint": server.url, "timeout": 1000, "connections": CROWD}
        await self.starve(self.build(HTTPProvider, config), lambda: None)

    async def test_postgresql(self) -> None:
        """A table that somebody has locked."""
        server = shared_postgresql()
        server.query("DROP TABLE IF EXISTS accounts")
        server.query("CREATE TABLE accounts (name TEXT, hash TEXT)")
        holder = server.connect()
        self.addCleanup(holder.close)
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE accounts")
        query = "SELECT name AS localpart, hash AS password_hash FROM accounts WHERE name ="
        config = {
            "postgresql": server.conninfo,
            "queries": {"by_user": f"{query} %(localpart)s"},
            "timeout": 1000,
        }
        await self.starve(self.build(SQLProvider, config), lambda: None)

    async def test_silent_postgresql(self) -> None:
        """A server that takes connections and says nothing."""
        server = WildServer("hang", self.folder())
        self.addCleanup(server.kill)
        config = {
            "postgresql": f"host=127.0.0.1 port={server.port} user=x dbname=x",
            "queries": POSTGRESQL,
            "timeout": 1000,
        }
        await self.starve(self.build(SQLProvider, config), lambda: None)

    async def test_cred(self) -> None:
        """A checker that blocks its threads."""
        BlockingChecker.free = threading.Event()
        self.addCleanup(BlockingChecker.free.set)
        config = {"checker": f"{__name__}.BlockingChecker", "threads": 2}
        await self.starve(self.build(CredProvider, config), BlockingChecker.free.set)
