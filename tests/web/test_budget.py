"""Tests for the limit on the memory of all connections."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.web.budget import FREE, Budget

MOST = 10 * FREE


class BudgetTests(SynchronousTestCase):
    """:class:`synapse_login_module.web.budget.Budget`."""

    def setUp(self) -> None:
        self.shed: list[str] = []
        self.staying: set[str] = set()
        self.budget: Budget[str] = Budget(
            MOST, lambda one: one not in self.staying, self.shed.append
        )

    def test_little_is_free(self) -> None:
        """The size of an ordinary request is not counted, for any number of connections."""
        for number in range(1000):
            self.budget.hold(str(number), FREE)
        self.assertEqual((self.budget.total, self.shed), (0, []))

    def test_largest_is_shed(self) -> None:
        """Beyond the limit, the connection that holds the most is shed."""
        self.budget.hold("small", 2 * FREE)
        self.budget.hold("large", 7 * FREE)
        self.budget.hold("newcomer", 3 * FREE)
        self.assertEqual((self.shed, self.budget.total), (["large"], 5 * FREE))

    def test_newcomer(self) -> None:
        """That may be the connection that has just grown."""
        self.budget.hold("small", 4 * FREE)
        self.budget.hold("newcomer", 7 * FREE)
        self.assertEqual((self.shed, self.budget.total), (["newcomer"], 4 * FREE))

    def test_some_stay(self) -> None:
        """A connection that cannot be shed stays, although it holds the most."""
        self.staying.add("large")
        self.budget.hold("large", 8 * FREE)
        self.budget.hold("other", 3 * FREE)
        self.assertEqual((self.shed, self.budget.total), (["other"], 8 * FREE))

    def test_all_stay(self) -> None:
        """While no connection can be shed, the limit is exceeded."""
        self.staying.update(("one", "other"))
        self.budget.hold("one", 8 * FREE)
        self.budget.hold("other", 8 * FREE)
        self.assertEqual((self.shed, self.budget.total), ([], 16 * FREE))

    def test_let_go(self) -> None:
        """Memory that is released is no longer counted."""
        self.budget.hold("one", 8 * FREE)
        self.budget.hold("one", 3 * FREE)
        self.assertEqual(self.budget.total, 3 * FREE)
        self.budget.hold("one", 0)
        self.assertEqual(self.budget.total, 0)

    # A busy machine is no mistake of the test's.
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2 * MOST))))
    def test_bounded(self, holds: list[tuple[int, int]]) -> None:
        """The total is the sum of what the connections hold, and never exceeds the limit."""
        held: dict[int, int] = {}
        budget: Budget[int] = Budget(MOST, lambda one: True, held.pop)
        for one, size in holds:
            held[one] = size
            budget.hold(one, size)
            self.assertEqual(budget.total, sum(each for each in held.values() if each > FREE))
            self.assertLessEqual(budget.total, MOST)
