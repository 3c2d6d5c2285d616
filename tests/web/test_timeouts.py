"""Tests for the queue of timeouts."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.web.timeouts import TimeoutQueue


class WaitingTests(SynchronousTestCase):
    """A timeout of ten seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.given_up: list[str] = []
        self.waiting: TimeoutQueue[str] = TimeoutQueue(10, self.give_up, self.clock)

    def give_up(self, one: str) -> None:
        """Record it, or do what its name says."""
        self.given_up.append(one)
        if one == "stop":
            self.waiting.stop()
        if one == "raise":
            raise ZeroDivisionError("a mistake")

    def test_each_in_its_time(self) -> None:
        """Each entry times out at its own time, unless it was removed."""
        for name in ("first", "removed", "last"):
            self.waiting.add(name)
            self.clock.advance(3)
        self.waiting.remove("removed")
        self.clock.advance(1)
        self.assertEqual(self.given_up, ["first"])
        self.clock.advance(5)
        self.assertEqual(self.given_up, ["first"])
        self.clock.advance(1)
        self.assertEqual(self.given_up, ["first", "last"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_mistake(self) -> None:
        """An error in the timeout of one entry does not affect the others."""
        self.waiting.add("raise")
        self.waiting.add("other")
        with self.assertRaises(ZeroDivisionError):
            self.clock.advance(10)
        self.waiting.add("later")
        self.clock.pump([0, 10])
        self.assertEqual(self.given_up, ["raise", "other", "later"])

    def test_last_stops(self) -> None:
        """The timeout of the last entry may stop the queue, and no timer is left."""
        self.waiting.add("stop")
        self.clock.advance(10)
        self.assertEqual(self.clock.getDelayedCalls(), [])
