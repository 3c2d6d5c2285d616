"""Runs a PostgreSQL for Synapse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.postgresql import PostgreSQL
from tests.support.process import require

_DATABASE = "synapse"


class SynapseDatabase:
    """A PostgreSQL cluster with one empty database for Synapse.

    The test is skipped when the server or the driver is not installed.
    """

    def __init__(self) -> None:
        require("psycopg2")
        self._server = PostgreSQL()
        self._server.new_database(_DATABASE)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of psycopg2 to connect to it."""
        port = self._server.port
        return {"host": "127.0.0.1", "port": port, "user": "postgres", "dbname": _DATABASE}

    async def start(self) -> None:
        """Start the cluster if it does not run."""
        self._server.start()

    def query(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Run one statement with ``?`` as placeholders."""
        return self._server.query(sql.replace("?", "%s"), values, _DATABASE)

    def stop(self) -> None:
        """Stop the cluster at once and close its connections."""
        self._server.stop()

    def remove(self) -> None:
        """Stop the cluster and delete its folder."""
        self._server.remove()
