"""Runs a PostgreSQL for tests, which can stop, kill and suspend it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import reactor as global_reactor
from twisted.trial.unittest import SkipTest

from tests.support.ports import free_port
from tests.support.process import Process, as_account, children
from tests.support.waiting import block_until

if TYPE_CHECKING:
    from tests.support.certificates import Certificate

reactor = cast(Any, global_reactor)

_TIMEOUT = 60.0
"""Seconds within which it must stop or obey."""

_PAUSE = 0.05


class PostgreSQL:
    """A PostgreSQL cluster in a folder of its own, on a loopback port.

    It runs as this user, or as ``postgres`` when this user is root. The test is skipped when the
    server or the driver is not installed.

    :param fsync: whether commits survive a crash of the machine.
    :param primary: the primary that it follows as a synchronous standby; ``None`` to be a primary.
    :param port: the port to listen on; by default a free one.
    """

    def __init__(
        self, fsync: bool = False, primary: PostgreSQL | None = None, port: int | None = None
    ) -> None:
        if find_spec("psycopg") is None:
            raise SkipTest("psycopg is not installed")
        self._programs = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="tests-pg-"))
        account = None
        if os.geteuid() == 0:
            account = "postgres"
            shutil.chown(self._folder, account)
        self._account = as_account(account)
        self.port = port or free_port()
        self._process = Process(
            [
                *(str(self._programs / "postgres"), "-D", str(self._data)),
                *("-p", str(self.port), "-k", str(self._folder)),
                *("-c", "listen_addresses=127.0.0.1", "-c", f"fsync={'on' if fsync else 'off'}"),
            ],
            self._folder / "output",
            folder=self._folder,
            account=account,
        )
        try:
            if primary is None:
                access = ("-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust")
                self._run("initdb", *access, "-N", "-D", str(self._data))
                self.start()
            else:
                self._run(
                    *("pg_basebackup", "-d", primary.replication, "-D", str(self._data)),
                    *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
                )
                self.start()
                primary.wait_for_standbys()
        except BaseException:
            self.remove()
            raise

    @property
    def conninfo(self) -> str:
        """The connection string of its ``postgres`` database."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    @property
    def replication(self) -> str:
        """The connection string for a standby."""
        return f"host=127.0.0.1 port={self.port} user=postgres application_name=standby"

    def wait_for_standbys(self) -> None:
        """Turn on synchronous replication, and wait until a standby has caught up."""
        self.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.query("SELECT pg_reload_conf()")
        following = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        block_until(lambda: self.query(following), timeout=_TIMEOUT)

    def promote(self) -> None:
        """Promote this standby to primary."""
        self._run("pg_ctl", "promote", "-D", str(self._data))

    def take_writes(self, writes: bool) -> None:
        """Allow or forbid writes, also on existing connections."""
        read_only = "off" if writes else "on"
        self.query(f"ALTER SYSTEM SET default_transaction_read_only = {read_only}")
        self.query("SELECT pg_reload_conf()")
        wanted = [(read_only,)]
        block_until(
            lambda: self.query("SHOW default_transaction_read_only") == wanted, timeout=_TIMEOUT
        )

    def start(self) -> None:
        """Start the cluster if it does not run, and wait until it accepts connections."""
        if not self._process.running:
            self._process.start_and_wait(self._ready, pause=_PAUSE)

    def stop(self) -> None:
        """Stop the cluster and close its connections."""
        if self._process.running:
            self.release()
            self._process.stop(signal.SIGINT, _TIMEOUT)

    def kill(self) -> None:
        """Kill all processes of the cluster."""
        if self._process.running:
            processes = self._signal(signal.SIGKILL)
            self._process.kill()
            # The children share memory with it, which only the last of them releases.
            block_until(lambda: not any(map(_lives, processes)), timeout=_TIMEOUT)

    def hold(self) -> None:
        """Suspend all processes of the cluster; its sockets stay open."""
        self._signal(signal.SIGSTOP)

    def release(self) -> None:
        """Resume the suspended processes."""
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """Stop the cluster and delete its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def use_certificate(self, issued: Certificate) -> None:
        """Enable TLS for clients that ask for it, with this certificate."""
        self._write("server.crt", issued.certificate)
        self._write("server.key", issued.key)
        self.stop()
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.write("ssl = on\n")
        self.start()

    def ask_password(self, role: str) -> None:
        """Require a password by SCRAM for a role."""
        path = self._data / "pg_hba.conf"
        rule = f"host all {role} 127.0.0.1/32 scram-sha-256\n"
        self._write("pg_hba.conf", (rule + path.read_text()).encode())
        self.query("SELECT pg_reload_conf()")

    def connect(self, dbname: str = "postgres") -> Any:
        """Open a connection in autocommit mode."""
        import psycopg

        return psycopg.connect(self.conninfo, dbname=dbname, autocommit=True)

    def query(
        self, sql: str, values: Sequence[object] = (), dbname: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement."""
        with self.connect(dbname) as connection:
            cursor = connection.execute(sql, values)
            return list(cursor.fetchall()) if cursor.description else []

    def new_database(self, name: str) -> str:
        """Make an empty database, dropping one of that name; return its connection string."""
        self.query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.query(f"CREATE DATABASE {name}")
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={name}"

    def backends(self) -> list[int]:
        """List the ids of the processes that serve other connections."""
        rows = self.query(
            "SELECT pid FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return [pid for (pid,) in rows]

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments],
            cwd=self._folder,
            check=True,
            capture_output=True,
            timeout=_TIMEOUT,
            **self._account,
        )

    def _signal(self, number: signal.Signals) -> list[int]:
        """Send a signal to the postmaster and its children; return their ids."""
        pid = self._process.pid
        processes = [pid, *children(pid)]
        for each in processes:
            with suppress(ProcessLookupError):  # a child that has ended meanwhile
                os.kill(each, number)
        return processes

    def _write(self, name: str, content: bytes) -> None:
        path = self._data / name
        path.write_bytes(content)
        path.chmod(0o600)
        if self._account:
            shutil.chown(path, "postgres")

    def _ready(self) -> bool:
        import psycopg

        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


def _lives(pid: int) -> bool:
    """Return whether a process runs; one that has ended but was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


_shared: list[PostgreSQL] = []


def shared_postgresql() -> PostgreSQL:
    """Return the cluster that tests share; it is removed when the process ends."""
    if not _shared:
        _shared.append(PostgreSQL())
        reactor.addSystemEventTrigger("after", "shutdown", _shared[0].remove)
    return _shared[0]


def release() -> str:
    """Return the release, such as ``postgres (PostgreSQL) 15.1``."""
    command = [str(_programs() / "postgres"), "--version"]
    return subprocess.check_output(command, text=True).strip()


def _programs() -> Path:
    newest = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3])
    )
    found = shutil.which("initdb") or (str(newest[-1]) if newest else None)
    if found is None:
        raise SkipTest("PostgreSQL's server is not installed: there is no initdb")
    return Path(found).resolve().parent
