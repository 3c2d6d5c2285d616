"""Tests for spreading connections over several processes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.standalone.workers.connection_counts import Counts, make_counts


class CountsTests(SynchronousTestCase):
    """The counts of three processes."""

    def test_fewest_first(self) -> None:
        """A process yields as long as another has fewer connections."""
        with make_counts(3) as file:
            one, two, three = [Counts(file.fileno(), place) for place in range(3)]
            self.assertFalse(one.should_yield(0))
            self.assertTrue(one.should_yield(1))
            self.assertTrue(two.should_yield(1))
            self.assertFalse(three.should_yield(0))
            self.assertFalse(three.should_yield(1))
            self.assertFalse(one.should_yield(1))
            self.assertTrue(one.should_yield(2))
            self.assertFalse(two.should_yield(1))

    def test_alone(self) -> None:
        """A single process never yields."""
        with make_counts(1) as file:
            self.assertFalse(Counts(file.fileno(), 0).should_yield(1000))
