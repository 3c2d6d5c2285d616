"""A PostgreSQL for Synapse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.postgresql import PostgreSQL
from tests.support.process import require

_DATABASE = "synapse"


class SynapseDatabase:
    """A PostgreSQL cluster with one empty database for Synapse.

    The test is skipped when the server or the driver is missing.
    """

    def __init__(self) -> None:
        require("psycopg2")
        self._server = PostgreSQL()
        self._server.new_database(_DATABASE)

    @property
    def arguments(self) -> dict[str, Any]:
        """How psycopg2 connects to it."""
        port = self._server.port
        return {"host": "127.0.0.1", "port": port, "user": "postgres", "dbname": _DATABASE}

    async def start(self) -> None:
        """Start it if it does not run."""
        self._server.start()

    def query(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Run one statement, written with ``?`` for its values."""
        return self._server.query(sql.replace("?", "%s"), values, _DATABASE)

    def stop(self) -> None:
        """Stop it at once; connections are cut."""
        self._server.stop()

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self._server.remove()
