"""Tests for work that is done concurrently but bounded."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.common.concurrency import at_once


class AtOnceTests(SynchronousTestCase):
    """The same work for each of many things."""

    def setUp(self) -> None:
        self.begun: dict[str, Deferred[int]] = {}

    def begin(self, given: Sequence[str]) -> Deferred[list[int]]:
        """Begin the work for some things, two at once."""
        return Deferred.fromCoroutine(at_once(2, self.work, given))

    def work(self, thing: str) -> Deferred[int]:
        """Do work that ends when a test says so."""
        self.begun[thing] = Deferred()
        return self.begun[thing]

    def test_bounded(self) -> None:
        """The third begins when one of the first two has ended."""
        done = self.begin("abc")
        self.assertEqual(list(self.begun), ["a", "b"])
        self.begun["b"].callback(2)
        self.assertEqual(list(self.begun), ["a", "b", "c"])
        self.assertNoResult(done)

    def test_order(self) -> None:
        """The results have the order of the things, whatever ends first."""
        done = self.begin("abc")
        for thing, result in (("b", 2), ("c", 3), ("a", 1)):
            self.begun[thing].callback(result)
        self.assertEqual(self.successResultOf(done), [1, 2, 3])

    def test_nothing(self) -> None:
        """No things have no results."""
        self.assertEqual(self.successResultOf(self.begin("")), [])

    def test_failure(self) -> None:
        """The first failure is raised as it is, and the others are not logged."""
        done = self.begin("ab")
        self.begun["b"].errback(ZeroDivisionError("b"))
        self.assertEqual(str(self.failureResultOf(done, ZeroDivisionError).value), "b")
        self.begun["a"].errback(KeyError("a"))
        self.assertEqual(self.flushLoggedErrors(), [])
