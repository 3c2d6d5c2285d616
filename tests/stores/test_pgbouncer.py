"""The PostgreSQL store behind PgBouncer in transaction mode."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from synapse_login_module import testing
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IRateLimits, ITokenStore
from synapse_login_module.model import TokenPolicy
from synapse_login_module.plugin import Environment
from synapse_login_module.stores import PostgreSQLTokenStore
from tests.stores import test_postgresql, test_postgresql_links
from tests.stores.test_postgresql import reactor
from tests.support.pgbouncer import PgBouncer
from tests.support.postgresql import shared_postgresql
from tests.support.stores import start_in_postgresql
from tests.support.waiting import until


def _open(case: TestCase, environment: Environment) -> PostgreSQLTokenStore:
    """Make a store on an empty database, which is stopped after the test."""
    shared_postgresql().new_database("contract")
    pool = PgBouncer(shared_postgresql().port)
    case.addCleanup(pool.remove)
    return start_in_postgresql(case, environment, pool.conninfo("contract"))


class PgBouncerTokenStoreTests(testing.TokenStoreContract, TestCase):
    """The contract, kept over connections that other clients use in between."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        return _open(self, testing.environment(reactor=reactor, clock=clock, policy=policy))


class PgBouncerRateLimitsTests(testing.RateLimitsContract, TestCase):
    """The contract of rate limits, over PgBouncer."""

    def make_limits(self) -> IRateLimits:
        return _open(self, testing.environment(reactor=reactor))


class PooledCase(test_postgresql.PostgreSQLCase):
    """Stores behind a PgBouncer with two connections for their eight.

    :ivar pool: the PgBouncer.
    """

    def setUp(self) -> None:
        self.pool = PgBouncer(self.make_server().port)
        self.addCleanup(self.pool.remove)
        super().setUp()

    def build(self, dsn: str | None = None, **config: Any) -> PostgreSQLTokenStore:
        dsn = dsn or self.pool.conninfo("stores")
        return super().build(dsn, **{"connections": 8, **config})


class PooledRaceTests(PooledCase, test_postgresql.RaceTests):
    """Two stores, with sixteen connections together, over these two."""


class PooledLinkRaceTests(PooledCase, test_postgresql_links.LinkRaceTests):
    """Two stores that link accounts, over these two."""


class PgBouncerTests(PooledCase):
    """Tests of PgBouncer only."""

    async def test_much_at_once(self) -> None:
        """With many more requests than connections, all requests are answered."""
        store = self.open(batch=1)
        pairs = await self.many(store, 200)
        await gatherResults([test_postgresql._refresh(store, each) for each in pairs])

    async def test_nothing_left_behind(self) -> None:
        """The next client of the connection finds its settings unchanged."""
        store = self.open(timeout="7s")
        await self.many(store, 20)
        with shared_postgresql().connect("stores") as before:
            expected = before.execute("SHOW statement_timeout").fetchall()
        import psycopg

        for _ in range(4):
            with psycopg.connect(self.pool.conninfo("stores")) as other:
                self.assertEqual(other.execute("SHOW statement_timeout").fetchall(), expected)

    async def test_statement_timeout(self) -> None:
        """A statement that waits too long for a row is cancelled in the database too."""
        store = self.open(timeout=500)
        pair = (await self.issue(store)).tokens
        with self.server.connect("stores") as other, other.transaction():
            other.execute("SELECT FROM synapse_login_sessions FOR UPDATE")
            await self.unavailable(test_postgresql._refresh(store, pair))
            waiting = "SELECT FROM pg_locks WHERE NOT granted"
            await until(lambda: not self.query(waiting))
        await test_postgresql._refresh(store, pair)

    async def test_restart(self) -> None:
        """After a restart of PgBouncer nothing is lost, and the waiting requests succeed."""
        store = self.open(timeout="30s")
        pairs = await self.many(store, 20)
        self.pool.kill()
        asked = gatherResults([test_postgresql._refresh(store, each) for each in pairs])
        await deferLater(reactor, 0.2)
        self.pool.start()
        await asked

    async def test_no_primary_any_more(self) -> None:
        """When PgBouncer connects to a server that is read-only, its results are rejected."""
        store = self.open(timeout="30s")
        (pair,) = await self.many(store, 1)
        self.query("ALTER DATABASE stores SET default_transaction_read_only = on")
        for pid in self.server.backends():
            self.server.query("SELECT pg_terminate_backend(%s)", [pid])
        asked: list[Deferred[Any]] = [
            store.ping(),
            store.session_for_access_token(pair.access_token, False),
            test_postgresql._refresh(store, pair),
        ]
        await deferLater(reactor, 0.3)
        self.assertEqual([each.called for each in asked], [False] * 3)
        with self.server.connect("stores") as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER DATABASE stores SET default_transaction_read_only = off")
        for pid in self.server.backends():
            self.server.query("SELECT pg_terminate_backend(%s)", [pid])
        await gatherResults(asked)

    def test_statement_mode(self) -> None:
        """In statement mode, without transactions, the start fails with one line that says so."""
        pool = PgBouncer(self.server.port, "statement")
        self.addCleanup(pool.remove)
        with self.assertRaises(ConfigError) as raised:
            self.build(pool.conninfo("stores"))
        self.assertIn("statement pooling", str(raised.exception))
