"""The server stands still in the middle of a storm, and goes on where it was."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.chaos.cutting import CuttingProxy
from tests.chaos.history import Outcome
from tests.chaos.sqlite import SQLiteChaosCase

reactor = cast(Any, global_reactor)

_LONGEST_HOLD = 0.8


class HoldTests(SQLiteChaosCase):
    """``SIGSTOP`` and ``SIGCONT``."""

    async def test_clients_wait(self) -> None:
        """Who waits gets an answer: none is lost, and none is a 503."""
        server = await self.serve()
        storm = self.storm([server])

        async def strike() -> None:
            server.hold()
            await deferLater(reactor, storm.random.uniform(0.0, _LONGEST_HOLD))
            server.release()

        counts = await self.survives(storm, strike)
        self.assertEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())

    async def test_clients_give_up(self) -> None:
        """Who has hung up meanwhile may find afterwards that it was done, and does no harm."""
        server = await self.serve()
        proxy = CuttingProxy(server.port)
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.close()))
        storm = self.storm([server], ports=[proxy.port], outages=True)

        async def strike() -> None:
            server.hold()
            await deferLater(reactor, storm.random.uniform(0.0, _LONGEST_HOLD))
            proxy.hang_up()
            server.release()

        counts = await self.survives(storm, strike)
        self.assertNotEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())
        self.assertNotIn("outcome=unavailable", server.log())

    async def test_one_of_two(self) -> None:
        """While one of two servers on one file stands still, even as it writes, the other's clients
        wait at the most.
        """
        servers = await self.serve_two()
        storm = self.storm(servers, racing=0.8)

        async def strike() -> None:
            held = storm.random.choice(servers)
            held.hold()
            await deferLater(reactor, storm.random.uniform(0.0, _LONGEST_HOLD))
            held.release()

        counts = await self.survives(storm, strike)
        self.assertEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())
