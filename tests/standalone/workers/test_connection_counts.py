"""Tests for connections that are spread over several processes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.standalone.workers.connection_counts import Counts, make_counts


class CountsTests(SynchronousTestCase):
    """What each of three wrote."""

    def test_fewest_first(self) -> None:
        """Others come first as long as one of them has fewer."""
        with make_counts(3) as file:
            one, two, three = [Counts(file.fileno(), place) for place in range(3)]
            self.assertFalse(one.others_first(0))
            self.assertTrue(one.others_first(1))
            self.assertTrue(two.others_first(1))
            self.assertFalse(three.others_first(0))
            self.assertFalse(three.others_first(1))
            self.assertFalse(one.others_first(1))
            self.assertTrue(one.others_first(2))
            self.assertFalse(two.others_first(1))

    def test_alone(self) -> None:
        """Who is alone waits for nobody."""
        with make_counts(1) as file:
            self.assertFalse(Counts(file.fileno(), 0).others_first(1000))
