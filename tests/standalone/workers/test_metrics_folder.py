"""Tests for the folder of the workers' metrics."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.metrics.page import PROCESSES
from synapse_login_module.metrics.reservation import room_of_files
from synapse_login_module.standalone.workers.metrics_folder import MetricsFolder, folder_for
from tests.support.folders import temporary_folder
from tests.support.process import subprocess_environment

_HOLD = (
    "import sys, time; from pathlib import Path;"
    " from synapse_login_module.standalone.workers.metrics_folder import MetricsFolder;"
    " kept = MetricsFolder(Path(sys.argv[1])); print(kept.path, flush=True); time.sleep(600)"
)


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class MetricsFolderTests(SynchronousTestCase):
    """The folder."""

    def setUp(self) -> None:
        self.place = temporary_folder(self)

    def start(self, folder: MetricsFolder, number: int, pid: int | None) -> int:
        """Note that a worker was started, or was not; return its slot."""
        slot = folder.take_slot(number)
        assert slot is not None
        folder.started(slot, pid)
        return slot

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
            self.start(folder, number, 100 + number)
        self.assertEqual(folder.take_slot(3), 3)
        folder.ended(1, 101)
        self.assertEqual(folder.take_slot(1), 1)

    def test_gauges(self) -> None:
        """The gauges of a process that has ended go, and what it counted stays."""
        folder = MetricsFolder(self.place)
        self.addCleanup(folder.remove)
        self.start(folder, 1, 101)
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

        self.start(folder, 1, 101)
        self.start(folder, 1, 102)
        self.start(folder, 2, None)
        self.assertEqual(processes(), {"0": os.getpid(), "1": 102})
        folder.ended(1, 101)
        self.assertEqual(processes(), {"0": os.getpid(), "1": 102})
        folder.ended(2, 102)
        self.assertEqual(processes(), {"0": os.getpid()})

    def test_not_started(self) -> None:
        """A process that could not be started frees its slot, and no entry of another."""
        folder = MetricsFolder(self.place)
        self.addCleanup(folder.remove)
        folder.ended(self.start(folder, 1, None), None)
        self.assertEqual(self.start(folder, 1, 101), 1)
        folder.ended(self.start(folder, 1, None), None)
        self.assertEqual(json.loads((folder.path / PROCESSES).read_text())["1"], 101)

    def test_removed(self) -> None:
        """Workers start and end without the folder too; the log has one line of each kind."""
        folder = MetricsFolder(self.place)
        slot = self.start(folder, 1, 101)
        shutil.rmtree(folder.path)
        self.assertFalse(folder.is_there)
        with capturedLogs() as events:
            folder.started(slot, 102)
            folder.ended(slot, 102)
            for _ in range(3):
                self.assertIsNone(folder.take_slot(1))
        first, second = map(formatEvent, events)
        self.assertIn("processes are out of date: [Errno 2]", first)
        self.assertIn("worker 1 keeps no metrics: [Errno 2]", second)
        folder.remove()
        folder.remove()

    def test_full(self) -> None:
        """With a full disk workers end and start, and keep no metrics; the page is readable."""
        folder = MetricsFolder(self.place)
        self.addCleanup(folder.remove)
        slot = self.start(folder, 1, 101)
        self.patch(os, "posix_fallocate", _full)
        self.patch(Path, "write_text", _full)
        with capturedLogs() as events:
            self.assertIsNone(folder.take_slot(2))
            folder.ended(slot, 101)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "worker 2 keeps no metrics: [Errno 28] No space left on device",
                "the metrics of processes are out of date: [Errno 28] No space left on device",
            ],
        )
        left = sorted(path.name for path in folder.path.glob("*.db"))
        self.assertEqual(left, ["counter_1.db", "histogram_1.db"])

    def test_reserved(self) -> None:
        """A worker's files have their room on the disk before it starts."""
        folder = MetricsFolder(self.place)
        self.addCleanup(folder.remove)
        self.start(folder, 1, 101)
        for kind, size in room_of_files().items():
            found = (folder.path / f"{kind}_1.db").stat()
            self.assertEqual(found.st_size, size)
            self.assertGreaterEqual(found.st_blocks * 512, size)

    def test_again(self) -> None:
        """A folder that is still there is used again, and one that is gone is made anew."""
        self.patch(os, "environ", {**os.environ, "RUNTIME_DIRECTORY": str(self.place)})
        self.assertIsNone(folder_for(False, None))
        self.assertEqual(list(self.place.iterdir()), [])
        folder = folder_for(True, None)
        assert folder is not None
        self.assertEqual(folder.path.parent, self.place)
        self.assertIs(folder_for(True, folder), folder)
        shutil.rmtree(folder.path)
        fresh = folder_for(True, folder)
        assert fresh is not None
        self.addCleanup(fresh.remove)
        self.assertTrue(fresh.is_there)
        self.assertIsNot(fresh, folder)

    def test_left_without_lock(self) -> None:
        """A folder without a lock goes after an hour: another server may be making it."""
        old, new = (Path(mkdtemp(prefix="synapse-login-metrics-", dir=self.place)) for _ in "12")
        hours_ago = time.time() - 2 * 3600
        os.utime(old, (hours_ago, hours_ago))
        self.addCleanup(MetricsFolder(self.place).remove)
        self.assertFalse(old.exists())
        self.assertTrue(new.is_dir())

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
