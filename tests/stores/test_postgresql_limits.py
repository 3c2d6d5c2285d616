"""Tests for the count of attempts that servers on one PostgreSQL have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, DeferredList
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from synapse_login_module import testing
from synapse_login_module.errors import RateLimited
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.model import Bucket, Rate
from synapse_login_module.stores.postgresql.database import PostgreSQLDatabase
from synapse_login_module.stores.postgresql.limits import PostgreSQLRateLimits
from synapse_login_module.stores.postgresql.store import PostgreSQLTokenStore
from tests.stores.test_postgresql import PostgreSQLCase
from tests.support.postgresql import PostgreSQL, shared_postgresql
from tests.support.waiting import until

reactor = cast(Any, global_reactor)

SLOW = Rate(0.001, 3)
ALICE = Bucket("failures", ("alice", "192.0.2.1"), SLOW)
BOB = Bucket("failures", ("bob", "192.0.2.1"), SLOW)


class PostgreSQLRateLimitsTests(testing.RateLimitsContract, TestCase):
    """The contract, kept in PostgreSQL."""

    def make_limits(self) -> IRateLimits:
        dsn = shared_postgresql().new_database("limits")
        config = PostgreSQLTokenStore.parse_config({"dsn": dsn}, Path())
        store = PostgreSQLTokenStore(config, testing.environment(reactor=reactor))
        store.startService()
        self.addCleanup(store.stopService)
        return store


class SharedLimitsTests(PostgreSQLCase):
    """Two servers, as it were, on one database."""

    def setUp(self) -> None:
        super().setUp()
        self.first, self.second = self.open(), self.open()

    async def wait(self, store: IRateLimits, *buckets: Bucket) -> float:
        """How long an attempt that is refused is told to wait."""
        with self.assertRaises(RateLimited) as raised:
            await store.consume(buckets)
        wait: float = raised.exception.retry_after
        return wait

    def pass_time(self, seconds: float) -> None:
        """Let ``seconds`` pass since the last change."""
        self.query("UPDATE synapse_login_limits SET full_at = full_at - %s", seconds)

    def rows(self) -> int:
        """How many buckets are not full, or not swept yet."""
        ((count,),) = self.query("SELECT count(*) FROM synapse_login_limits")
        return cast(int, count)

    async def test_one_count(self) -> None:
        """Of what is asked of both at once as much is allowed as of one."""
        for store in (self.first, self.second):
            await store.ping()
        asked = [store.consume([ALICE]) for _ in range(20) for store in (self.first, self.second)]
        outcomes = await DeferredList(asked, consumeErrors=True)
        self.assertEqual(sum(allowed for allowed, _ in outcomes), 3)
        await self.wait(self.first, ALICE)
        await self.wait(self.second, ALICE)
        await self.first.consume([BOB])

    async def test_many_buckets(self) -> None:
        """Attempts that have buckets in common, in whatever order, do not hold each other up."""
        plenty = Rate(0.001, 1000)
        buckets = [Bucket("failures", (str(number),), plenty) for number in range(4)]
        asked = [
            store.consume(each)
            for _ in range(25)
            for store, each in ((self.first, buckets), (self.second, buckets[::-1]))
        ]
        outcomes = await DeferredList(asked, consumeErrors=True)
        self.assertTrue(all(allowed for allowed, _ in outcomes))
        self.pass_time(-950_000)
        await self.wait(self.first, buckets[0])

    async def test_gone_away(self) -> None:
        """Tokens of a rejected attempt are refunded, even when its Deferred was cancelled."""
        empty = Bucket("failures_anywhere", ("alice",), Rate(0.001, 1))
        await self.first.consume([empty])
        for _ in range(3):
            asked = self.first.consume([ALICE, empty])
            reactor.callLater(0, asked.cancel)  # PostgreSQL is being asked then
            await self.assertFailure(asked, CancelledError, RateLimited)
        # It finishes what is under way. (A refund would not wait for that: it may come before an
        # attempt on another connection, which is let through then.)
        await self.first.stopService()
        for _ in range(3):
            await self.second.consume([ALICE])

    async def test_nothing_lent(self) -> None:
        """An attempt that a network's own bucket refuses takes nothing that strangers share, not
        even until it is undone.
        """
        own = Bucket("address", ("192.0.2.1",), Rate(0.001, 1))
        await self.first.consume([own])
        asked = [self.first.consume([ALICE, own]) for _ in range(20)]
        asked += [self.second.consume([ALICE]) for _ in range(3)]
        outcomes = await DeferredList(asked, consumeErrors=True)
        self.assertEqual([allowed for allowed, _ in outcomes], [False] * 20 + [True] * 3)

    async def test_refill(self) -> None:
        """A bucket refills with time, and tells when."""
        for _ in range(3):
            await self.first.consume([ALICE])
        self.pass_time(250)
        wait = await self.wait(self.second, ALICE)
        self.assertGreater(wait, 700)
        self.assertLessEqual(wait, 750)
        self.pass_time(760)
        await self.first.consume([ALICE])
        self.pass_time(10**9)
        for _ in range(3):
            await self.first.consume([ALICE])
        await self.wait(self.first, ALICE)

    async def test_clock_stepped_back(self) -> None:
        """A bucket is never emptier than empty, though the database's clock stepped back a year."""
        await self.first.consume([ALICE])
        self.pass_time(-365 * 86400)
        self.assertLessEqual(await self.wait(self.first, ALICE), 1000)
        self.pass_time(1001)
        await self.second.consume([ALICE])

    async def test_fast(self) -> None:
        """A limit that is as good as none lets everything through."""
        fast = Bucket("address", ("192.0.2.1",), Rate(1e6, 1_000_000))
        for _ in range(20):
            await self.first.consume([fast])

    async def test_any_key(self) -> None:
        """Whatever clients call themselves, they are told apart, and nothing of it is stored."""
        names = ("", "\0", "a\0b", "\ud800", "\N{SNOWMAN}", "x" * 600, '"]["')
        single = [Bucket("failures", (name,), Rate(0.001, 1)) for name in names]
        double = Bucket("failures", ("a", "b"), Rate(0.001, 1))
        await self.first.consume([*single, double])
        for bucket in (*single, double):
            await self.wait(self.second, bucket)
        sizes = self.query("SELECT DISTINCT length(bucket) FROM synapse_login_limits")
        self.assertEqual(sizes, [(16,)])

    async def test_full_buckets_go(self) -> None:
        """The rows of buckets that are full again do not stay."""
        fast = Rate(1000, 3)
        for number in range(1001):
            await self.first.consume([Bucket("address", (str(number),), fast)])
        await until(lambda: self.rows() < 100)

    async def test_few_attempts(self) -> None:
        """Unused rows go too when every server is restarted before it has counted many."""
        fast = Rate(1000, 3)
        await self.first.consume([Bucket("address", (str(number),), fast) for number in range(10)])
        await self.second.consume([ALICE])
        await until(lambda: self.rows() == 1)

    async def test_whose_row_is_gone(self) -> None:
        """A bucket whose row is swept while an attempt holds a token counts as full."""
        await self.first.consume([ALICE])
        self.query("DELETE FROM synapse_login_limits")
        await self.first.refund([ALICE])
        for _ in range(3):
            await self.first.consume([ALICE])
        await self.wait(self.first, ALICE)


class HeldLimitsTests(PostgreSQLCase):
    """A database that does not answer."""

    def make_server(self) -> PostgreSQL:
        server = PostgreSQL()
        self.addCleanup(server.remove)
        return server

    def limits(self, seconds: Callable[[], float]) -> PostgreSQLRateLimits:
        """Counts that remember refusals by this clock, and ask one thing after another."""
        config = PostgreSQLTokenStore.parse_config({"dsn": self.dsn, "connections": 1}, Path())
        self.build()  # the tables
        database = PostgreSQLDatabase(config.connect, reactor, config.pool_limits)
        limits = PostgreSQLRateLimits(database, seconds)
        self.addCleanup(limits.stop)
        return limits

    async def test_refused_without_asking(self) -> None:
        """A rejected bucket is rejected again without asking the database, until a refund."""
        limits = self.limits(Clock().seconds)
        for _ in range(3):
            await limits.consume([ALICE])
        with self.assertRaises(RateLimited):
            await limits.consume([ALICE])
        self.server.hold()
        try:
            refusals = [
                self.failureResultOf(limits.consume([ALICE]), RateLimited) for _ in range(100)
            ]
            self.assertGreater(refusals[-1].value.retry_after, 900)
            refunded = limits.refund([ALICE])
            taken = limits.consume([ALICE])
            self.assertNoResult(taken)
        finally:
            self.server.release()
        await refunded
        await taken

    async def test_asked_again(self) -> None:
        """A second later the database is asked again, because another server may have refunded."""
        clock = Clock()
        limits, other = self.limits(clock.seconds), self.limits(clock.seconds)
        for _ in range(3):
            await limits.consume([ALICE])
        with self.assertRaises(RateLimited):
            await other.consume([ALICE])
        await limits.refund([ALICE])
        with self.assertRaises(RateLimited):
            await other.consume([ALICE])
        clock.advance(1)
        await other.consume([ALICE])

    async def test_unavailable(self) -> None:
        """Attempts are not let through uncounted: they fail in time."""
        store = self.open(timeout=1000)
        await store.ping()
        self.server.hold()
        try:
            for method in (store.consume, store.refund):
                await self.unavailable(method([ALICE]))
        finally:
            self.server.release()
