"""Runs a Redis without persistence for tests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support.ports import free_port, listens
from tests.support.process import Process, require


class Redis:
    """A Redis on a free port. The test is skipped if Redis is not installed."""

    def __init__(self) -> None:
        require("txredisapi", "hiredis")
        program = shutil.which("redis-server")
        if program is None:
            raise SkipTest("redis-server is not installed")
        self._folder = Path(tempfile.mkdtemp(prefix="synapse-login-redis-"))
        self.port = free_port()
        self._process = Process(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""],
            self._folder / "output",
            folder=self._folder,
        )

    async def start(self) -> None:
        """Start Redis and wait until it accepts connections."""
        await self._process.start(lambda: listens(self.port))

    def remove(self) -> None:
        """Stop Redis and delete its folder."""
        self._process.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
