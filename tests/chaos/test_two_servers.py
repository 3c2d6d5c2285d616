"""Two servers on one SQLite file serve the same sessions."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from tests.chaos.history import Invariant, Outcome
from tests.chaos.sqlite import SQLiteChaosCase

reactor = cast(Any, global_reactor)

_RACING = 0.8


class TwoServersTests(SQLiteChaosCase):
    """The same pair is given to both at the same time, again and again."""

    async def test_race(self) -> None:
        """Of two racing refreshes one wins, or both get the same pair. All get responses."""
        storm = self.storm(await self.serve_two(), racing=_RACING)
        counts = await self.survives(storm, lambda: deferLater(reactor, 0.5))
        self.assertEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())

    async def test_one_killed(self) -> None:
        """``kill -9`` of one leaves the other at work, and its own promises kept."""
        servers = await self.serve_two()
        storm = self.storm(servers, racing=_RACING, stubborn=True)

        async def strike() -> None:
            victim = storm.random.choice(servers)
            victim.kill()
            await deferLater(reactor, storm.random.uniform(0.0, 0.3))
            await victim.start()

        counts = await self.survives(storm, strike)
        self.assertNotEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())

    async def test_finds_a_store_that_reads_then_writes(self) -> None:
        """The same race finds the mistake of a store that does not compare before it swaps."""
        servers = await self.serve_two(store="tests.chaos.broken.ReadsThenWrites")
        storm = self.storm(servers, racing=_RACING)
        found = await storm.search({Invariant.STAYS_DEAD}, lambda: deferLater(reactor, 0.5))
        self.assertIn(Invariant.STAYS_DEAD, found)
