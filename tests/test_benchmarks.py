"""Tests of the tables and drawings of the benchmarks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import figures, plots
from benchmarks.figures import Row, Run
from tests.support import REPOSITORY
from tests.support.folders import temporary_folder

DOCS = REPOSITORY / "docs"
RATE = Row(
    "/tokenrefresh a second, 16 connections, against the bare resource",
    *("3792", "5709", 0.63, ">= 0.6", True),
)
STORM = Row(
    "/tokenrefresh p99 while 16 logins hash without pause, against calm",
    *("11.9 ms", "7.8 ms", 1.3, "<= 2.0", True),
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
