"""PgBouncer is between the servers and PostgreSQL, and both are killed."""

from __future__ import annotations

from twisted.internet.threads import deferToThread

from tests.chaos.postgresql import PostgreSQLChaosCase
from tests.support.pgbouncer import PgBouncer
from tests.support.postgresql import PostgreSQL


class PgBouncerTests(PostgreSQLChaosCase):
    """In transaction mode, with two connections for two servers.

    :ivar pool: it.
    """

    def setUp(self) -> None:
        self.database = PostgreSQL(fsync=True)
        self.addCleanup(self.database.remove)
        self.pool = PgBouncer(self.database.port)
        self.addCleanup(self.pool.remove)

    @property
    def dsn(self) -> str:
        """How the servers connect."""
        return self.pool.conninfo("postgres")

    async def test_killed(self) -> None:
        """PgBouncer, PostgreSQL or both are killed and started again. No invariant is violated."""
        storm = self.storm(await self.serve(2), racing=0.5)

        async def strike() -> None:
            both: list[PgBouncer | PostgreSQL] = [self.pool, self.database]
            victims = storm.random.sample(both, storm.random.randint(1, 2))
            for each in victims:
                each.kill()
            for each in victims:
                await deferToThread(each.start)

        await self.survives(storm, strike)
