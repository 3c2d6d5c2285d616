"""Tests for the upkeep of a store that servers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.model import Pruned, TokenPolicy
from synapse_login_module.standalone.pruning import (
    MAX_REMOVED,
    REMOVAL_PAUSE,
    RETRY_PAUSE,
    ROUND_PAUSE,
    SCAN_PAUSE,
    Pruner,
    prune_all,
)
from synapse_login_module.standalone.upkeep import LEASE, LEASE_SECONDS, Upkeep
from synapse_login_module.stores import MemoryTokenStore


class Counted(Service):
    """A service that counts its starts and stops."""

    def __init__(self) -> None:
        self.happened: list[str] = []

    def startService(self) -> None:
        self.happened.append("start")

    def stopService(self) -> None:
        self.happened.append("stop")


class Shared:
    """A store with leases, on a fake clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.held: dict[str, tuple[str, float]] = {}
        self.down = False

    def hold(self, lease: str, holder: str, seconds: float) -> Deferred[bool]:
        if self.down:
            return fail(StoreUnavailable("told to be"))
        now = self._clock.seconds()
        other, until = self.held.get(lease, (holder, now))
        if other != holder and now < until:
            return succeed(False)
        self.held[lease] = holder, now + seconds
        return succeed(True)

    def release(self, lease: str, holder: str) -> Deferred[None]:
        if self.down:
            return fail(StoreUnavailable("told to be"))
        if self.held.get(lease, ("",))[0] == holder:
            del self.held[lease]
        return succeed(None)


class UpkeepTests(SynchronousTestCase):
    """Two servers that share a store."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.shared = Shared(self.clock)
        self.work = [Counted(), Counted()]
        self.servers = [
            Upkeep(self.shared, [work], self.clock, f"server {number}")
            for number, work in enumerate(self.work)
        ]

    def happened(self) -> list[Sequence[str]]:
        return [work.happened for work in self.work]

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([1.0] * round(seconds))

    def test_one(self) -> None:
        """The first server does the work for as long as it runs."""
        for server in self.servers:
            server.startService()
        self.pass_time(10 * LEASE_SECONDS)
        self.assertEqual(self.happened(), [["start"], []])

    def test_stopped(self) -> None:
        """A server that stops releases the lease, and the other soon does the work."""
        for server in self.servers:
            server.startService()
        self.successResultOf(self.servers[0].stopService())
        self.assertNotIn(LEASE, self.shared.held)
        self.pass_time(20)
        self.assertEqual(self.happened(), [["start", "stop"], ["start"]])
        self.pass_time(10 * LEASE_SECONDS)
        self.assertEqual(self.happened(), [["start", "stop"], ["start"]])
        self.successResultOf(self.servers[1].stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_as_it_asks(self) -> None:
        """A server that stops while its request for the lease is in flight releases it too."""
        answers: list[Deferred[bool]] = []
        whole = self.shared.hold

        def hold(*asked: Any) -> Deferred[bool]:
            whole(*asked)
            answers.append(Deferred())
            return answers[-1]

        self.patch(self.shared, "hold", hold)
        self.servers[0].startService()
        self.assertIn(LEASE, self.shared.held)
        self.successResultOf(self.servers[0].stopService())
        self.assertNotIn(LEASE, self.shared.held)
        answers[0].callback(True)
        self.assertEqual((self.work[0].happened, self.clock.getDelayedCalls()), ([], []))

    def test_dead(self) -> None:
        """When the holder has died, the other does the work once the lease has expired."""
        self.shared.held[LEASE] = "a dead server", LEASE_SECONDS
        self.servers[1].startService()
        self.pass_time(LEASE_SECONDS - 1)
        self.assertEqual(self.work[1].happened, [])
        self.pass_time(20)
        self.assertEqual(self.work[1].happened, ["start"])

    def test_store_away(self) -> None:
        """While the store is unavailable, the holder goes on until its lease expires."""
        self.servers[0].startService()
        self.shared.down = True
        self.pass_time(LEASE_SECONDS - 1)
        self.assertEqual(self.work[0].happened, ["start"])
        self.pass_time(1)
        self.assertEqual(self.work[0].happened, ["start", "stop"])
        self.shared.down = False
        self.pass_time(20)
        self.assertEqual(self.work[0].happened, ["start", "stop", "start"])

    def test_store_away_at_the_end(self) -> None:
        """A server can stop although its lease cannot be released."""
        self.servers[0].startService()
        self.shared.down = True
        self.successResultOf(self.servers[0].stopService())
        self.assertEqual(self.work[0].happened, ["start", "stop"])

    def test_broken_service(self) -> None:
        """A service that cannot start affects neither the other services nor the lease."""
        broken = Counted()
        self.patch(broken, "startService", lambda: 1 / 0)
        server = Upkeep(self.shared, [broken, self.work[0]], self.clock, "server")
        server.startService()
        self.pass_time(2 * LEASE_SECONDS)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.work[0].happened, ["start"])
        self.assertEqual(self.shared.held[LEASE], ("server", self.clock.seconds() + LEASE_SECONDS))
        self.successResultOf(server.stopService())

    def test_broken_store(self) -> None:
        """After an unexpected error the server keeps renewing the lease."""
        whole = self.shared.hold
        self.patch(self.shared, "hold", lambda *_: 1 / 0)
        self.servers[0].startService()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.patch(self.shared, "hold", whole)
        self.pass_time(20)
        self.assertEqual(self.work[0].happened, ["start"])

    def test_overslept(self) -> None:
        """A server that finds its lease taken stops the work."""
        self.servers[0].startService()
        self.shared.held[LEASE] = "another", self.clock.seconds() + 1000
        self.pass_time(20)
        self.assertEqual(self.work[0].happened, ["start", "stop"])


class Batches:
    """A store with prepared batches."""

    def __init__(self, *batches: Pruned | StoreUnavailable) -> None:
        self.batches = list(batches)
        self.asked: list[int | None] = []

    def prune(self, after: int | None, scan: int, most: int) -> Deferred[Pruned]:
        self.asked.append(after)
        batch = self.batches.pop(0) if self.batches else Pruned(0, 0, None)
        return fail(batch) if isinstance(batch, StoreUnavailable) else succeed(batch)


class PrunerTests(SynchronousTestCase):
    """Pruning in the background."""

    def start(self, *batches: Pruned | StoreUnavailable) -> tuple[Batches, Clock]:
        store, clock = Batches(*batches), Clock()
        pruner = Pruner(store, 30 * 24 * 3600, clock)
        pruner.startService()
        self.addCleanup(pruner.stopService)
        clock.advance(SCAN_PAUSE)
        return store, clock

    def test_pace(self) -> None:
        """Pauses are short after full batches, longer after others, and longest after a round."""
        store, clock = self.start(
            Pruned(0, 0, 5),
            Pruned(MAX_REMOVED, 0, 7),
            Pruned(0, MAX_REMOVED, 9),
            Pruned(0, 0, 9, imported_tokens=MAX_REMOVED),
            Pruned(3, 0, None),
        )
        self.assertEqual(store.asked, [None])
        clock.advance(SCAN_PAUSE)
        self.assertEqual(store.asked, [None, 5])
        for _ in range(3):
            clock.advance(REMOVAL_PAUSE)
        self.assertEqual(store.asked, [None, 5, 7, 9, 9])
        clock.advance(ROUND_PAUSE - 1)
        self.assertEqual(len(store.asked), 5)
        clock.advance(1)
        self.assertEqual(store.asked, [None, 5, 7, 9, 9, None])

    def test_outage(self) -> None:
        """After an outage of the store, pruning goes on where it was."""
        store, clock = self.start(Pruned(0, 0, 5), StoreUnavailable("away"), Pruned(0, 0, None))
        clock.advance(SCAN_PAUSE)
        self.assertEqual(store.asked, [None, 5])
        clock.advance(RETRY_PAUSE)
        self.assertEqual(store.asked, [None, 5, 5])

    def test_started_again(self) -> None:
        """A late batch, after a stop and a new start, does not begin a second round."""
        late: Deferred[Pruned] = Deferred()
        store, clock = Batches(), Clock()
        self.patch(store, "prune", lambda *_: late)
        pruner = Pruner(store, 30 * 24 * 3600, clock)
        pruner.startService()
        clock.advance(SCAN_PAUSE)
        pruner.stopService()
        pruner.startService()
        late.callback(Pruned(0, 0, 5))
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        pruner.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """The command removes everything, and leaves the store to others between two batches."""
        clock = Clock()
        clock.advance(1_000_000)
        policy = TokenPolicy(session=1000, keep_ended=0)
        store = MemoryTokenStore(None, testing.environment(clock=clock, policy=policy))
        for _ in range(1500):
            store.issue("@alice:example.com", None, None, True, True)
        clock.advance(1)
        told: list[Pruned] = []
        ticking, prune = Clock(), store.prune

        def slowly(after: int | None, scan: int, most: int) -> Deferred[Pruned]:
            ticking.advance(0.5)
            return prune(after, scan, most)

        self.patch(store, "prune", slowly)
        pruning = Deferred.fromCoroutine(prune_all(store, ticking, told.append))
        for _ in range(60):
            ticking.advance(1.4)
            self.assertNoResult(pruning)
            ticking.advance(0.1)
        pruned = self.successResultOf(pruning)
        self.assertEqual(pruned, Pruned(1500, 0, None))
        self.assertEqual([each.sessions for each in told], [25] * 60 + [0])
        self.assertEqual(self.successResultOf(store.sessions(None)), [])
