"""Tests for locks by key."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.common.locks import Locks


class LocksTests(SynchronousTestCase):
    """Work under the lock of a key."""

    def setUp(self) -> None:
        self.locks: Locks[str] = Locks()
        self.begun: list[str] = []

    def work(self, key: str, name: str, ends: Deferred[None]) -> Deferred[None]:
        """Begin work that ends with a Deferred."""

        async def work() -> None:
            async with self.locks.held(key):
                self.begun.append(name)
                await ends

        return Deferred.fromCoroutine(work())

    def test_one_at_a_time(self) -> None:
        """Work of one key waits for the work before it, and that of another key does not."""
        first: Deferred[None] = Deferred()
        second: Deferred[None] = Deferred()
        self.work("a", "first", first)
        self.work("a", "second", second)
        self.work("b", "other", Deferred())
        self.assertEqual(self.begun, ["first", "other"])
        first.callback(None)
        self.assertEqual(self.begun, ["first", "other", "second"])
        second.callback(None)
        self.assertEqual(len(self.locks), 1)

    def test_cancelled(self) -> None:
        """Work that is cancelled while it waits leaves the lock to the next."""
        first: Deferred[None] = Deferred()
        self.work("a", "first", first)
        waiting = self.work("a", "waiting", Deferred())
        last: Deferred[None] = Deferred()
        self.work("a", "last", last)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        first.callback(None)
        self.assertEqual(self.begun, ["first", "last"])
        last.callback(None)
        self.assertEqual(len(self.locks), 0)
