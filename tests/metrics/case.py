"""A test case with a real server whose metrics are read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.http import ask
from tests.support.ports import free_ports
from tests.support.prometheus import sample_values
from tests.support.server import Server
from tests.support.waiting import reactor, until

_PATIENCE = 60.0
LOGIN = "/_matrix/client/v3/login"
SQLITE = {
    "module": "synapse_login_module.stores.SQLiteTokenStore",
    "config": {"path": "sessions.db"},
}


class MeasuredServer:
    """A server with an endpoint for other servers; it stops with the test.

    :param changes: keys to add to its configuration or to replace.
    :ivar internal_port: where its metrics are.
    """

    def __init__(
        self, case: TestCase, options: Sequence[str] = (), launch: Any = None, **changes: Any
    ) -> None:
        self.folder = temporary_folder(case)
        self.port, self.internal_port = free_ports(2)
        self.config = good_config(
            self.port,
            internal_listen=[f"tcp:{self.internal_port}:interface=127.0.0.1"],
            **{"token_store": SQLITE, **changes},
        )
        path = write_config(self.folder, self.config)
        self.process = Server(path, self.port, options=options, **(launch or {}))
        self._has_workers = "--workers" in options
        case.addCleanup(self.process.stop)

    async def start(self) -> None:
        """Start the server, and wait until it serves."""
        await self.process.start()
        if self._has_workers:
            await until(lambda: "workers serve" in self.process.log(), "the workers")

    async def post(self, path: str, body: object, token: str | None = None) -> tuple[int, bytes]:
        """Send a request."""
        return await deferToThread(ask, self.port, "POST", path, body, token)

    async def login(self, name: str, password: str, **more: Any) -> tuple[int, bytes]:
        """Log in."""
        user = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": user, "password": password, **more}
        return await self.post(LOGIN, body)

    async def scrape(self) -> tuple[int, str]:
        """Ask for the metrics."""
        status, page = await deferToThread(ask, self.internal_port, "GET", "/metrics")
        return status, page.decode("utf-8")

    async def page(self) -> str:
        """Return the page."""
        status, page = await self.scrape()
        assert status == 200, page
        return page

    async def until_value(self, name: str, expected: float) -> dict[str, float]:
        """Wait until a series has a value; return all."""
        found = sample_values(await self.page())
        deadline = time.monotonic() + _PATIENCE
        while found.get(name) != expected:
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} is {found.get(name)}, not {expected}")
            await deferLater(reactor, 0.3)
            found = sample_values(await self.page())
        return found
