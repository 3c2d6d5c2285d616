"""Tests for connections to an SQLite file that wait for its lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.stores import sqlite_connection
from synapse_login_module.stores.sqlite_connection import BUSY_TIMEOUT, begin, connect


class Time:
    """Stands in for the module ``time``: sleeps by adding to its clock.

    :param slept: called after each sleep.
    :ivar pauses: the seconds of each sleep.
    """

    def __init__(self, slept: Callable[[], object]) -> None:
        self._slept = slept
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        """Return the seconds slept so far."""
        return sum(self.pauses)

    def sleep(self, seconds: float) -> None:
        """Sleep no time at all."""
        self.pauses.append(seconds)
        self._slept()


class BeginTests(SynchronousTestCase):
    """Tests of :func:`begin` while another connection writes."""

    def setUp(self) -> None:
        path = Path(self.mktemp())
        self.connection = connect(path, timeout=0)
        self.addCleanup(self.connection.close)
        self.other = connect(path)
        self.addCleanup(self.other.close)
        begin(self.other)

    def slept(self, then: Callable[[], object]) -> Time:
        """Replace the clock and the sleep of the module."""
        time = Time(then)
        self.patch(sqlite_connection, "time", time)
        return time

    def test_soon_after(self) -> None:
        """It asks again within a millisecond or less, so that no free moment is missed."""
        left = list(range(20))
        time = self.slept(lambda: left.pop() or self.other.execute("COMMIT"))
        begin(self.connection)
        self.assertTrue(self.connection.in_transaction)
        self.assertEqual(len(time.pauses), 20)
        self.assertLess(max(time.pauses), 0.001)

    def test_timeout(self) -> None:
        """It gives up after the timeout, and asks a few hundred times a second at most."""
        time = self.slept(lambda: None)
        with self.assertRaisesRegex(sqlite3.OperationalError, "locked"):
            begin(self.connection)
        self.assertGreaterEqual(time.monotonic(), BUSY_TIMEOUT)
        self.assertLess(time.monotonic(), BUSY_TIMEOUT + 0.1)
        self.assertLess(len(time.pauses), 300 * BUSY_TIMEOUT)

    def test_other_errors(self) -> None:
        """It reports an error of another kind at once."""
        time = self.slept(lambda: None)
        self.other.execute("ROLLBACK")
        begin(self.connection)
        with self.assertRaisesRegex(sqlite3.OperationalError, "within a transaction"):
            begin(self.connection)
        self.assertEqual(time.pauses, [])
