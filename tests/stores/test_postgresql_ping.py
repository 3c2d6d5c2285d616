"""Tests for the cost of a ping at PostgreSQL, and for the servers that fail it."""

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
        """A ping deletes no row, so it is assigned no transaction ID.

        So it writes nothing to the write-ahead log, and waits for no disk.
        """
        store = self.open()
        await store.share_token_keys()
        # Only the transactions of the pings are to be counted.
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
        """A ping fails at a standby, which is read-only, and succeeds once it was promoted."""
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
