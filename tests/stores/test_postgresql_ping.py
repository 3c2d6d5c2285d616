"""What it costs PostgreSQL to be asked whether it can be written to, and who says no."""

from __future__ import annotations

import contextlib

from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.stores.ping import LASTS
from tests.stores.test_postgresql import PostgreSQLCase, reactor
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import TIMEOUT


class PingTests(PostgreSQLCase):
    """``GET /health`` asks this, and needs no token."""

    def make_server(self) -> PostgreSQL:
        server = PostgreSQL()
        self.addCleanup(server.remove)
        return server

    async def test_no_write(self) -> None:
        """The row that is deleted is none: no transaction is given a number, so nothing of it goes
        into the log of the database, and no disk is waited for.
        """
        store = self.open()
        await store.share_token_keys()
        # Nobody else's transaction is to be counted.
        self.query("ALTER SYSTEM SET autovacuum = off")
        self.query("SELECT pg_reload_conf()")
        before = self.query("SELECT pg_snapshot_xmax(pg_current_snapshot())")
        for _ in range(20):
            self.clock.advance(LASTS)
            await store.ping()
        asked = self.query("SELECT pg_snapshot_xmax(pg_current_snapshot())")
        self.assertEqual(asked, before)
        await self.issue(store)
        self.assertNotEqual(self.query("SELECT pg_snapshot_xmax(pg_current_snapshot())"), before)

    async def test_standby(self) -> None:
        """A standby, which can be read, is no good, and is once it has been promoted."""
        await self.open().share_token_keys()
        standby = PostgreSQL(primary=self.server)
        self.addCleanup(standby.remove)
        dsn = self.dsn.replace(str(self.server.port), str(standby.port))
        store = self.open(f"{dsn} target_session_attrs=any", timeout="2s")
        self.assertEqual(
            standby.query("SELECT count(*) FROM synapse_login_keys", (), "stores"), [(1,)]
        )
        await self.unavailable(store.ping())
        standby.promote()
        deadline = reactor.seconds() + TIMEOUT
        while reactor.seconds() < deadline:
            with contextlib.suppress(StoreUnavailable):
                await store.ping()
                return
        self.fail("it stays away")
