"""A standby takes over from the primary while clients log in, refresh, race and log out.

It has everything before that is acknowledged: so nothing that a client was told may be lost.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.chaos.case import ROUNDS, SHORT, health
from tests.chaos.history import Invariant, Outcome
from tests.chaos.postgresql import TIMEOUT, PostgreSQLChaosCase
from tests.support.ports import free_ports
from tests.support.postgresql import PostgreSQL

reactor = cast(Any, global_reactor)


class FailoverTests(PostgreSQLChaosCase):
    """Two addresses for PostgreSQL, which the servers know, and a primary at one of them.

    :ivar standby: the server at the other address, if it follows the primary.
    :ivar old: otherwise, the former primary at that address.
    """

    rounds = 1 if ROUNDS <= SHORT else ROUNDS // 2

    def setUp(self) -> None:
        self.ports = free_ports(2)
        self.database = PostgreSQL(port=self.ports[0])
        self.addCleanup(self.database.remove)
        self.standby: PostgreSQL | None = None
        self.old: PostgreSQL | None = None

    @property
    def dsn(self) -> str:
        """How the servers connect."""
        ports = ",".join(map(str, self.ports))
        return f"host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname=postgres"

    def follow(self) -> None:
        """Have a standby in the place of the primary of before."""
        if self.old is not None:
            self.old.kill()
            self.old.remove()
        (port,) = set(self.ports) - {self.database.port}
        self.standby = PostgreSQL(primary=self.database, port=port)
        self.addCleanup(self.standby.remove)

    def promote(self) -> None:
        """Have the standby be the primary."""
        assert self.standby is not None
        self.standby.promote()
        self.old, self.database, self.standby = self.database, self.standby, None

    async def test_killed(self) -> None:
        """The primary is killed: until the standby is promoted all is 503, and then all goes on."""
        servers = await self.serve(2)
        storm = self.storm(servers)

        async def strike() -> None:
            await deferToThread(self.follow)
            self.database.kill()
            for each in servers:
                self.assertEqual(await health(each), 503)
            await deferToThread(self.promote)

        await self.survives(storm, strike)

    async def test_read_only(self) -> None:
        """The old primary turns read-only and stays up. The servers do not read from it."""
        storm = self.storm(await self.serve(2))

        async def strike() -> None:
            await deferToThread(self.follow)
            await deferToThread(self.database.take_writes, False)
            await deferToThread(self.promote)
            await deferLater(reactor, 0.5)

        await self.survives(storm, strike)

    async def test_held(self) -> None:
        """The primary hangs, as a machine does that has crashed. The servers do not wait for it."""
        storm = self.storm(await self.serve(2))

        async def strike() -> None:
            await deferToThread(self.follow)
            self.database.hold()
            await deferToThread(self.promote)

        await self.survives(storm, strike)

    async def test_standby_held(self) -> None:
        """The standby hangs, and with it every commit. Clients get 503 until it goes on."""
        storm = self.storm(await self.serve(2), racing=0.5)
        await deferToThread(self.follow)
        assert self.standby is not None
        standby = self.standby

        async def strike() -> None:
            standby.hold()
            await deferLater(reactor, 1.5 * TIMEOUT)
            standby.release()

        counts = await self.survives(storm, strike)
        self.assertNotEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())

    async def test_finds_a_standby_that_lags(self) -> None:
        """The same finds what is lost where commits do not wait for the standby."""
        storm = self.storm(await self.serve(2))

        async def strike() -> None:
            await deferToThread(self.follow)
            assert self.standby is not None
            self.database.query("ALTER SYSTEM SET synchronous_standby_names = ''")
            self.database.query("SELECT pg_reload_conf()")
            self.standby.kill()
            # A row catches up with a token that is ahead of it; one that is not there cannot.
            for _ in range(3):
                await storm.log_in()
            await deferLater(reactor, 0.5)
            self.database.kill()
            await deferToThread(self.standby.start)
            await deferToThread(self.promote)
            for each in storm.servers:
                await self.healthy(each)

        found = await storm.search({Invariant.WORKS}, strike)
        self.assertIn(Invariant.WORKS, found)
