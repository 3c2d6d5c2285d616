"""Tests for the progress bar."""

from __future__ import annotations

import io
import os
import sys

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.commands.progress import DELAY, progress, shows_progress


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class ProgressTests(SynchronousTestCase):
    """The bar on standard error."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.error = Terminal()
        self.output = io.StringIO()
        self.patch(sys, "stderr", self.error)
        self.patch(sys, "stdout", self.output)

    def work(self, total: int = 10, prints: bool = False, step: float = 1.0) -> str:
        """Do all in steps of two; return what is shown."""
        with progress("working", total, prints, self.clock.seconds) as update:
            for _ in range(5):
                self.clock.advance(step)
                update(2)
        return self.error.getvalue()

    def test_bar(self) -> None:
        """After a second, a bar with a label appears on standard error alone, and gets full."""
        said = self.work()
        self.assertIn("working", said)
        self.assertIn("20%", said)
        self.assertIn("100%", said)
        self.assertTrue(said.endswith("\n"))
        self.assertEqual(self.output.getvalue(), "")

    def test_short(self) -> None:
        """Work that is done within a second shows nothing, and neither does nothing to do."""
        self.assertEqual(self.work(step=DELAY / 6), "")
        self.assertEqual(self.work(total=0), "")

    def test_late(self) -> None:
        """What was done before the bar appears is counted."""
        said = self.work(step=DELAY / 2)
        self.assertIn("40%", said)
        self.assertNotIn("20%", said)

    def test_no_terminal(self) -> None:
        """Nothing is shown where standard error is no terminal."""
        self.patch(sys, "stderr", io.StringIO())
        self.assertFalse(shows_progress())
        self.assertEqual(self.work(), "")

    def test_pipe(self) -> None:
        """Nothing is shown while standard output is a pipe."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        with os.fdopen(writer, "w") as output:
            self.patch(sys, "stdout", output)
            self.assertEqual(self.work(), "")

    def test_prints(self) -> None:
        """While lines are printed to the terminal, no bar is shown between them."""
        self.patch(sys, "stdout", Terminal())
        self.assertEqual(self.work(prints=True), "")
        self.assertNotEqual(self.work(), "")
