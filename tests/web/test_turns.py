"""Tests for the fair turns of requests by network."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.web.turns import SLICE, Turns


class TurnsTests(SynchronousTestCase):
    """:class:`synapse_login_module.web.turns.Turns`; each request is named for its network."""

    cost = 0.0

    def setUp(self) -> None:
        self.clock = Clock()
        self.begun: list[str] = []
        self.turns: Turns[str] = Turns(self.begin, self.clock)

    def begin(self, request: str) -> None:
        """Start a request, which takes some time."""
        self.clock.rightNow += self.cost
        self.begun.append(request)

    def add(self, *requests: str) -> None:
        """Add requests."""
        for each in requests:
            self.turns.add(each, lambda request: request[0])

    def test_at_once(self) -> None:
        """While there is time, a request starts at once, and no timer is set."""
        self.add("a1", "a2", "b1")
        self.assertEqual(self.begun, ["a1", "a2", "b1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_networks_take_turns(self) -> None:
        """When the time is used up, the networks take turns, one request each."""
        self.cost = SLICE
        self.add("a1", "a2", "a3", "b1", "a4", "c1")
        self.assertEqual(self.begun, ["a1"])
        for _ in range(5):
            self.clock.advance(0)
        self.assertEqual(self.begun, ["a1", "a2", "b1", "c1", "a3", "a4"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slice(self) -> None:
        """A turn of the reactor starts no more requests than there is time for."""
        self.cost = SLICE / 3.5
        self.add(*(f"a{number}" for number in range(20)))
        self.assertEqual(len(self.begun), 4)
        turn = self.clock.calls.pop(0)
        turn.called = 1
        turn.func()
        self.assertEqual(len(self.begun), 8)

    def test_none_overtakes(self) -> None:
        """A new request does not overtake those that wait."""
        self.cost = SLICE
        self.add("a1", "a2")
        self.clock.rightNow += 1
        self.add("a3")
        self.assertEqual(self.begun, ["a1"])

    def test_time_again(self) -> None:
        """After a pause there is time again."""
        self.cost = SLICE
        self.add("a1")
        self.clock.rightNow += 1
        self.add("a2")
        self.assertEqual(self.begun, ["a1", "a2"])

    def test_remove(self) -> None:
        """A request whose client has disconnected does not start."""
        self.cost = SLICE
        self.add("a1", "a2", "a3", "b1")
        self.turns.remove("a2")
        self.turns.remove("b1")
        self.turns.remove("unknown")
        self.assertEqual(len(self.turns), 1)
        self.clock.advance(0)
        self.assertEqual(self.begun, ["a1", "a3"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """After a stop, no timer is left."""
        self.cost = SLICE
        self.add("a1", "a2")
        self.turns.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
