"""Tests that a backend that hangs delays no other; test_answers has more of them."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any, ClassVar

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import DeferredList
from zope.interface import implementer

from synapse_login_module import testing
from synapse_login_module.errors import Overloaded, ProviderBusy, ProviderUnavailable
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import AccountStatus
from synapse_login_module.passwords import HashingPool
from synapse_login_module.plugin import Environment
from synapse_login_module.providers.cred import CredProvider
from synapse_login_module.providers.files.htpasswd import HtpasswdProvider
from synapse_login_module.providers.http.provider import HTTPProvider
from synapse_login_module.providers.ldap import LDAPProvider
from synapse_login_module.providers.sql.provider import SQLProvider
from synapse_login_module.providers.wrappers.chain import ProviderChain
from tests.providers.backends import HTTPBackend, WildServer
from tests.providers.case import PASSWORD, WONDERLAND, ProviderCase, reactor, user
from tests.providers.http.test_http import MAPPED
from tests.providers.ldap.case import ALICE as ALICE_ENTRY
from tests.providers.ldap.case import SEARCH
from tests.providers.ldap.wire import Listener, Proxy
from tests.providers.sql.test_sql import POSTGRESQL, SQLITE, TABLE
from tests.providers.wrappers.case import guarded
from tests.support.accounts import ALICE
from tests.support.postgresql import shared_postgresql
from tests.support.slapd import Slapd

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


class StarvingCase(ProviderCase):
    """Backends that hang."""

    def wild(self) -> WildServer:
        """A server that takes connections and says nothing."""
        server = WildServer("hang", self.folder())
        self.addCleanup(server.kill)
        return server


class StarvingTests(StarvingCase):
    """A hundred logins that hang, and others that do not."""

    def setUp(self) -> None:
        self.hashing = HashingPool(reactor, 2, 2 * CROWD, new_hashes(4))
        self.hashing.startService()
        self.addCleanup(self.hashing.stopService)

    def environment(self) -> Environment:
        return replace(super().environment(), hashing=self.hashing)

    async def starve(self, hanging: IPasswordProvider, let_go: Callable[[], object]) -> None:
        """Have the crowd log in where it hangs, and alice where it does not.

        :param let_go: ends the hanging.
        """
        self.write("passwords", f"alice:{WONDERLAND}")
        mine = self.build(HtpasswdProvider, {"path": "passwords"})
        chain = ProviderChain([mine, guarded(hanging, reactor, timeout=120)], self.hashing)
        crowd = [chain.authenticate(user(f"user{number}"), "x") for number in range(CROWD)]
        for _ in range(20):
            account = await chain.authenticate(user("alice"), PASSWORD)
            assert account is not None
            self.assertEqual((account.user_id, account.provider), (ALICE, "htpasswd"))
            status = await chain.account_status("htpasswd", account.subject)
            self.assertIs(status, AccountStatus.ACTIVE)
        shed = [each for each in crowd if each.called]
        self.assertLess(len(shed), CROWD)
        for each in shed:
            self.failureResultOf(each, ProviderBusy)
        let_go()
        await DeferredList([each for each in crowd if each not in shed], consumeErrors=True)

    async def test_silent_postgresql(self) -> None:
        """A server that takes connections and says nothing."""
        server = self.wild()
        config = {
            "postgresql": f"host=127.0.0.1 port={server.port} user=x dbname=x",
            "queries": POSTGRESQL,
            "timeout": "1m",
        }
        await self.starve(self.build(SQLProvider, config), server.kill)

    async def test_cred(self) -> None:
        """A checker that blocks its threads."""
        BlockingChecker.free = threading.Event()
        self.addCleanup(BlockingChecker.free.set)
        config = {"checker": f"{__name__}.BlockingChecker", "threads": 2}
        await self.starve(self.build(CredProvider, config), BlockingChecker.free.set)


PATIENT = {"connect_timeout": "20s", "timeout": "30s"}
"""Timeouts for backends that never answer, longer than the tests take."""


class FullCase(StarvingCase):
    """Providers all of whose places are taken by logins that hang."""

    async def fill(self, hanging: IPasswordProvider, room: int) -> None:
        """Have as many log in as there are places; they go away when the test is over."""
        for number in range(room):
            login = hanging.authenticate(user(f"user{number}"), "x")
            self.assertNoResult(login)
            login.addErrback(lambda _: None)
            self.addCleanup(login.cancel)
        await self.fails(hanging.authenticate(user("one-more"), "x"), ProviderBusy)

    def ldap(self, server: Listener | Slapd, **more: Any) -> LDAPProvider:
        """A provider with three places for logins, on one connection."""
        times = {**PATIENT, "read_timeout": "20s"}
        config = {**SEARCH, "servers": [server.url], "connections": 1, "queue": 2, **times, **more}
        provider: LDAPProvider = self.build(LDAPProvider, config)
        return provider


class FullTests(FullCase):
    """Users of the other providers of the chain still log in."""

    async def pass_over(self, hanging: IPasswordProvider, room: int) -> None:
        """Have all places taken: alice, whom the next provider knows, logs in."""
        await self.fill(hanging, room)
        self.write("passwords", f"alice:{WONDERLAND}")
        mine = self.build(HtpasswdProvider, {"path": "passwords"})
        chain = ProviderChain([hanging, mine], testing.FakeHashing(), passed_over=[hanging.name])
        account = await chain.authenticate(user("alice"), PASSWORD)
        assert account is not None
        self.assertEqual((account.user_id, account.provider), (ALICE, "htpasswd"))
        await self.fails(chain.authenticate(user("nobody"), "x"), ProviderUnavailable)

    async def test_ldap(self) -> None:
        """A directory whose queue is full is passed over."""
        silent = Listener()
        self.addCleanup(silent.stop)
        await self.pass_over(self.ldap(silent), 3)

    async def test_http(self) -> None:
        """So is an HTTP service that has as many requests as it may have."""
        config = {"endpoint": self.wild().url, "connections": 3, **PATIENT}
        await self.pass_over(self.build(HTTPProvider, config), 3)

    async def test_sql(self) -> None:
        """So is a database."""
        config = {
            "postgresql": f"host=127.0.0.1 port={self.wild().port} user=x dbname=x",
            "queries": POSTGRESQL,
            "connections": 1,
            "timeout": "2s",
        }
        await self.pass_over(self.build(SQLProvider, config), 65)

    async def test_hashing(self) -> None:
        """When the hashing pool is full, which all providers share, no provider is passed over."""
        hashing = testing.FakeHashing()
        environment = replace(self.environment(), hashing=hashing)
        path = self.folder() / "accounts.db"
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(TABLE)
            statement = "INSERT INTO accounts (name, hash) VALUES ('alice', ?)"
            connection.execute(statement, [WONDERLAND])
        first = self.build(SQLProvider, {"sqlite": str(path), "queries": SQLITE}, environment)
        second = testing.FakeProvider({ALICE: "another"})
        chain = ProviderChain([first, second], hashing, passed_over=[first.name])
        hashing.failure = Overloaded(1.0)
        await self.fails(chain.authenticate(user("alice"), "another"), Overloaded)


class StatusTests(FullCase):
    """Logins that hang leave room to look at accounts."""

    async def test_ldap(self) -> None:
        """A directory that hangs for some names is asked for others' statuses."""
        slapd = Slapd()
        self.addCleanup(slapd.remove)
        slapd.fill(ALICE_ENTRY)
        slapd.start()
        proxy = Proxy(slapd.port)
        self.addCleanup(proxy.stop)
        proxy.watch = lambda data: b"user0" not in data
        provider = self.ldap(proxy)
        await self.fill(provider, 3)
        self.assertIs(await provider.account_status(ALICE), AccountStatus.ACTIVE)

    async def test_http(self) -> None:
        """A service that does not answer logins is asked for statuses."""
        backend = HTTPBackend()
        self.addCleanup(backend.stop)
        backend.service.held = []
        backend.service.holds = "/login"
        config = {
            "url": f"{backend.url}/login",
            "status_url": f"{backend.url}/status/{{user_id}}",
            "connections": 3,
            **PATIENT,
            **MAPPED,
        }
        provider = self.build(HTTPProvider, config)
        await self.fill(provider, 3)
        self.assertIs(await provider.account_status(ALICE), AccountStatus.ACTIVE)

    async def test_sql(self) -> None:
        """A database in which the statement of the logins hangs is asked by that for statuses."""
        server = shared_postgresql()
        server.query("DROP TABLE IF EXISTS accounts")
        server.query(TABLE)
        server.query("INSERT INTO accounts (name, hash) VALUES ('alice', %s)", [WONDERLAND])
        slow = POSTGRESQL["by_user"].replace("FROM accounts", "FROM accounts, pg_sleep(1000)")
        config = {
            "postgresql": server.conninfo,
            "queries": {**POSTGRESQL, "by_user": slow},
            "connections": 1,
            "timeout": "30s",
        }
        provider = self.build(SQLProvider, config)
        await self.fill(provider, 65)
        self.assertIs(await provider.account_status(ALICE), AccountStatus.ACTIVE)
