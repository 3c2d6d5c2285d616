"""Storms over servers that fail again and again, and the check of their histories."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.chaos.history import Outcome, Use, check
from tests.chaos.server import ChaosServer
from tests.chaos.storm import SEED, Storm, report
from tests.support.wire import connect, request

reactor = cast(Any, global_reactor)

SHORT = 4
ROUNDS = int(os.environ.get("CHAOS_KILLS", "20")) // 5

_ATTEMPTS = 1000


async def health(server: ChaosServer) -> int:
    """Return the status of ``/health``."""
    wire = await connect(server.port)
    try:
        wire.send(request("GET", "/health"))
        status, _ = await wire.answer()
        return status
    finally:
        await wire.abort()


class ChaosCase(TestCase):
    """Servers on one store.

    :cvar outages: whether clients are to expect outages of the store.
    :cvar rounds: the number of times that something fails.
    """

    timeout = 120 + 20 * ROUNDS
    outages = False
    rounds = ROUNDS

    def devices(self, storm: Storm) -> set[str]:
        """List the devices of the sessions in the store."""
        raise NotImplementedError

    def storm(self, servers: Sequence[ChaosServer], **options: Any) -> Storm:
        """Make clients for the servers."""
        storm = Storm(servers, Random(SEED), **{"outages": self.outages, **options})
        self.addCleanup(lambda: Deferred.fromCoroutine(storm.close()))
        return storm

    async def healthy(self, server: ChaosServer) -> None:
        """Wait until a server can write."""
        for _ in range(_ATTEMPTS):
            if await health(server) == 200:
                return
            await deferLater(reactor, 0.02)
        self.fail("it does not recover")

    async def survives(
        self, storm: Storm, strike: Callable[[], Awaitable[object]]
    ) -> Counter[tuple[Use, Outcome]]:
        """Cause a failure again and again, check the clients' history, and count its outcomes.

        :param strike: causes the failure, and repairs it in the end.
        """

        async def struck() -> None:
            await strike()
            await gatherResults(
                [Deferred.fromCoroutine(self.healthy(each)) for each in storm.servers]
            )

        for _ in range(self.rounds):
            await storm.round(struck)
        storm.history.found(self.devices(storm))
        await storm.replay()
        violations = check(storm.history)
        counts = Counter((each.use, each.outcome) for each in storm.history.requests)
        if ROUNDS > SHORT:
            outcomes = Counter(each.outcome.value for each in storm.history.requests)
            print(
                f"\n{self.id()}: seed {SEED}, {self.rounds} rounds, {len(storm.sessions)} sessions,"
                f" {dict(outcomes)}, {len(violations)} violations"
            )
        self.assertEqual(storm.surprises, [])
        self.assertEqual(report(violations), "")
        for use in (Use.STRICT, Use.LENIENT):
            self.assertGreater(counts[use, Outcome.ACCEPTED], self.rounds, str(counts))
        return counts
