"""Runs a MariaDB for tests, which can stop, kill and suspend it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import reactor as global_reactor
from twisted.trial.unittest import SkipTest

from tests.support.ports import free_port
from tests.support.process import Process, as_account
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from tests.support.certificates import Certificate

reactor = cast(Any, global_reactor)

DATABASE = "shop"
USER, PASSWORD = "matrix", "a'b\\c\N{LATIN SMALL LETTER A WITH DIAERESIS}\N{ROBOT FACE}"
"""A user who may do anything in the database, from this machine."""

_TIMEOUT = 60.0
"""Seconds within which it must stop or obey."""

_SMALL = (
    *("--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--key-buffer-size=1M"),
    *("--aria-pagecache-buffer-size=1M", "--innodb-flush-log-at-trx-commit=0"),
    *("--skip-log-bin", "--skip-name-resolve", "--performance-schema=OFF"),
)


class MariaDB:
    """A MariaDB server in a folder of its own, on a loopback port and a Unix socket.

    It runs as this user, or as ``mysql`` when this user is root. The test is skipped when the
    server or the driver is not installed.

    :param options: further options of the server.
    """

    def __init__(self, *options: str) -> None:
        if find_spec("pymysql") is None:
            raise SkipTest("PyMySQL is not installed")
        server, install = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="tests-mdb-"))
        account = None
        if os.geteuid() == 0:
            account = "mysql"
            shutil.chown(self._folder, account)
        self._account = as_account(account)
        self.port = free_port()
        self.socket = self._folder / "socket"
        self._command = [
            *(server, "--no-defaults", f"--datadir={self._data}", f"--socket={self.socket}"),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", f"--tmpdir={self._folder}"),
            *(f"--pid-file={self._folder / 'pid'}", *_SMALL, *options),
        ]
        self._process = self._new_process(account)
        self._owner = account
        try:
            subprocess.run(
                [
                    *(install, "--no-defaults", f"--datadir={self._data}"),
                    *("--auth-root-authentication-method=normal", "--skip-test-db"),
                    *("--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M"),
                ],
                cwd=self._folder,
                check=True,
                capture_output=True,
                timeout=_TIMEOUT,
                **self._account,
            )
            self.start()
            self.query(f"CREATE DATABASE {DATABASE}", dbname="mysql")
            self.query(f"CREATE USER {USER}@'%%' IDENTIFIED BY %s", [PASSWORD])
            self.query(f"GRANT ALL ON {DATABASE}.* TO {USER}@'%%'")
        except BaseException:
            self.remove()
            raise

    @property
    def config(self) -> dict[str, Any]:
        """The key ``mysql`` of a provider."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": USER,
            "password": PASSWORD,
            "database": DATABASE,
        }

    def start(self) -> None:
        """Start the server if it does not run, and wait until it accepts connections."""
        if not self._process.running:
            self._process.start_and_wait(self._ready, pause=0.05)

    def stop(self) -> None:
        """Stop the server and close its connections."""
        if self._process.running:
            self.release()
            self._process.stop(signal.SIGTERM, _TIMEOUT)

    def kill(self) -> None:
        """Kill the server."""
        self._process.kill()

    def hold(self) -> None:
        """Suspend the server; its sockets stay open."""
        self._process.hold()

    def release(self) -> None:
        """Resume the suspended server."""
        self._process.release()

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def use_certificate(self, issued: Certificate) -> None:
        """Enable TLS for clients that ask for it, with this certificate."""
        for path in issued.write(self._folder):
            path.chmod(0o600)
            if self._owner:
                shutil.chown(path, self._owner)
        self.stop()
        self._command += [
            f"--ssl-cert={self._folder / 'certificate.pem'}",
            f"--ssl-key={self._folder / 'key.pem'}",
        ]
        self._process = self._new_process(self._owner)
        self.start()

    def connect(self, dbname: str | None = None) -> Any:
        """Open a connection as root, in autocommit mode."""
        import pymysql

        return pymysql.connect(
            unix_socket=str(self.socket),
            user="root",
            database=dbname,
            charset="utf8mb4",
            autocommit=True,
            ssl_disabled=True,
        )

    def query(
        self, sql: str, values: Sequence[object] = (), dbname: str = "mysql"
    ) -> list[tuple[Any, ...]]:
        """Run one statement as root."""
        with closing(self.connect(dbname)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def clients(self) -> list[int]:
        """List the ids of the connections of users other than root."""
        rows = self.query(
            "SELECT id FROM information_schema.processlist"
            " WHERE user NOT IN ('root', 'system user', 'event_scheduler')"
        )
        return [number for (number,) in rows]

    def kill_clients(self) -> None:
        """Kill those connections."""
        for number in self.clients():
            self.query(f"KILL CONNECTION {number}")
        block_until(lambda: not self.clients(), timeout=_TIMEOUT)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _new_process(self, account: str | None) -> Process:
        return Process(self._command, self._folder / "output", folder=self._folder, account=account)

    def _ready(self) -> bool:
        import pymysql

        try:
            self.connect().close()
        except pymysql.Error:
            return False
        return True


_shared: list[MariaDB] = []


def shared_mariadb() -> MariaDB:
    """Return the server that tests share; it is removed when the process ends."""
    if not _shared:
        _shared.append(MariaDB())
        reactor.addSystemEventTrigger("after", "shutdown", _shared[0].remove)
    return _shared[0]


def _programs() -> tuple[str, str]:
    """Return the server, and what makes its folder."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    found = [shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db")]
    server, install = found
    if server is None or install is None:
        raise SkipTest("MariaDB's server is not installed: there is no mariadbd")
    return server, install
