"""Tests for what is measured of the transactions in PostgreSQL."""

from __future__ import annotations

from typing import Any

from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.metrics.page import page_of
from synapse_login_module.metrics.prometheus import metrics_in, own_registry
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.database import PostgreSQLDatabase
from synapse_login_module.stores.postgresql.housekeeping import PostgreSQLHousekeeping
from synapse_login_module.stores.postgresql.work import PoolLimits
from tests.stores.test_postgresql import PostgreSQLCase, reactor
from tests.support.prometheus import sample_values


class MeasuredTests(PostgreSQLCase):
    """A database with metrics."""

    def setUp(self) -> None:
        super().setUp()
        self.registry = own_registry()
        metrics = metrics_in(self.registry)
        self.database = PostgreSQLDatabase(
            self.connect, reactor, PoolLimits(1, 10, 100, 30.0), metrics
        )
        self.addCleanup(self.database.stop)

    def connect(self) -> Any:
        from psycopg import connect

        return connect(self.dsn, autocommit=True)

    def value(self, name: str) -> float:
        """Return the value of a series."""
        page = page_of(self.registry)([]).decode("utf-8")
        return sample_values(page)[f"synapse_login_store_{name}"]

    async def test_rejected(self) -> None:
        """A transaction that the database rejects for good is counted as a failure."""
        with self.assertRaises(StoreUnavailable):
            await self.database.execute([Statement(b"SELECT 1 / 0", [])])
        self.assertEqual(self.value("failures_total"), 1)

    async def test_only_writes(self) -> None:
        """Of statements, those are measured that write."""
        await self.database.execute([Statement(b"SELECT 1", [])], writes=False)
        self.assertEqual(self.value("commit_operations_count"), 0)
        await self.database.execute([Statement(b"CREATE TABLE word (word TEXT)", [])])
        self.assertEqual(self.value("commit_operations_count"), 1)

    async def test_background(self) -> None:
        """What the work in the background reads is not measured as a write."""
        housekeeping = PostgreSQLHousekeeping(self.database.execute)
        self.assertEqual(await housekeeping.fetch("SELECT 1 WHERE 1 = ?", [1]), [(1,)])
        self.assertEqual(self.value("commit_operations_count"), 0)
