"""Tests for whose request is begun next."""

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
        """Take as long as a request does."""
        self.clock.rightNow += self.cost
        self.begun.append(request)

    def add(self, *requests: str) -> None:
        """Have requests come in."""
        for each in requests:
            self.turns.add(each, lambda request: request[0])

    def test_at_once(self) -> None:
        """While there is time, a request is begun at once, and no timer is made."""
        self.add("a1", "a2", "b1")
        self.assertEqual(self.begun, ["a1", "a2", "b1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_networks_take_turns(self) -> None:
        """Once the time is up, each network has one of its requests begun in turn."""
        self.cost = SLICE
        self.add("a1", "a2", "a3", "b1", "a4", "c1")
        self.assertEqual(self.begun, ["a1"])
        for _ in range(5):
            self.clock.advance(0)
        self.assertEqual(self.begun, ["a1", "a2", "b1", "c1", "a3", "a4"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slice(self) -> None:
        """In one turn of the reactor no more are begun than there is time for."""
        self.cost = SLICE / 3.5
        self.add(*(f"a{number}" for number in range(20)))
        self.assertEqual(len(self.begun), 4)
        turn = self.clock.calls.pop(0)
        turn.called = 1
        turn.func()
        self.assertEqual(len(self.begun), 8)

    def test_none_overtakes(self) -> None:
        """A request is not begun before those that wait, though there is time again."""
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
        """A request whose client is gone is not begun."""
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
        """In the end there is no timer."""
        self.cost = SLICE
        self.add("a1", "a2")
        self.turns.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
