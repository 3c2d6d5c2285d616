"""Tests for the room that a worker's metrics may take."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.metrics.page import page_of_workers
from synapse_login_module.metrics.reservation import reserve, room_of_files
from tests.support.folders import temporary_folder
from tests.support.process import subprocess_environment

# Every metric gets as many series as there may be, with labels whose JSON is six times as long.
_FILL = """
import sys
from synapse_login_module.metrics.prometheus import metrics_of_worker
from synapse_login_module.metrics.recording import MAX_SERIES, Metric

metrics = metrics_of_worker("1")
for metric in list(vars(metrics).values()):
    if isinstance(metric, Metric):
        for number in range(MAX_SERIES + 5):
            metric.of(*(f"{number:03}" + end * 200 for end, _ in zip("xyz", metric.other)))
            metric.of(*(f"{number:03}" + "\\u20ac" * 200 for _ in metric.other))
metrics.sample()
"""


class ReservationTests(SynchronousTestCase):
    """The room for files."""

    def test_enough(self) -> None:
        """However many series there are, the files stay as large as they were reserved."""
        folder = temporary_folder(self)
        reserve(folder, "1")
        subprocess.run(
            [sys.executable, "-c", _FILL],
            env={**subprocess_environment(), "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            check=True,
            timeout=120,
        )
        sizes = {path.name: path.stat().st_size for path in folder.glob("*.db")}
        self.assertEqual(sizes, {f"{kind}_1.db": size for kind, size in room_of_files().items()})
        self.assertIn(b"synapse_login_limits_hit_total", page_of_workers(folder)([]))

    def test_unused(self) -> None:
        """The page is readable while a worker has written nothing yet."""
        folder = temporary_folder(self)
        reserve(folder, "1")
        self.assertEqual(page_of_workers(folder)([]), b"")

    def test_kept(self) -> None:
        """Reserving again keeps what is in the files."""
        folder = temporary_folder(self)
        (folder / "counter_1.db").write_bytes(b"content")
        reserve(folder, "1")
        self.assertEqual((folder / "counter_1.db").read_bytes()[:8], b"content\0")
