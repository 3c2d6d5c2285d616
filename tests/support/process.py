"""What a Synapse may need beside it: processes, free ports, a PostgreSQL and a Redis of its own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest

from tests.support import postgresql
from tests.support.ports import free_ports

reactor = cast(Any, global_reactor)

PATIENCE = 90.0
"""Seconds that anything may take to start or to stop."""

_PAUSE = 0.05
_DATABASE = "synapse"


class StartError(AssertionError):
    """A process did not start, or did not stop when asked to; holds what it said."""


async def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until a condition holds; the reactor runs meanwhile.

    :raise StartError: when it does not come to hold.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise StartError(f"waited in vain: {what}")
        await deferLater(reactor, _PAUSE)


class Child:
    """A process that is started, watched and ended.

    :param output: the file that takes what it prints.
    :param account: the user it runs as, if not this one.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        output: Path,
        environment: Mapping[str, str] | None = None,
        account: str | None = None,
    ) -> None:
        self._command = list(command)
        self._folder = folder
        self._output = output
        self._environment = environment
        self._account: dict[str, Any] = {}
        if account is not None:
            self._account = {"user": account, "group": account, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """What it ended with, or ``None`` while it runs."""
        assert self._process is not None
        return self._process.poll()

    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text("utf-8", "replace") if self._output.exists() else ""

    async def start(self, ready: Callable[[], bool]) -> None:
        """Start it and wait until it is ready.

        :raise StartError: when it ends before that, or does not get so far.
        """
        self.launch()
        try:
            await until(lambda: ready() or not self.running, f"start of {self._command}")
            if not self.running:
                raise StartError(f"{self._command} ended with {self.exit_status}")
        except StartError as error:
            self.kill()
            raise StartError(f"{error}\n{self.output()}") from None

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=None if self._environment is None else dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **self._account,
            )

    def ask_to_stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Ask it to stop; nothing happens when it has ended."""
        if self.running:
            assert self._process is not None
            self._process.send_signal(signal_number)

    def stop(self, signal_number: int = signal.SIGTERM) -> int | None:
        """Ask it to stop and wait; its exit status, or ``None`` when it had to be killed."""
        if self._process is None:
            return 0
        self.ask_to_stop(signal_number)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """End it without asking."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_dead(self) -> bool:
        """Whether it has ended, for :func:`until`."""
        return not self.running


def require(*modules: str) -> None:
    """Skip the test when Python modules are not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise SkipTest(f"not installed: {', '.join(missing)}")


class PostgreSQL:
    """A PostgreSQL cluster with one empty database for Synapse.

    The test is skipped when the server or the driver is missing.
    """

    def __init__(self) -> None:
        require("psycopg2")
        self._server = postgresql.PostgreSQL()
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


class Redis:
    """A Redis on a free port, which keeps nothing. Skips the test when there is none."""

    def __init__(self) -> None:
        require("txredisapi", "hiredis")
        program = shutil.which("redis-server")
        if program is None:
            raise SkipTest("redis-server is not installed")
        self._folder = Path(tempfile.mkdtemp(prefix="synapse-login-redis-"))
        (self.port,) = free_ports(1)
        self._child = Child(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""],
            self._folder,
            self._folder / "output",
        )

    async def start(self) -> None:
        """Start it and wait until it takes connections."""
        await self._child.start(lambda: listens(self.port))

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self._child.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def listens(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
            return True
    except OSError:
        return False
