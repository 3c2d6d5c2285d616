"""A PgBouncer of the tests' own, in transaction mode."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.support.ports import free_port
from tests.support.postgresql import PATIENCE

_PAUSE = 0.02
_CONFIG = """\
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 2
server_login_retry = 0.1
"""


class PgBouncer:
    """Listens on a loopback port, and lets its clients take turns with two connections.

    The test is skipped when it is not installed.

    :param server: the port of PostgreSQL.
    :param mode: when the turn of a client ends.
    """

    def __init__(self, server: int, mode: str = "transaction") -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise SkipTest("PgBouncer is not installed")
        self._folder = Path(tempfile.mkdtemp(prefix="tests-pgbouncer-"))
        self._config = self._folder / "pgbouncer.ini"
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:  # which it refuses
            shutil.chown(self._folder, "nobody")
            self._account = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        self.port = free_port()
        self._config.write_text(_CONFIG.format(server=server, port=self.port, mode=mode))
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def conninfo(self, dbname: str) -> str:
        """How to connect to a database through it."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={dbname}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._program, str(self._config)],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **self._account,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self._folder / "output").read_text())
            time.sleep(_PAUSE)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)

    def remove(self) -> None:
        """End it and delete its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True
