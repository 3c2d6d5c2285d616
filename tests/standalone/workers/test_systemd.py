"""Tests with systemd: its sockets, its notifications, and our units."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.standalone.workers.case import WORKERS, WorkersTestCase, health
from tests.support import REPOSITORY
from tests.support.folders import temporary_folder
from tests.support.waiting import TIMEOUT, until

UNITS = REPOSITORY / "contrib" / "systemd"

_LAUNCH = """
import os, sys
inherited = int(sys.argv.pop(1))
if inherited != 3:
    os.dup2(inherited, 3)
    os.close(inherited)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Manager:
    """A service manager's end of the notifications.

    :ivar address: the path of its socket.
    :ivar told: the states received so far, without their times.
    """

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name}")
        self._socket.setblocking(False)
        self.address = f"@{name}"
        self.told: list[str] = []

    def listen(self) -> list[str]:
        """Read what has arrived; return all states so far, without keep-alive messages."""
        try:
            while True:
                self.told.append(self._socket.recv(1000).decode().partition("\n")[0])
        except BlockingIOError:
            return [each for each in self.told if each != "WATCHDOG=1"]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class NotifyTests(WorkersTestCase):
    """The notifications of the manager."""

    def setUp(self) -> None:
        self.manager = Manager(f"synapse-login-{os.getpid()}-{id(self)}")
        self.addCleanup(self.manager.close)

    async def tell(self, **launch: Any) -> None:
        """Start a server that notifies the manager."""
        environment = {"NOTIFY_SOCKET": self.manager.address, "WATCHDOG_USEC": "200000"}
        await self.serve(env=environment, **launch)
        await self.hears("READY=1")

    async def hears(self, *states: str) -> None:
        """Wait until the manager has received exactly these states."""
        await until(lambda: self.manager.listen() == list(states))

    async def test_workers(self) -> None:
        """It is notified of the start once all workers serve, of each reload, and of the end."""
        await self.tell()
        self.assertEqual(len(self.server.workers), WORKERS)
        await self.reload()
        reloaded = ["READY=1", "RELOADING=1", "READY=1"]
        await self.hears(*reloaded)
        self.configure({"hashing": {"threads": "many"}})
        await self.reload()
        reloaded += ["RELOADING=1", "READY=1"]
        await self.hears(*reloaded)
        self.assertEqual(await self.server.terminate(), 0)
        await self.hears(*reloaded, "STOPPING=1")

    async def test_one_process(self) -> None:
        """Without workers it is notified of the start and the end."""
        await self.tell(options=())
        self.assertIn(b" 200 ", health(socket.AF_INET, ("127.0.0.1", self.server.port)))
        self.assertEqual(await self.server.terminate(), 0)
        await self.hears("READY=1", "STOPPING=1")

    async def test_watchdog(self) -> None:
        """It gets keep-alive messages, from the parent alone."""
        await self.tell()
        fed = self.manager.told.count("WATCHDOG=1")
        await until(lambda: bool(self.manager.listen()) and self.fed() >= fed + 3)
        for pid in self.server.workers:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            for name in (b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"LISTEN_PID", b"LISTEN_FDS"):
                self.assertNotIn(name, environment)

    def fed(self) -> int:
        """Return the number of keep-alive messages."""
        return self.manager.told.count("WATCHDOG=1")


class SocketTests(WorkersTestCase):
    """A socket that the manager opened and keeps open."""

    def setUp(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.socket.close)
        self.port: int = self.socket.getsockname()[1]

    async def activate(self, listen: str, **launch: Any) -> None:
        """Start a server on the socket."""
        await self.serve(
            change={"listen": [listen]},
            env={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "login"},
            pass_fds=[self.socket.fileno()],
            launcher=["-c", _LAUNCH, str(self.socket.fileno())],
            port=self.port,
            **launch,
        )

    def healthy(self) -> None:
        """Check that the server answers there."""
        self.assertIn(b" 200 ", health(socket.AF_INET, ("127.0.0.1", self.port)))

    async def test_workers(self) -> None:
        """Workers accept from it, before and after a reload, and it outlives them."""
        await self.activate("systemd:domain=INET:index=0")
        self.healthy()
        for _ in range(2):
            await self.reload()
            await until(lambda: len(self.server.workers) == WORKERS)
            self.healthy()
        self.assertEqual(await self.server.terminate(), 0)
        self.assertNotIn("Traceback", self.log())
        with socket.create_connection(("127.0.0.1", self.port)) as waiting:
            waiting.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            await self.server.start()
            waiting.settimeout(TIMEOUT)
            self.assertIn(b" 200 ", waiting.recv(1000))

    async def test_name(self) -> None:
        """The socket is found by its name too."""
        await self.activate("systemd:domain=INET:name=login")
        self.healthy()

    async def test_one_process(self) -> None:
        """A single process accepts from it."""
        await self.activate("systemd:domain=INET:index=0", options=())
        self.healthy()
        self.assertEqual(await self.server.terminate(), 0)


class UnitTests(SynchronousTestCase):
    """The units, as systemd reads them."""

    def analyze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``systemd-analyze`` on the units, with an installed program."""
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd is not installed")
        folder = temporary_folder(self)
        for unit in UNITS.iterdir():
            text = unit.read_text().replace("/opt/synapse-login/bin/twistd", sys.executable)
            (folder / unit.name).write_text(text)
        return subprocess.run(
            ["systemd-analyze", *arguments],
            cwd=folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    @staticmethod
    def environment() -> Mapping[str, str]:
        """Return an environment for plain output."""
        return {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "PAGER": "cat"}

    def test_verify(self) -> None:
        """systemd knows all settings of the units."""
        end = self.analyze("verify", "./synapse-login.service", "./synapse-login.socket")
        self.assertEqual((end.returncode, end.stdout, end.stderr), (0, "", ""))

    def test_security(self) -> None:
        """systemd rates the service's sandbox as "OK": 2 or less of 10, which is none."""
        end = self.analyze(
            "security", "--offline=true", "--threshold=20", "./synapse-login.service"
        )
        self.assertEqual(end.returncode, 0, end.stdout)
