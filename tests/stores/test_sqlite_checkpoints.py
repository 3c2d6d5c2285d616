"""Tests for the checkpoints beside the commits."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.stores.sqlite_checkpoints import Checkpoints
from synapse_login_module.stores.sqlite_connection import connect
from tests.support.folders import temporary_folder

TIMEOUT = 60.0
"""Seconds after which a thread that has not answered counts as hung."""

ROWS = 1200


class CheckpointTests(SynchronousTestCase):
    """A file whose rows fill a page each, and whose log grows with each row."""

    def setUp(self) -> None:
        self.path = temporary_folder(self) / "sessions.db"
        self.checkpoints = Checkpoints(lambda: connect(self.path))
        self.writer = self.checkpoints.connect()
        self.addCleanup(self.writer.close)
        self.writer.execute("CREATE TABLE rows (page BLOB)")

    def write(self, number: int) -> None:
        """Write rows in one transaction."""
        with self.writer:
            self.writer.execute("BEGIN")
            self.writer.executemany("INSERT INTO rows VALUES (?)", [(bytes(3000),)] * number)

    def size(self, suffix: str = "") -> int:
        """The size of the file, or of its log."""
        return self.path.with_name(self.path.name + suffix).stat().st_size

    def checkpoint(self, at_least: int) -> None:
        """Do what follows a commit, until the file has a size."""
        deadline = time.monotonic() + TIMEOUT
        while self.size() < at_least and time.monotonic() < deadline:
            self.checkpoints.committed(self.writer)
            time.sleep(0.001)
        self.assertGreaterEqual(self.size(), at_least)

    def start(self) -> None:
        """Start the thread."""
        self.checkpoints.start()
        self.addCleanup(self.checkpoints.stop)

    def test_commit(self) -> None:
        """A commit copies nothing into the file, also where the log is long."""
        before = self.size()
        self.write(ROWS)
        self.write(1)
        self.assertEqual(self.size(), before)

    def test_log_begins_anew(self) -> None:
        """Soon all is in the file, and the log grows no further."""
        self.start()
        self.write(ROWS)
        self.checkpoint(ROWS * 3000)
        deadline = time.monotonic() + TIMEOUT
        log = 0
        while log < self.size("-wal") and time.monotonic() < deadline:
            self.checkpoints.committed(self.writer)
            log = self.size("-wal")
            self.write(1)
        self.assertEqual(self.size("-wal"), log)

    def test_small_steps(self) -> None:
        """The thread copies a log of two hundred pages, and the writer copies nothing of it."""
        self.start()
        statements: list[str] = []
        self.writer.set_trace_callback(statements.append)
        self.write(200)
        self.checkpoint(200 * 3000)
        time.sleep(0.01)
        self.checkpoints.committed(self.writer)
        self.assertEqual([each for each in statements if "checkpoint" in each], [])

    def test_held_up(self) -> None:
        """Where a reader keeps the thread from copying, the writer does not copy instead."""
        with closing(connect(self.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM rows").fetchall()
            self.start()
            statements: list[str] = []
            self.writer.set_trace_callback(statements.append)
            before = self.size()
            self.write(ROWS)
            self.checkpoints.committed(self.writer)
            time.sleep(0.1)
            self.checkpoints.committed(self.writer)
            self.assertEqual([each for each in statements if "checkpoint" in each], [])
            self.assertEqual(self.size(), before)

    def test_few_rows(self) -> None:
        """A few rows stay in the log."""
        self.start()
        before = self.size()
        self.write(10)
        for _ in range(10):
            self.checkpoints.committed(self.writer)
            time.sleep(0.001)
        self.assertEqual(self.size(), before)

    def test_broken(self) -> None:
        """A checkpoint that fails does not end the thread."""
        attempts = []

        def fail_once() -> sqlite3.Connection:
            attempts.append(True)
            if len(attempts) == 1:
                raise sqlite3.OperationalError("told to")
            return connect(self.path)

        self.patch(self.checkpoints, "_connect", fail_once)
        self.start()
        self.write(ROWS)
        deadline = time.monotonic() + TIMEOUT
        self.checkpoints.committed(self.writer)
        while not attempts and time.monotonic() < deadline:
            time.sleep(0.001)
        self.write(ROWS)
        self.checkpoint(ROWS * 3000)
