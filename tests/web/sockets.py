"""A site that listens, for tests over real sockets."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from synapse_login_module.web.site import LoginSite, SiteLimits
from tests.support.rig import Rig
from tests.support.site import post
from tests.support.wire import Wire, connect

reactor = cast(Any, global_reactor)

LOGIN = "/_matrix/client/v3/login"
GUESS = post(
    LOGIN,
    json.dumps({"type": "m.login.password", "user": "alice", "password": "x" * 100}).encode(),
)


class SocketCase(TestCase):
    """A site that listens."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.wires: list[Wire] = []

    async def listen(self, **limits: Any) -> None:
        """Have a site with these limits."""
        self.site = LoginSite(self.rig.root, reactor, SiteLimits(**limits))
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(self.end)

    async def end(self) -> None:
        """Leave nothing behind."""
        for wire in self.wires:
            await wire.abort()
        await self.port.stopListening()
        await self.site.drain()

    async def connect(self) -> Wire:
        """A new connection."""
        wire = await connect(self.port.getHost().port)
        self.wires.append(wire)
        return wire

    def stall(self) -> list[Deferred[Any]]:
        """Make passwords be checked slowly; what is waited for is put in the list."""
        waiting: list[Deferred[Any]] = []
        self.rig.provider.only = {"authenticate"}
        self.rig.provider.stalled = waiting
        return waiting
