"""Tests for running the checks of ``doctor``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from synapse_login_module.doctor.homeserver import check_homeserver
from synapse_login_module.doctor.running import Check, run_checks, started
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import good

FOUND = good("it", "it is well")


class Part(Service):
    """A part that stops as it is told.

    :param stopped: fires when it has stopped; an error is raised.
    """

    def __init__(self, stopped: Any = None) -> None:
        self.stopped = stopped

    def stopService(self) -> Any:
        super().stopService()
        if isinstance(self.stopped, Exception):
            raise self.stopped
        return self.stopped


class StartedTests(TestCase):
    """A part is started for its check, and stopped in time."""

    def setUp(self) -> None:
        self.clock = Clock()

    def run_with(self, part: object) -> Deferred[list[Finding]]:
        """Run a check of a part."""

        async def work() -> list[Finding]:
            async with started(part, self.clock):
                self.assertTrue(getattr(part, "running", True))
                return [FOUND]

        checks = [Check("", "the part", work)]
        return Deferred.fromCoroutine(run_checks(checks, self.clock, 60))

    def test_runs(self) -> None:
        """It runs during the check, and no more after it."""
        part = Part()
        self.assertEqual(self.successResultOf(self.run_with(part)), [FOUND])
        self.assertFalse(part.running)

    def test_no_service(self) -> None:
        """A part that is no service is neither started nor stopped."""
        self.assertEqual(self.successResultOf(self.run_with(object())), [FOUND])

    def test_waits(self) -> None:
        """The check ends when the part has stopped."""
        stopped = Deferred[None]()
        done = self.run_with(Part(stopped))
        self.assertNoResult(done)
        stopped.callback(None)
        self.assertEqual(self.successResultOf(done), [FOUND])

    def test_hangs(self) -> None:
        """A part that does not stop is left after a while, with a line in the log."""
        with capturedLogs() as lines:
            done = self.run_with(Part(Deferred()))
            self.clock.advance(2)
        self.assertEqual(self.successResultOf(done), [FOUND])
        self.assertIn("Part did not stop: TimeoutError", formatEvent(lines[-1]))

    def test_fails(self) -> None:
        """An error of the stop is a line in the log, and the findings stay."""
        with capturedLogs() as lines:
            done = self.run_with(Part(RuntimeError("it is stuck")))
        self.assertEqual(self.successResultOf(done), [FOUND])
        self.assertIn("Part did not stop: RuntimeError: it is stuck", formatEvent(lines[-1]))


class StuckHomeserver(Part):
    """A third party's homeserver, which works while it runs, and cannot be stopped."""

    def __init__(self, config: None, environment: Any) -> None:
        super().__init__(RuntimeError("it is stuck"))

    async def check(self) -> str | None:
        return None if self.running else "it was not started"


class HomeserverTests(TestCase):
    """A homeserver is started for its check."""

    def test_stuck(self) -> None:
        """What was found stays when it cannot be stopped."""
        environment: Any = SimpleNamespace(reactor=Clock())
        check = check_homeserver((StuckHomeserver, None), environment)
        done = Deferred.fromCoroutine(run_checks([check], environment.reactor, 60))
        (found,) = self.successResultOf(done)
        self.assertIn("it is there", found.found)
