"""Tests for work that commands do in a reactor, each in a process, which has one reactor."""

from __future__ import annotations

import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support.process import run, subprocess_environment
from tests.support.waiting import TIMEOUT

_WORK = """
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from synapse_login_module.common.console import run_in_reactor

async def work(reactor):
    try:
        {}
    finally:
        await deferLater(reactor, 0)
        print("cleaned up", flush=True)

try:
    print(run_in_reactor(work))
except BaseException as error:
    print(repr(error))
"""


class RunTests(SynchronousTestCase):
    """run_in_reactor."""

    def assert_prints(self, work: str, *lines: str) -> None:
        """A process that does some work prints these lines, and nothing goes to its log."""
        done = run([sys.executable, "-c", _WORK.format(work)])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.splitlines(), ["cleaned up", *lines])

    def test_result(self) -> None:
        """What the work returns is returned."""
        self.assert_prints("return await deferLater(reactor, 0, lambda: 7)", "7")
        self.assert_prints("return 8", "8")

    def test_failure(self) -> None:
        """What the work fails with is raised, whatever it is."""
        self.assert_prints("raise ValueError(5)", "ValueError(5)")
        self.assert_prints("await deferLater(reactor, 0, int, 'x')", *_problem("int('x')"))

    def test_early_signal(self) -> None:
        """So does work that one ends before the reactor runs."""
        self.assert_prints("raise KeyboardInterrupt", "KeyboardInterrupt()")

    def test_signal(self) -> None:
        """Work that a signal ends still cleans up."""
        work = "await deferLater(reactor, 0); print(1, flush=True); await Deferred()"
        for number in (signal.SIGINT, signal.SIGTERM):
            with subprocess.Popen(
                [sys.executable, "-c", _WORK.format(work)],
                stdout=subprocess.PIPE,
                text=True,
                env=subprocess_environment(),
            ) as process:
                assert process.stdout is not None
                self.assertEqual(process.stdout.readline(), "1\n")
                process.send_signal(number)
                said = process.communicate(timeout=TIMEOUT)[0].splitlines()
            self.assertEqual(said, ["cleaned up", "KeyboardInterrupt()"])


def _problem(expression: str) -> list[str]:
    try:
        eval(expression)
    except ValueError as error:
        return [repr(error)]
    raise AssertionError(expression)
