"""Tests of the tables and drawings of the benchmarks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import replace
from functools import partial
from io import StringIO
from itertools import count as counter
from math import comb
from statistics import median
from xml.etree import ElementTree

from hypothesis import given
from hypothesis.strategies import floats, integers, lists
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks import figures, machine, plots, running
from benchmarks.figures import FAILED, Row, Run
from benchmarks.machine import Processors
from benchmarks.rounds import Rounds, interleaved
from benchmarks.spread import MISSED, NEAR, REACHED, SURE, judge, spread
from tests.support import REPOSITORY
from tests.support.folders import temporary_folder

DOCS = REPOSITORY / "docs"
RATE = Row(
    "/tokenrefresh a second, 16 connections, against the bare resource",
    *("3792", "5709", 0.63, 0.62, 0.65, ">= 0.6", "reached"),
)
STORM = Row(
    "/tokenrefresh p99 while 16 logins hash without pause, against calm",
    *("11.9 ms", "7.8 ms", 1.3, 1.1, 1.6, "<= 1.5", "near", True, 0.234),
)


class CommittedTests(SynchronousTestCase):
    """What docs/ shows of the figures."""

    def test_tables(self) -> None:
        """The tables of docs/benchmarks.rst are those of docs/benchmarks.json."""
        page = (DOCS / "benchmarks.rst").read_text("utf-8")
        self.assertEqual(figures.into(page, figures.read(DOCS / "benchmarks.json")), page)

    def test_plots(self) -> None:
        """The drawings in docs/plots are those of docs/benchmarks.json, and no others."""
        drawn = dict(plots.draw(figures.read(DOCS / "benchmarks.json")))
        found = {each.stem: each.read_text("utf-8") for each in (DOCS / "plots").iterdir()}
        self.assertEqual(found, drawn)
        self.assertEqual(set(drawn), {"growth", "rates", "storm", "synapse"})

    def test_command(self) -> None:
        """The command draws figures that are there, and measures nothing."""
        folder = temporary_folder(self)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks", "--from", DOCS / "benchmarks.json"),
                *("--plot", folder / "plots", "--json", folder / "same.json"),
            ],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        self.assertIn("| /tokenrefresh p50 ", done.stdout)
        drawing = (folder / "plots" / "rates.svg").read_text("utf-8")
        self.assertEqual(drawing, (DOCS / "plots" / "rates.svg").read_text("utf-8"))
        self.assertEqual(
            (folder / "same.json").read_text("utf-8"), (DOCS / "benchmarks.json").read_text("utf-8")
        )


class FiguresTests(SynchronousTestCase):
    """Figures as a file and as tables."""

    def test_file(self) -> None:
        """What is written is read again."""
        path = temporary_folder(self) / "figures.json"
        runs = [Run("a machine", [RATE, Row("bytes a session", "251")]), Run("another", [STORM])]
        figures.write(path, runs)
        self.assertEqual(figures.read(path), runs)

    def test_known(self) -> None:
        """A row says how well its ratio is known."""
        self.assertIn("| 0.63 | 0.62 to 0.65 | >= 0.6 | reached |", _text(RATE))
        alone = Row("p99", "1.5 ms", low=1.44, high=1.8)
        self.assertIn("| 1.5 ms | | | 1.4 to 1.8 |", _text(alone))

    def test_busy(self) -> None:
        """A row that needs a quiet machine says when it was not quiet; the others do not."""
        self.assertIn("(machine busy: 23 % of it elsewhere)", _text(STORM))
        self.assertNotIn("busy", _text(replace(STORM, elsewhere=0.05)))
        self.assertNotIn("busy", _text(replace(STORM, quiet=False)))

    def test_width(self) -> None:
        """A table is at most 100 characters wide, however long a text is."""
        text = figures.tables([Run("words " * 40, [Row("many words " * 30, "1", "2", 0.5)])])
        self.assertLessEqual(max(map(len, text.splitlines())), 100)
        self.assertEqual(text.count("many"), 30)

    def test_other_text_stays(self) -> None:
        """New tables replace the old ones, and the text around them stays."""
        first = figures.into(
            f"before\n\n{figures._BEGIN}{figures._END}\nafter\n", [Run("a", [RATE])]
        )
        second = figures.into(first, [Run("b", [STORM])])
        self.assertTrue(second.startswith("before\n"))
        self.assertTrue(second.endswith("\nafter\n"))
        self.assertIn("7.8 ms", second)
        self.assertNotIn("3792", second)

    def test_no_place(self) -> None:
        """A document without a place for the tables is refused."""
        self.assertRaises(ValueError, figures.into, "some page\n", [Run("a", [RATE])])


def _text(row: Row) -> str:
    """Return a table of one row without its line breaks and alignment."""
    lines = figures.tables([Run("a machine", [row])]).splitlines()
    first = " ".join(line.split("|")[1].strip() for line in lines if line.startswith("|"))
    return " ".join([first, *" ".join(lines).split()])


class SpreadTests(SynchronousTestCase):
    """How well a median is known."""

    def test_few(self) -> None:
        """Up to seven values, it lies between the lowest and the highest."""
        for count in range(1, 8):
            values = list(range(count))
            self.assertEqual(spread(values), (0, median(values), count - 1))

    def test_more(self) -> None:
        """With more values, the outermost ones no longer count."""
        self.assertEqual(spread([5, 1, 7, 3, 900, 2, 6, 4]), (2, 4.5, 7))
        self.assertEqual(spread(range(40)), (14, 19.5, 25))

    @given(lists(floats(0.01, 100), min_size=1, max_size=60), floats(0.1, 10))
    def test_properties(self, values: list[float], factor: float) -> None:
        """The median is inside; neither the order nor the unit of the values matters."""
        found = spread(values)
        self.assertLessEqual(min(values), found.low)
        self.assertLessEqual(found.low, found.middle)
        self.assertLessEqual(found.middle, found.high)
        self.assertLessEqual(found.high, max(values))
        self.assertEqual(spread(values[::-1]), found)
        scaled = spread([factor * each for each in values])
        self.assertEqual((scaled.low, scaled.high), (factor * found.low, factor * found.high))

    @given(integers(5, 200))
    def test_sure(self, count: int) -> None:
        """It holds the true median often enough, and one value less at each end would not do."""
        cut = int(spread(range(count)).low)

        def holds(outside: int) -> float:
            """Return the probability, from the binomial distribution of the values below."""
            return (
                sum(comb(count, below) for below in range(outside, count - outside + 1))
                / 2.0**count
            )

        self.assertGreaterEqual(holds(cut + 1), SURE)
        self.assertLess(holds(cut + 2), SURE)

    def test_judge(self) -> None:
        """A limit is reached or missed when the whole interval says so, else it is near."""
        for low, high, least, most, verdict in (
            (0.86, 0.90, 0.85, None, REACHED),
            (0.85, 0.90, 0.85, None, REACHED),
            (0.84, 0.90, 0.85, None, NEAR),
            (0.80, 0.84, 0.85, None, MISSED),
            (1.2, 1.5, None, 1.5, REACHED),
            (1.2, 1.6, None, 1.5, NEAR),
            (1.6, 1.7, None, 1.5, MISSED),
            (0.98, 1.01, 0.97, 1.03, REACHED),
            (0.96, 1.01, 0.97, 1.03, NEAR),
            (1.2, 1.5, None, None, ""),
        ):
            self.assertEqual(judge(low, high, least, most), verdict, (low, high, least, most))


class RoundsTests(SynchronousTestCase):
    """Sides that are measured in turn."""

    def test_order(self) -> None:
        """Every second round has the order of the one before it, backwards."""
        order: list[tuple[str, int]] = []

        def side(name: str, number: int) -> float:
            order.append((name, number))
            return 1.0

        interleaved(6, {name: partial(side, name) for name in "abc"})
        rounds = [[name for name, number in order if number == each] for each in range(6)]
        self.assertTrue(all(sorted(each) == ["a", "b", "c"] for each in rounds))
        self.assertEqual(rounds[1::2], [each[::-1] for each in rounds[::2]])

    def test_drift(self) -> None:
        """A machine that slows down evenly favours no side."""
        clock = counter(100)
        sides = {name: lambda _: float(next(clock)) for name in ("here", "yardstick")}
        row = interleaved(8, sides).compared("a", "here", "yardstick", float)
        assert row.ratio is not None
        self.assertAlmostEqual(row.ratio, 1, places=2)

    def test_compared(self) -> None:
        """The ratio is the median of the pairs' ratios, not that of the medians."""
        rounds = Rounds({"here": [1.0, 20.0, 300.0], "there": [2.0, 50.0, 400.0]}, 0.2)
        row = rounds.compared("a", "here", "there", float, least=0.4, quiet=True)
        self.assertEqual((row.here, row.yardstick, row.ratio), ("20", "50", 0.5))
        self.assertEqual((row.low, row.high, row.verdict), (0.4, 0.75, REACHED))
        self.assertEqual((row.quiet, row.elsewhere), (True, 0.2))

    def test_measured(self) -> None:
        """A side alone is held against a limit in its own unit."""
        row = Rounds({"here": [1.0, 2.0, 1.5]}).measured("p99", "here", float, most=2, unit="ms")
        self.assertEqual((row.here, row.reach, row.verdict), ("1.5 ms", "<= 2 ms", REACHED))


class RunningTests(SynchronousTestCase):
    """Measurements one after the other."""

    def _rows(self, *measurements: Callable[[], Iterator[Row]]) -> tuple[list[Row], str]:
        """Return the rows, and what was printed."""
        said = StringIO()
        with redirect_stderr(said):
            rows = running.run({f"number {n}": each for n, each in enumerate(measurements, 1)})
        return rows, said.getvalue()

    def test_failure(self) -> None:
        """One that fails keeps the rows that it has made, and does not end the others."""

        def broken() -> Iterator[Row]:
            yield STORM
            raise ValueError("it does not start")

        rows, said = self._rows(broken, lambda: iter([RATE]))
        self.assertEqual(rows, [STORM, Row("number 1", verdict=FAILED), RATE])
        self.assertIn("it does not start", said)
        self.assertIn("number 2 (2 of 2, ", said)

    def test_missing_program(self) -> None:
        """One that needs a program that is not there is left out."""

        def without() -> Iterator[Row]:
            raise SkipTest("slapd is not installed")
            yield RATE

        rows, said = self._rows(without, lambda: iter([RATE]))
        self.assertEqual(rows, [RATE])
        self.assertIn("number 1: left out: slapd is not installed", said)

    def test_exit_status(self) -> None:
        """The command fails when a measurement has failed, and writes the others' figures."""
        folder = temporary_folder(self)
        figures.write(folder / "a.json", [Run("a", [RATE, Row("the storm", verdict=FAILED)])])
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "--from", folder / "a.json", "--plot", folder],
            cwd=REPOSITORY,
            capture_output=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 1)
        self.assertTrue((folder / "rates.svg").exists())

    def test_publish(self) -> None:
        """What is published is of all measurements."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "--publish", "--only", "storm"],
            cwd=REPOSITORY,
            capture_output=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"leave out --only", done.stderr)


class ProcessorsTests(SynchronousTestCase):
    """What other programs take of the processors."""

    def test_share(self) -> None:
        """It is a share of all that there is."""
        self.assertTrue(0 <= Processors().elsewhere() <= 1)

    def test_ours(self) -> None:
        """What this process and its children take is counted as its own, also when they ended."""
        before = sum(machine._ticks_of_ours())
        burn = "import time\nwhile time.process_time() < 0.2: pass"
        subprocess.run([sys.executable, "-c", burn], check=True)
        self.assertGreaterEqual(sum(machine._ticks_of_ours()) - before, 15)


class PlotsTests(SynchronousTestCase):
    """The drawings."""

    def test_well_formed(self) -> None:
        """Each is XML with a name, and has colours for a dark page."""
        for name, drawing in plots.draw(figures.read(DOCS / "benchmarks.json")):
            root = ElementTree.fromstring(drawing)
            self.assertTrue(root.get("aria-label"), name)
            self.assertIn("prefers-color-scheme: dark", drawing)

    def test_bar(self) -> None:
        """A rate is a bar as long as its ratio, with its figures and the least to reach."""
        ((name, drawing),) = plots.draw([Run("a", [RATE, replace(RATE, ratio=0.315)])])
        self.assertEqual(name, "rates")
        self.assertIn("0.63: 3792 of 5709", drawing)
        bars = [
            float(each.get("width", ""))
            for each in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}rect")
            if each.get("class") == "here"
        ]
        self.assertAlmostEqual(bars[0], 2 * bars[1], places=0)

    def test_nothing(self) -> None:
        """Without figures of a kind, its drawing is left out."""
        self.assertEqual([name for name, _ in plots.draw([Run("a", [STORM])])], ["storm"])
        self.assertEqual(list(plots.draw([])), [])
