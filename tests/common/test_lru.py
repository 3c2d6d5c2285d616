"""Tests for what is remembered as long as there is room."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.common.lru import Recent

ALICE, BOB = "@alice:example.com", "@bob:example.com"


class RecentTests(SynchronousTestCase):
    """A memory of a fixed size."""

    def test_bounded(self) -> None:
        """What was left alone the longest is forgotten."""
        places: Recent[tuple[str, str], None] = Recent(2)
        for place in ((ALICE, "a"), (BOB, "b"), (ALICE, "a"), (ALICE, "c")):
            places.remember(place, None)
        remembered = [each for each in ((ALICE, "a"), (BOB, "b"), (ALICE, "c")) if each in places]
        self.assertEqual(remembered, [(ALICE, "a"), (ALICE, "c")])

    def test_newest(self) -> None:
        """What was remembered last is what is found."""
        places: Recent[str, int] = Recent(1)
        places.remember(ALICE, 1)
        places.remember(ALICE, 2)
        self.assertEqual(places[ALICE], 2)
