"""Tests for shared checks of whether a store can be reached."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.stores.ping import LASTS, SharedPing


class SharedPingTests(SynchronousTestCase):
    """:class:`synapse_login_module.stores.ping.SharedPing`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Deferred[None]] = []
        self.ping = SharedPing(self.ask, self.clock.seconds)

    def ask(self) -> Deferred[None]:
        """Ask the store; the test answers."""
        self.asked.append(Deferred())
        return self.asked[-1]

    def test_shared(self) -> None:
        """Callers during a check, and for a while after it, share its result."""
        waiting = [self.ping() for _ in range(10)]
        self.asked[0].callback(None)
        for each in [*waiting, self.ping()]:
            self.assertIsNone(self.successResultOf(each))
        self.clock.advance(LASTS - 0.1)
        self.successResultOf(self.ping())
        self.assertEqual(len(self.asked), 1)

    def test_noticed(self) -> None:
        """After that the store is checked again, and an outage is noticed."""
        self.ping()
        self.asked[0].callback(None)
        self.clock.advance(LASTS)
        waiting = [self.ping(), self.ping()]
        self.asked[1].errback(StoreUnavailable("gone"))
        for each in waiting:
            self.failureResultOf(each, StoreUnavailable)
        self.assertNoResult(self.ping())
        self.assertEqual(len(self.asked), 3)

    def test_clock_set_back(self) -> None:
        """A clock that is set back does not make the result count longer."""
        self.clock.advance(1000)
        self.ping()
        self.asked[0].callback(None)
        self.clock.rightNow = 1.0
        self.assertNoResult(self.ping())

    def test_client_gone(self) -> None:
        """A caller that cancels does not cancel the check of the others."""
        gone, other = self.ping(), self.ping()
        gone.addErrback(lambda _: None)
        gone.cancel()
        self.asked[0].callback(None)
        self.assertIsNone(self.successResultOf(other))
