"""Storms over servers whose sessions are in PostgreSQL."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from synapse_login_module.tokens.over import ENDED
from tests.chaos.case import ChaosCase
from tests.chaos.cutting import CuttingProxy
from tests.chaos.server import ChaosServer
from tests.chaos.storm import Storm
from tests.support.folders import temporary_folder
from tests.support.postgresql import PostgreSQL

_STORE = "synapse_login_module.stores.PostgreSQLTokenStore"
TIMEOUT = 2.0


class PostgreSQLChaosCase(ChaosCase):
    """Servers on one PostgreSQL, whose commits are durable.

    :ivar database: the PostgreSQL server.
    :ivar proxy: the proxy between the servers and PostgreSQL.
    """

    outages = True

    def setUp(self) -> None:
        self.database = PostgreSQL(fsync=True)
        self.addCleanup(self.database.remove)
        self.proxy = CuttingProxy(self.database.port)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.proxy.close()))

    @property
    def dsn(self) -> str:
        """The connection string of the servers."""
        return f"host=127.0.0.1 port={self.proxy.port} user=postgres dbname=postgres"

    async def serve(self, count: int = 1, store: str = _STORE) -> list[ChaosServer]:
        """Start ``count`` servers that share their keys."""
        servers: list[ChaosServer] = []
        folder = temporary_folder(self)
        for number in range(count):
            database = {"dsn": self.dsn, "timeout": int(TIMEOUT * 1000), "queue": 256}
            server = ChaosServer(
                folder / str(number),
                changes={
                    "token_store": {"module": store, "config": database},
                    "tokens": {"key_file": str(folder / "token.key")},
                },
            )
            self.addCleanup(server.kill)
            await server.start()
            servers.append(server)
        return servers

    def devices(self, storm: Storm) -> set[str]:
        """List the devices of the sessions in the database that have not ended."""
        rows = self.database.query(
            "SELECT device_id FROM synapse_login_sessions WHERE generation < %s", [ENDED]
        )
        return {device_id for (device_id,) in rows}
