"""Tests for services that run while a block of code does."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.common.running import running


class Noted(Service):
    """A service that notes what happens to it.

    :param name: its name in the notes.
    :param notes: the notes.
    :param stopped: fires when it has stopped.
    """

    def __init__(self, name: str, notes: list[str], stopped: Deferred[None]) -> None:
        self.setName(name)
        self._notes = notes
        self._stopped = stopped

    def startService(self) -> None:
        """Note the start."""
        super().startService()
        self._notes.append(f"{self.name} starts")

    def stopService(self) -> Deferred[None]:
        """Note the stop."""
        super().stopService()
        self._notes.append(f"{self.name} stops")
        return self._stopped


class RunningTests(SynchronousTestCase):
    """running."""

    def setUp(self) -> None:
        self.notes: list[str] = []
        self.working: Deferred[str] = Deferred()
        self.slow: Deferred[None] = Deferred()

    def run_parts(self) -> Deferred[str]:
        """Start two parts, then one more, and work."""
        first = Noted("first", self.notes, succeed(None))
        last = Noted("last", self.notes, self.slow)

        async def run() -> str:
            async with running(first, object()) as start:
                start(last)
                return await self.working

        return Deferred.fromCoroutine(run())

    def test_order(self) -> None:
        """Parts stop in the reverse order, each after the one before it has stopped."""
        done = self.run_parts()
        self.assertEqual(self.notes, ["first starts", "last starts"])
        self.working.callback("worked")
        self.assertEqual(self.notes[2:], ["last stops"])
        self.assertNoResult(done)
        self.slow.callback(None)
        self.assertEqual(self.notes[3:], ["first stops"])
        self.assertEqual(self.successResultOf(done), "worked")

    def test_cancelled(self) -> None:
        """Parts stop as well when the work is cancelled."""
        done = self.run_parts()
        self.slow.callback(None)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(self.notes[2:], ["last stops", "first stops"])
