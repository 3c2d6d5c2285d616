"""A test case with a real server of several processes."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.chaos.history import Use
from tests.chaos.server import ChaosServer
from tests.standalone.workers.load import Load
from tests.support.waiting import until
from tests.support.wire import request

WORKERS = 2


def health(family: int, address: Any) -> bytes:
    """Ask a server for ``/health``; return the response."""
    with socket.socket(family) as client:
        client.settimeout(30)
        client.connect(address)
        client.sendall(request("GET", "/health"))
        return client.recv(1000)


class WorkersTestCase(TestCase):
    """A test case that starts a server with workers, and stops it."""

    timeout = 600
    server: ChaosServer

    async def serve(
        self,
        options: Sequence[str] = ("--workers", str(WORKERS)),
        change: Mapping[str, Any] | None = None,
        listen: Sequence[str] = (),
        **launch: Any,
    ) -> ChaosServer:
        """Start the server.

        :param change: keys to replace in its configuration.
        :param listen: further endpoint descriptions.
        :param launch: further arguments of :class:`~tests.chaos.server.ChaosServer`.
        """
        self.server = server = ChaosServer(Path(self.mktemp()), options=options, **launch)
        self.addCleanup(server.kill)
        here = f"tcp:{self.server.port}:interface=127.0.0.1"
        self.configure({"listen": [here, *listen], **(change or {})})
        await self.server.start()
        if "--workers" in options:
            await self.logged("workers serve")
        return self.server

    def configure(self, change: Mapping[str, Any]) -> None:
        """Change the configuration file."""
        config = yaml.safe_load(self.server.config.read_text())
        self.server.config.write_text(yaml.safe_dump({**config, **change}))

    async def logged(self, text: str) -> None:
        """Wait until the log holds a text."""
        await until(lambda: text in self.log())

    def log(self) -> str:
        """Return the server's log."""
        return self.server.log()

    async def reload(self) -> None:
        """Reload the configuration, and wait until that has succeeded or failed."""
        before = self.outcomes()
        self.server.hang_up()
        await until(lambda: self.outcomes() > before)

    def outcomes(self) -> int:
        """Return the number of reloads that have succeeded or failed."""
        return len(re.findall("new workers serve|workers serve as before", self.log()))

    async def load(self, use: Use) -> Load:
        """Start a load on the server, which ends with the test at the latest."""
        load = Load(self.server.port, use)
        self.addCleanup(lambda: Deferred.fromCoroutine(load.stop()))
        await load.start()
        return load
