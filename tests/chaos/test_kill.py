"""The server is killed again and again while clients log in, refresh, race and log out."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.chaos.history import History, Invariant, Outcome, Use, check
from tests.chaos.server import ChaosServer
from tests.chaos.sqlite import devices
from tests.chaos.storm import SEED, Storm, report

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))


class KillTests(TestCase):
    """Tests that acknowledged requests survive ``kill -9``."""

    timeout = 60 + 10 * KILLS

    async def storm(self, **options: Any) -> Storm:
        """A server, and clients for it."""
        self.server = ChaosServer(Path(self.mktemp()), **options)
        self.addCleanup(self.server.kill)
        await self.server.start()
        storm = Storm([self.server], Random(SEED))
        self.addCleanup(lambda: Deferred.fromCoroutine(storm.close()))
        return storm

    async def kill(self) -> None:
        """Kill the server, and start it again."""
        self.server.kill()
        await self.server.start()

    async def test_nothing_acknowledged_is_lost(self) -> None:
        """After every kill the acknowledged pairs work, none is forked, and none revived."""
        storm = await self.storm()
        for _ in range(KILLS):
            await storm.round(self.kill)
        storm.history.found(devices(self.server.database))
        await storm.replay()
        self.assertEqual(storm.surprises, [])
        self.assertEqual(report(check(storm.history)), "")
        self.assert_hit_hard(storm.history)
        await storm.close()
        await self.server.terminate()
        with closing(sqlite3.connect(self.server.database)) as connection:
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])

    async def test_finds_a_store_that_acknowledges_first(self) -> None:
        """The same storm finds the mistake of a store that answers before it commits."""
        storm = await self.storm(store="tests.chaos.broken.AcknowledgesFirst")
        mistakes = {Invariant.WORKS, Invariant.STAYS_DEAD}
        self.assertLessEqual(mistakes, await storm.search(mistakes, self.kill))

    def assert_hit_hard(self, history: History) -> None:
        """See that the storm was one: answers were lost on both paths, and pairs superseded."""
        counts = Counter((each.use, each.outcome) for each in history.requests)
        for use in (Use.STRICT, Use.LENIENT):
            self.assertGreaterEqual(counts[use, Outcome.UNKNOWN], KILLS // 4, str(counts))
            self.assertGreaterEqual(counts[use, Outcome.ACCEPTED], KILLS, str(counts))
            self.assertGreater(counts[use, Outcome.REFUSED], 0, str(counts))
