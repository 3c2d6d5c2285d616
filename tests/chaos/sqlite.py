"""Storms over servers whose sessions are in an SQLite file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from synapse_login_module.tokens.over import ENDED
from tests.chaos.case import ChaosCase
from tests.chaos.server import ChaosServer
from tests.chaos.storm import Storm
from tests.support.folders import temporary_folder


def devices(database: Path) -> set[str]:
    """List the devices of the sessions in the file that have not ended."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT device_id FROM sessions WHERE generation < ?", (ENDED,))
        return {device_id for (device_id,) in rows}


class SQLiteChaosCase(ChaosCase):
    """Servers on one file."""

    async def serve(self, **options: Any) -> ChaosServer:
        """Start a server in a folder of its own."""
        server = ChaosServer(Path(self.mktemp()), **options)
        self.addCleanup(server.kill)
        await server.start()
        return server

    async def serve_two(self, **options: Any) -> list[ChaosServer]:
        """Start two servers that share their file and their keys."""
        folder = temporary_folder(self)
        options["database"] = folder / "sessions.db"
        options["changes"] = {"tokens": {"key_file": str(folder / "token.key")}}
        return [await self.serve(**options) for _ in range(2)]

    def devices(self, storm: Storm) -> set[str]:
        """List the devices of the sessions in the file."""
        return devices(storm.servers[0].database)
