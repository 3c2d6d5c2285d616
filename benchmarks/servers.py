"""The processes that are measured: each on a loopback port, with a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import yaml

from synapse_login_module.passwords import hash_password
from tests.support import REPOSITORY
from tests.support.memory import resident
from tests.support.ports import free_port

SERVER_NAME = "bench.example"
USER = "alice"
PASSWORD = "correct horse battery staple"

_PATIENCE = 30.0


class Server:
    """A server process; use it in a ``with`` statement.

    :param command: what runs it.
    :param log: where its output goes.
    :param says: what it says there once all of it serves, if its first answer does not show that.
    :ivar start_up: seconds from its start to its first answer.
    """

    def __init__(self, command: list[str], port: int, log: Path, says: str = "") -> None:
        self.port = port
        self._command = command
        self._log = log
        self._says = says
        self.start_up = 0.0

    def __enter__(self) -> Server:
        began = time.perf_counter()
        paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while not (self._answers() and self._says in self._log.read_text()):
            if self._process.poll() is not None or time.perf_counter() - began > _PATIENCE:
                self.__exit__()
                raise SystemExit(f"a server does not answer:\n{self._log.read_text()}")
            time.sleep(0.005)
        self.start_up = time.perf_counter() - began
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def memory(self) -> int:
        """The resident memory, in bytes."""
        return resident(self.pid) * 1024

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        with suppress(OSError, HTTPException):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        connection.close()
        return False


def bare(folder: Path) -> Server:
    """The bare resource."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.bare", str(port)]
    return Server(command, port, folder / "bare.log")


def login_service(
    folder: Path,
    rounds: int = 4,
    others: Mapping[str, Mapping[str, object]] | None = None,
    dsn: str | None = None,
    workers: int | None = None,
) -> Server:
    """This server, over ``sessions.db`` and ``token.key`` in the folder.

    :param rounds: the bcrypt cost of its account.
    :param others: more accounts, of the same password, as in a users file.
    :param dsn: a PostgreSQL database for the sessions, in the place of ``sessions.db``.
    :param workers: how many processes answer; ``None`` is the one that is started.
    """
    port = free_port()
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(_config(port, rounds, others or {}, dsn)))
    twistd = Path(sys.executable).with_name("twistd")
    otherwise = ["-c", "from twisted.scripts.twistd import run; run()"]
    start = [str(twistd)] if twistd.exists() else otherwise
    options = ["-n", "--pidfile=", "synapse-login", "--config", str(config)]
    if workers is not None:
        options.append(f"--workers={workers}")
    says = "" if workers is None else "workers serve"
    return Server([sys.executable, *start, *options], port, folder / "server.log", says)


def _config(
    port: int, rounds: int, others: Mapping[str, Mapping[str, object]], dsn: str | None
) -> dict[str, Any]:
    stores = "synapse_login_module.stores"
    store: dict[str, Any] = {
        "module": f"{stores}.SQLiteTokenStore",
        "config": {"path": "sessions.db"},
    }
    if dsn is not None:
        store = {"module": f"{stores}.PostgreSQLTokenStore", "config": {"dsn": dsn}}
    users = {
        name: {"password_hash": hash_password(PASSWORD, "", rounds), **user}
        for name, user in {USER: {}, **others}.items()
    }
    return {
        "server_name": SERVER_NAME,
        "listen": [f"tcp:{port}:interface=127.0.0.1"],
        "password_providers": [
            {
                "module": "synapse_login_module.providers.BcryptProvider",
                "config": {"users": users},
            }
        ],
        "token_store": store,
        "tokens": {"refresh_token": "always"},
        "rate_limits": {"address": None, "account": None, "failed_attempts": None},
    }
