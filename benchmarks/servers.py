"""The measured server processes, each on a loopback port and with a folder of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import server
from tests.support.configuration import good_config, password_hash, write_config
from tests.support.http import healthy
from tests.support.ports import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.process import Process

SERVER_NAME = "bench.example"
USER = "alice"
PASSWORD = "correct horse battery staple"


class MeasuredServer:
    """A measured server process; use it in a ``with`` statement.

    :param process: the process.
    :param port: the port that it listens on.
    :param says: the line of its log that shows that all of it serves, if the first response does
        not show that.
    :ivar start_up: seconds from its start to its first response.
    """

    def __init__(self, process: Process, port: int, says: str = "") -> None:
        self.port = port
        self._process = process
        self._says = says
        self.start_up = 0.0

    def __enter__(self) -> MeasuredServer:
        began = time.perf_counter()
        self._process.start_and_wait(self._serves, pause=0.005)
        self.start_up = time.perf_counter() - began
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def memory(self) -> int:
        """The resident memory in bytes."""
        return self._process.resident() * 1024

    def _serves(self) -> bool:
        return healthy(self.port) and self._says in self._process.log()


def bare(folder: Path) -> MeasuredServer:
    """Build the yardstick: the bare resource of :mod:`benchmarks.bare`."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.bare", str(port)]
    return MeasuredServer(Process(command, folder / "bare.log"), port)


def login_service(
    folder: Path,
    rounds: int = 4,
    others: Mapping[str, Mapping[str, object]] | None = None,
    dsn: str | None = None,
    workers: int | None = None,
    tokens: Mapping[str, object] | None = None,
    more: Mapping[str, object] | None = None,
) -> MeasuredServer:
    """Build this server, with ``sessions.db`` and ``token.key`` in the folder.

    :param rounds: the bcrypt cost of its account.
    :param others: further accounts with the same password, in the form of a users file.
    :param dsn: a PostgreSQL database for the sessions, instead of ``sessions.db``.
    :param workers: the number of workers; ``None`` for a single process.
    :param tokens: the ``tokens:`` block.
    :param more: keys of the configuration to add or replace.
    """
    port = free_port()
    whole = _config(port, rounds, others or {}, dsn, tokens)
    config = write_config(folder, {**whole, **(more or {})})
    options = [] if workers is None else [f"--workers={workers}"]
    says = "" if workers is None else "workers serve"
    return MeasuredServer(server.Server(config, port, options=options), port, says)


def introspection(folder: Path) -> MeasuredServer:
    """Build this server's listener for a homeserver, over the files of :func:`login_service`."""
    port = free_port()
    config = write_config(folder, _config(port, 4, {}, None, None))
    command = [sys.executable, "-m", "benchmarks.introspection", str(port), str(config)]
    return MeasuredServer(Process(command, folder / "introspection.log"), port)


@contextmanager
def cluster() -> Iterator[PostgreSQL]:
    """Run a PostgreSQL with durable commits, for as long as a ``with`` statement lasts."""
    database = PostgreSQL(fsync=True)
    try:
        yield database
    finally:
        database.remove()


def _config(
    port: int,
    rounds: int,
    others: Mapping[str, Mapping[str, object]],
    dsn: str | None,
    tokens: Mapping[str, object] | None,
) -> dict[str, Any]:
    stores = "synapse_login_module.stores"
    store: dict[str, Any] = {
        "module": f"{stores}.SQLiteTokenStore",
        "config": {"path": "sessions.db"},
    }
    if dsn is not None:
        store = {"module": f"{stores}.PostgreSQLTokenStore", "config": {"dsn": dsn}}
    users = {
        name: {"password_hash": password_hash(PASSWORD, rounds), **user}
        for name, user in {USER: {}, **others}.items()
    }
    # The default hashing settings: a decoy for an unknown user costs the same as other hashes.
    return good_config(
        port,
        users,
        server_name=SERVER_NAME,
        token_store=store,
        tokens={"refresh_token": "always"} if tokens is None else dict(tokens),
        hashing={},
    )
