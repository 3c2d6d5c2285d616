"""Tests for the folder of the workers' metrics."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.metrics.page import PROCESSES
from synapse_login_module.standalone.workers.metrics_folder import MetricsFolder
from tests.support.folders import temporary_folder
from tests.support.process import subprocess_environment

_HOLD = (
    "import sys, time; from pathlib import Path;"
    " from synapse_login_module.standalone.workers.metrics_folder import MetricsFolder;"
    " kept = MetricsFolder(Path(sys.argv[1])); print(kept.path, flush=True); time.sleep(600)"
)


class MetricsFolderTests(SynchronousTestCase):
    """The folder."""

    def setUp(self) -> None:
        self.place = temporary_folder(self)

    def test_private(self) -> None:
        """Only this user can read it, and it is gone when the server has stopped."""
        folder = MetricsFolder(self.place)
        self.assertEqual(stat.S_IMODE(folder.path.stat().st_mode), 0o700)
        folder.remove()
        self.assertEqual(list(self.place.iterdir()), [])

    def test_slots(self) -> None:
        """A slot is taken again once its process has ended: the number of files is bounded."""
        folder = MetricsFolder(self.place)
        self.addCleanup(folder.remove)
        for number in (1, 2):
            folder.started(folder.take_slot(), number, 100 + number)
        self.assertEqual(folder.take_slot(), 3)
        folder.ended(1, 101)
        self.assertEqual(folder.take_slot(), 1)

    def test_gauges(self) -> None:
        """The gauges of a process that has ended go, and what it counted stays."""
        folder = MetricsFolder(self.place)
        self.addCleanup(folder.remove)
        folder.started(1, 1, 101)
        names = ("counter_1.db", "histogram_1.db", "gauge_livesum_1.db", "gauge_livesum_11.db")
        for name in names:
            (folder.path / name).touch()
        folder.ended(1, 101)
        left = sorted(path.name for path in folder.path.glob("*.db"))
        self.assertEqual(left, ["counter_1.db", "gauge_livesum_11.db", "histogram_1.db"])

    def test_processes(self) -> None:
        """It names the processes that run; of two with one number, the one that began last."""
        folder = MetricsFolder(self.place)
        self.addCleanup(folder.remove)

        def processes() -> dict[str, int]:
            found: dict[str, int] = json.loads((folder.path / PROCESSES).read_text())
            return found

        folder.started(1, 1, 101)
        folder.started(2, 1, 102)
        folder.started(3, 2, None)
        self.assertEqual(processes(), {"0": os.getpid(), "1": 102})
        folder.ended(1, 101)
        self.assertEqual(processes(), {"0": os.getpid(), "1": 102})
        folder.ended(2, 102)
        self.assertEqual(processes(), {"0": os.getpid()})

    def test_left_behind(self) -> None:
        """What a server left that was killed goes with the next start; a living one's stays."""
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(self.place)],
            stdout=subprocess.PIPE,
            env=subprocess_environment(),
            text=True,
        )
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        assert holder.stdout is not None
        theirs = holder.stdout.readline().strip()
        holder.stdout.close()
        mine = MetricsFolder(self.place)
        self.assertTrue(os.path.isdir(theirs))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        another = MetricsFolder(self.place)
        self.assertFalse(os.path.exists(theirs))
        self.assertTrue(mine.path.is_dir())
        for folder in (mine, another):
            folder.remove()
