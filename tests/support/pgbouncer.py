"""Runs a PgBouncer for tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support.ports import free_port, listens
from tests.support.process import Process

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
    """A PgBouncer on a loopback port, whose clients share two server connections.

    The test is skipped when PgBouncer is not installed.

    :param server: the port of PostgreSQL.
    :param mode: the pool mode, ``transaction`` by default.
    """

    def __init__(self, server: int, mode: str = "transaction") -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise SkipTest("PgBouncer is not installed")
        self._folder = Path(tempfile.mkdtemp(prefix="tests-pgbouncer-"))
        self._config = self._folder / "pgbouncer.ini"
        account = None
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            account = "nobody"
            shutil.chown(self._folder, account)
        self.port = free_port()
        self._config.write_text(_CONFIG.format(server=server, port=self.port, mode=mode))
        self._process = Process(
            [program, str(self._config)],
            self._folder / "output",
            folder=self._folder,
            account=account,
        )
        self.start()

    def conninfo(self, dbname: str) -> str:
        """Return the connection string of a database through PgBouncer."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={dbname}"

    def start(self) -> None:
        """Start PgBouncer and wait until it listens."""
        self._process.start_and_wait(lambda: listens(self.port))

    def kill(self) -> None:
        """Kill PgBouncer."""
        self._process.kill()

    def remove(self) -> None:
        """Kill PgBouncer and delete its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
