"""A real server of several processes."""

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
    """What a server answers there."""
    with socket.socket(family) as client:
        client.settimeout(30)
        client.connect(address)
        client.sendall(request("GET", "/health"))
        return client.recv(1000)


class WorkersTestCase(TestCase):
    """Starts a server with workers, and ends it."""

    timeout = 600
    server: ChaosServer

    async def serve(
        self,
        options: Sequence[str] = ("--workers", str(WORKERS)),
        change: Mapping[str, Any] | None = None,
        listen: Sequence[str] = (),
        **launch: Any,
    ) -> ChaosServer:
        """A server that has started.

        :param change: what its configuration has in the place of what it would have.
        :param listen: where it listens too.
        :param launch: how it is started; see :class:`~tests.chaos.server.ChaosServer`.
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
        """Wait for something to stand in the log."""
        await until(lambda: text in self.log())

    def log(self) -> str:
        """What the server has logged."""
        return self.server.log()

    async def reload(self) -> None:
        """Have the configuration read again, and wait for what comes of it."""
        before = self.outcomes()
        self.server.hang_up()
        await until(lambda: self.outcomes() > before)

    def outcomes(self) -> int:
        """How many reloads have come to an end."""
        return len(re.findall("new workers serve|workers serve as before", self.log()))

    async def load(self, use: Use) -> Load:
        """A load on the server, which ends with the test if not before."""
        load = Load(self.server.port, use)
        self.addCleanup(lambda: Deferred.fromCoroutine(load.stop()))
        await load.start()
        return load
