"""PostgreSQL is killed, held and cut off while clients log in, refresh, race and log out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.chaos.case import health
from tests.chaos.client import RecordingClient
from tests.chaos.history import History, Invariant, Outcome, Pair, Use
from tests.chaos.postgresql import TIMEOUT, PostgreSQLChaosCase
from tests.support.wire import Wire, connect, request

reactor = cast(Any, global_reactor)

T = TypeVar("T")

_MANY = 400
_OUTAGE = b"Sessions cannot be kept at the moment\n"
_MOST_GROWTH = 30_000_000
"""Bytes that a server may grow by while it holds all that it may hold."""


class PostgreSQLChaosTests(PostgreSQLChaosCase):
    """Tests that acknowledged requests survive failures of the database."""

    async def test_killed(self) -> None:
        """PostgreSQL is killed with all its processes, and started again."""
        storm = self.storm(await self.serve())

        async def strike() -> None:
            self.database.kill()
            await deferToThread(self.database.start)

        await self.survives(storm, strike)

    async def test_held(self) -> None:
        """PostgreSQL hangs for longer than requests wait, and then goes on."""
        storm = self.storm(await self.serve())
        self.addCleanup(self.database.release)

        async def strike() -> None:
            self.database.hold()
            await deferLater(reactor, TIMEOUT * storm.random.uniform(0.2, 1.2))
            self.database.release()

        await self.survives(storm, strike)

    async def test_cut_after_the_commit(self) -> None:
        """Connections are cut between the commit and the answer: no client has to know."""
        storm = self.storm(await self.serve())

        async def strike() -> None:
            made = self.proxy.made
            self.proxy.cuts = 5
            while self.proxy.made < made + 5:
                await deferLater(reactor, 0.01)

        await self.survives(storm, strike)
        counts = Counter((each.use, each.outcome) for each in storm.history.requests)
        for use in (Use.STRICT, Use.LENIENT):
            self.assertEqual(counts[use, Outcome.UNKNOWN], 0)

    async def test_servers_killed(self) -> None:
        """One of two servers is killed while both serve the same sessions."""
        servers = await self.serve(2)
        storm = self.storm(servers)

        async def strike() -> None:
            victim = storm.random.choice(servers)
            victim.kill()
            await victim.start()

        await self.survives(storm, strike)

    async def test_two_servers_race(self) -> None:
        """Two servers are given the same pair at the same time, again and again."""
        storm = self.storm(await self.serve(2), racing=0.8)
        await self.survives(storm, lambda: deferLater(reactor, 1.0))


class SeededMistakeTests(PostgreSQLChaosCase):
    """The same storms find a mistake where there is one."""

    async def test_acknowledges_first(self) -> None:
        """Killing PostgreSQL finds a commit that was acknowledged before it was durable."""
        self.database.query("ALTER SYSTEM SET synchronous_commit = off")
        self.database.query("ALTER SYSTEM SET wal_writer_delay = '10s'")
        self.database.query("SELECT pg_reload_conf()")
        (server,) = await self.serve()
        self.database.query("CHECKPOINT")  # the tables are not to be lost
        storm = self.storm([server])

        async def strike() -> None:
            # A row that is behind catches up with its tokens. A login that is lost cannot.
            for _ in range(8):
                await storm.log_in()
            self.database.kill()
            await deferToThread(self.database.start)
            await self.healthy(server)

        found = await storm.search({Invariant.WORKS}, strike)
        self.assertIn(Invariant.WORKS, found)

    async def test_reads_then_writes(self) -> None:
        """Racing on two servers finds a refresh that does not compare before it swaps."""
        servers = await self.serve(2, "tests.chaos.broken.SwapsBlindly")
        storm = self.storm(servers, racing=0.8)
        found = await storm.search({Invariant.STAYS_DEAD}, lambda: deferLater(reactor, 0.5))
        self.assertIn(Invariant.STAYS_DEAD, found)


class StalledPostgreSQLTests(PostgreSQLChaosCase):
    """Tests of servers while PostgreSQL hangs."""

    async def test_bounded(self) -> None:
        """``/health`` answers, all requests are 503 for their deadline or because too many wait,
        in plain text where they refresh, and memory stays bounded; afterwards all goes on.
        """
        (server,) = await self.serve()
        client = RecordingClient(server.port, History(), outages=True)
        self.addCleanup(client.close)
        pair = await self.until(lambda: client.log_in("phone"))
        asked = request("POST", "/_matrix/client/v3/refresh", {"refresh_token": pair.refresh})
        self.database.hold()
        self.addCleanup(self.database.release)
        before = server.resident()
        for _ in range(3):
            # Connect first: connections beyond the backlog are retried at growing intervals.
            wires = [await connect(server.port) for _ in range(_MANY)]
            for each in wires:
                self.addCleanup(self.close, each)
                each.send(asked)
            answers = await gatherResults([each.answer() for each in wires])
            self.assertEqual(answers, [(503, _OUTAGE)] * _MANY)
            self.assertEqual(await health(server), 503)
            await gatherResults([self.close(each) for each in wires])
        self.assertLess((server.resident() - before) * 1024, _MOST_GROWTH)
        for reason in (f"did not answer in {TIMEOUT} seconds", "requests wait for it already"):
            self.assertIn(reason, server.log())
        self.database.release()
        await self.healthy(server)
        await self.until(lambda: self.accepted(client, pair))

    @staticmethod
    def close(wire: Wire) -> Deferred[None]:
        """Close a connection, if it is open."""
        return Deferred.fromCoroutine(wire.abort())

    @staticmethod
    async def accepted(client: RecordingClient, pair: Pair) -> bool:
        """Whether a pair is good for a refresh; it is not refused, in any case."""
        used = await client.use("phone", pair, Use.LENIENT)
        assert used.outcome is not Outcome.REFUSED
        return used.outcome is Outcome.ACCEPTED

    @staticmethod
    async def until(attempt: Callable[[], Awaitable[T | None]]) -> T:
        """Try until it comes to something: on a busy machine any request may be 503."""
        while not (result := await attempt()):
            pass
        return result
