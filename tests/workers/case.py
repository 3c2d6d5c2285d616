"""A real server of several processes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.chaos.history import Use
from tests.chaos.process import Server
from tests.workers.load import Load, until

WORKERS = 2


class WorkersTestCase(TestCase):
    """Starts a server with workers, and ends it."""

    timeout = 120
    server: Server

    async def serve(
        self,
        options: Sequence[str] = ("--workers", str(WORKERS)),
        change: Mapping[str, Any] | None = None,
        listen: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Server:
        """A server that has started.

        :param change: what its configuration has in the place of what it would have.
        :param listen: where it listens too.
        """
        self.server = Server(Path(self.mktemp()), options=options, environment=environment)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.clean_up()))
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
        await until(lambda: text in self.server.log())

    async def reload(self) -> None:
        """Have the configuration read again, and wait for what comes of it."""
        before = self.outcomes()
        self.server.hang_up()
        await until(lambda: self.outcomes() > before)

    def outcomes(self) -> int:
        """How many reloads have come to an end."""
        return len(re.findall("new workers serve|workers serve as before", self.server.log()))

    async def load(self, use: Use) -> Load:
        """A load on the server, which ends with the test if not before."""
        load = Load(self.server.port, use)
        self.addCleanup(lambda: Deferred.fromCoroutine(load.stop()))
        await load.start()
        return load
