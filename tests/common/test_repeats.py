"""Tests for lines of a log that anybody may cause."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.common import repeats
from synapse_login_module.common.repeats import (
    OF_ALL,
    OF_ONE,
    PERIOD,
    Omitted,
    OncePerPeriod,
    Repeats,
)


class RepeatsTests(SynchronousTestCase):
    """:class:`synapse_login_module.common.repeats.Repeats`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[Omitted[str]] = []
        self.repeats: Repeats[str] = Repeats(self.clock.seconds, self.told.append)

    def write(self, count: int, kind: str = "kind", source: str = "one", **more: bool) -> int:
        """Have that many lines come; how many are written."""
        return sum(self.repeats.is_written(kind, source, **more) for _ in range(count))

    def test_first(self) -> None:
        """The first lines of each source and kind are written, and the others are not."""
        self.assertEqual(self.write(100), OF_ONE)
        self.assertEqual(self.write(100, source="other"), OF_ONE)
        self.assertEqual(self.write(100, kind="other"), OF_ONE)
        self.assertEqual(self.told, [])

    def test_told(self) -> None:
        """With the first line after the period it is told how many there were."""
        self.write(100)
        self.clock.advance(PERIOD)
        self.assertEqual(self.write(1, source="other"), 1)
        self.assertEqual(self.told, [Omitted("kind", "one", 100 - OF_ONE)])
        self.assertEqual(self.write(1), 1)
        self.repeats.flush()
        self.assertEqual(len(self.told), 1)

    def test_steady(self) -> None:
        """A few lines a minute are all written, however long it goes on."""
        for _ in range(50):
            self.assertEqual(self.write(OF_ONE), OF_ONE)
            self.clock.advance(PERIOD)
        self.assertEqual(self.told, [])

    def test_many_sources(self) -> None:
        """Of one kind so many lines are written and no more, whatever their sources."""
        written = sum(self.write(2, source=str(number)) for number in range(1000))
        self.assertEqual(written, OF_ALL)
        self.repeats.flush()
        self.assertEqual(self.told, [Omitted("kind", None, 2000 - OF_ALL)])

    def test_many_sources_with_much_each(self) -> None:
        """What is told of each counts among those lines, so that it is no flood itself."""
        written = sum(self.write(20, source=str(number)) for number in range(1000))
        self.repeats.flush()
        self.assertLessEqual(written + len(self.told), OF_ALL + 1)
        self.assertEqual(written + sum(each.lines for each in self.told), 20_000)

    def test_unbounded(self) -> None:
        """Kinds whose sources are accounts are bounded for each source alone."""
        written = sum(self.write(2, source=str(number), bounded=False) for number in range(1000))
        self.assertEqual(written, 2000)

    def test_memory(self) -> None:
        """No more sources are remembered than there is room for: the oldest period ends early, and
        every line of a new source is written.
        """
        self.patch(repeats, "_MAX_SOURCES", 10)
        written = sum(self.write(12, source=str(number), bounded=False) for number in range(100))
        self.assertEqual(written, 100 * OF_ONE)
        self.assertEqual(len(self.repeats._sources), 10)
        self.repeats.flush()
        self.assertEqual(self.told, [Omitted("kind", str(number), 2) for number in range(100)])

    def test_other_kinds(self) -> None:
        """Sources without end of one kind keep no line of another kind from being written."""
        self.patch(repeats, "_MAX_SOURCES", 2 * OF_ALL)
        for number in range(5 * OF_ALL):
            self.write(1, source=str(number))
        self.assertEqual(self.write(1, kind="other", source="attacker"), 1)
        for number in range(5 * OF_ALL):
            self.write(1, kind="fine", source=str(number), bounded=False)
        self.assertEqual(self.write(1, kind="another", source="attacker"), 1)

    def test_timer(self) -> None:
        """With a timer it is told once the period is over, though no further line comes."""
        self.repeats = Repeats(self.clock.seconds, self.told.append, self.clock.callLater)
        self.write(OF_ONE)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1)
        self.write(5)
        self.clock.advance(1)
        self.write(20, source="other")
        self.clock.advance(PERIOD - 1)
        self.assertEqual(self.told, [Omitted("kind", "one", 5)])
        self.clock.advance(PERIOD)
        self.assertEqual(self.told[1:], [Omitted("kind", "other", 20 - OF_ONE)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flush(self) -> None:
        """In the end there is no timer."""
        self.repeats = Repeats(self.clock.seconds, self.told.append, self.clock.callLater)
        self.write(OF_ONE + 1)
        self.repeats.flush()
        self.assertEqual(self.told, [Omitted("kind", "one", 1)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_clock_set_back(self) -> None:
        """A clock that is set back begins a new period."""
        self.clock.advance(1000)
        self.write(100)
        self.clock.rightNow = 5
        self.assertEqual(self.write(100), OF_ONE)

    @given(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.floats(0, 30)), max_size=200
        )
    )
    def test_none_is_lost(self, lines: list[tuple[str, int, float]]) -> None:
        """Each line is written or told of."""
        self.setUp()
        written = 0
        for kind, source, pause in lines:
            self.clock.advance(pause)
            written += self.write(3, kind=kind, source=str(source))
        self.repeats.flush()
        self.assertEqual(written + sum(each.lines for each in self.told), 3 * len(lines))


class OncePerPeriodTests(SynchronousTestCase):
    """:class:`synapse_login_module.common.repeats.OncePerPeriod`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lines = OncePerPeriod(self.clock.seconds)

    def test_one(self) -> None:
        """Of the lines of a period the first is written, and then that of the next period."""
        self.assertTrue(self.lines.is_written())
        self.clock.advance(PERIOD - 1)
        self.assertFalse(self.lines.is_written())
        self.clock.advance(1)
        self.assertTrue(self.lines.is_written())
        self.assertFalse(self.lines.is_written())

    def test_set_back(self) -> None:
        """A clock that is set back does not silence the log."""
        self.clock.advance(1000)
        self.assertTrue(self.lines.is_written())
        self.clock.rightNow = 10
        self.assertTrue(self.lines.is_written())
        self.assertFalse(self.lines.is_written())
