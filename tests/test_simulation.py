"""Tests of the simulation in the benchmarks."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import simulation
from tests.support import REPOSITORY


class SimulationTests(SynchronousTestCase):
    """What docs/scaling.rst shows, and bounds that hold whatever is drawn."""

    def test_document(self) -> None:
        """The tables of docs/scaling.rst are those that the simulation makes."""
        page = (REPOSITORY / "docs" / "scaling.rst").read_text("utf-8")
        self.assertEqual(simulation.into(page), page)

    def test_day(self) -> None:
        """A client that is online refreshes once in five minutes, and its tokens are asked about at
        most three times.
        """
        day = simulation.day(Random(7))
        self.assertLess(day.refreshes_mean, day.refreshes)
        self.assertLess(day.refreshes, 1 / 300)
        self.assertLess(day.refreshes, day.introspections)
        self.assertLess(day.introspections, 3 * day.refreshes)
        self.assertLess(day.online, 0.5)

    def test_pages(self) -> None:
        """The longer a transaction stays open, the fewer updates stay on their pages."""
        shares = [simulation.updates_in_place(span, Random(7)) for span in (0, 30, 60, 600)]
        self.assertEqual(shares, sorted(shares, reverse=True))
        self.assertEqual(shares[0], 1)
        self.assertLess(shares[-1], 0.1)
