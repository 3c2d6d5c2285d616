"""Tests for the checkpoints beside the commits."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Semaphore

from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.stores.sqlite_checkpoints import Checkpoints, _Copied
from synapse_login_module.stores.sqlite_connection import connect
from tests.chaos.test_disk_full import Disk
from tests.support.folders import temporary_folder

TIMEOUT = 60.0
"""Seconds after which a thread that has not answered counts as hung."""

ROWS = 1200


class CheckpointTestCase(SynchronousTestCase):
    """A file whose rows fill a page each, and whose log grows with each row."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.open(temporary_folder(self))

    def open(self, folder: Path) -> None:
        """Make the file."""
        self.path = folder / "sessions.db"
        self.checkpoints = Checkpoints(lambda: connect(self.path, timeout=0), self.clock.seconds)
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

    def let_thread_copy(self) -> None:
        """Do what follows a commit, until the thread has copied, and seen what it copied."""
        copied = Semaphore(0)
        copy = self.checkpoints._copy

        def copy_and_tell(connected: Callable[[], sqlite3.Connection]) -> object:
            try:
                return copy(connected)
            finally:
                copied.release()

        patch = self.patch(self.checkpoints, "_copy", copy_and_tell)
        self.checkpoints.committed(self.writer)
        self.assertTrue(copied.acquire(timeout=TIMEOUT))
        self.checkpoints._wanted.set()  # a second time begins once the first is over
        self.assertTrue(copied.acquire(timeout=TIMEOUT))
        patch.restore()

    def reader(self) -> sqlite3.Connection:
        """A connection in a transaction that reads, which holds up the copying."""
        reader = connect(self.path)
        self.addCleanup(reader.close)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM rows").fetchall()
        return reader

    def start(self) -> None:
        """Start the thread."""
        self.checkpoints.start()
        self.addCleanup(self.checkpoints.stop)


class CheckpointTests(CheckpointTestCase):
    """Checkpoints that succeed."""

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
        self.let_thread_copy()
        self.assertGreater(self.size(), 200 * 3000)
        self.checkpoints.committed(self.writer)
        self.assertEqual([each for each in statements if "checkpoint" in each], [])

    def test_held_up(self) -> None:
        """Where a reader keeps the thread from copying, the writer does not copy instead."""
        self.reader()
        self.start()
        statements: list[str] = []
        self.writer.set_trace_callback(statements.append)
        before = self.size()
        self.write(ROWS)
        self.let_thread_copy()
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


class LongLogTests(CheckpointTestCase):
    """A log that is never all in the file when a commit ends.

    The thread that copies is not started: each commit here finds that it has copied.
    """

    PAGES = 12_000

    def commit(self, rows: int) -> None:
        """Commit rows, and do what follows."""
        self.write(rows)
        self.checkpoints._copied.set()
        self.checkpoints.committed(self.writer)

    def restarts(self) -> list[str]:
        """Return a list that the tries to have the log begin anew are added to."""
        found: list[str] = []
        self.writer.set_trace_callback(
            lambda statement: found.append(statement) if "RESTART" in statement else None
        )
        return found

    def test_two_writers(self) -> None:
        """Where another process commits while the rest is copied, the log stays short."""
        other = self.checkpoints.connect()
        self.addCleanup(other.close)
        copy = self.checkpoints._copy

        def copy_meanwhile(connected: Callable[[], sqlite3.Connection]) -> object:
            other.execute("BEGIN IMMEDIATE")
            pages = copy(connected)
            other.execute("INSERT INTO rows VALUES (NULL)")
            other.execute("COMMIT")
            return pages

        self.patch(self.checkpoints, "_copy", copy_meanwhile)
        for _ in range(self.PAGES // 500):
            self.commit(500)
        self.assertLess(self.size("-wal"), self.PAGES // 2 * 4096)

    def test_reader_stays(self) -> None:
        """A reader delays few commits, and the log begins anew once it has ended."""
        reader = self.reader()
        tries = self.restarts()
        for _ in range(self.PAGES // 100):
            self.commit(100)
        self.assertIn(len(tries), (1, 2, 3))
        self.assertEqual(self.writer.execute("PRAGMA busy_timeout").fetchone(), (0,))
        reader.execute("COMMIT")
        size = self.size("-wal")
        for _ in range(self.PAGES // 100):
            self.commit(100)
        self.assertLess(self.size("-wal"), size + 5000 * 4096)

    def test_much_left(self) -> None:
        """Once a reader has ended, the thread copies the log that it held up, not the writer."""
        reader = self.reader()
        statements: list[str] = []
        self.writer.set_trace_callback(statements.append)
        self.start()
        self.write(5_000)
        self.let_thread_copy()
        reader.execute("COMMIT")
        self.checkpoints.committed(self.writer)
        self.assertEqual([each for each in statements if "checkpoint" in each], [])
        self.write(100)
        self.checkpoint(5_000 * 3000)

    def test_checkpoint_elsewhere(self) -> None:
        """While another process makes a checkpoint, what is known of the log stays."""
        self.checkpoints._restart_above = before = 12_000
        self.checkpoints._see_length(self.writer, _Copied(-1, 0))
        self.assertEqual(self.checkpoints._restart_above, before)
        self.patch(self.checkpoints, "_restart", lambda connection: False)
        self.checkpoints._see_length(self.writer, _Copied(before + 1, 10))
        self.assertEqual(self.checkpoints._restart_above, before)

    def test_short(self) -> None:
        """A log that is short is left alone."""
        tries = self.restarts()
        for _ in range(20):
            self.commit(100)
        self.assertEqual(tries, [])


class FailingTests(CheckpointTestCase):
    """Checkpoints that fail for a time."""

    def fail_first(self, *firsts: Callable[[], sqlite3.Connection]) -> list[int]:
        """Have the thread's first connections made by these.

        :return: the number of each connection so far.
        """
        attempts: list[int] = []

        def connect_again() -> sqlite3.Connection:
            attempts.append(len(attempts))
            return [*firsts, lambda: connect(self.path)][min(attempts[-1], len(firsts))]()

        self.patch(self.checkpoints, "_connect", connect_again)
        return attempts

    def until(self, is_so: Callable[[], bool], rows: int = 20) -> None:
        """Commit a few rows each, until something is so."""
        deadline = time.monotonic() + TIMEOUT
        while not is_so() and time.monotonic() < deadline:
            self.write(rows)
            self.checkpoints.committed(self.writer)
            time.sleep(0.0001)
        self.assertTrue(is_so())

    def check_it_recovers(self, first: Callable[[], sqlite3.Connection], problem: str) -> None:
        """Check that the thread takes another connection, and copies with it."""
        attempts = self.fail_first(first)
        with capturedLogs() as events:
            self.start()
            self.write(ROWS)
            self.until(lambda: len(attempts) > 1)
            self.checkpoint(ROWS * 3000)
        (line,) = lines(events)
        self.assertTrue(line.startswith("a checkpoint of the sessions failed, and is tried again"))
        self.assertIn(problem, line)
        self.assertEqual(len(attempts), 2)

    def test_not_connected(self) -> None:
        """Without a connection the thread goes on, whatever is raised."""

        def locked() -> sqlite3.Connection:
            raise sqlite3.OperationalError("database is locked")

        def no_memory() -> sqlite3.Connection:
            raise MemoryError("told to")

        self.check_it_recovers(locked, "database is locked")
        self.checkpoints.stop()
        self.open(temporary_folder(self))
        self.check_it_recovers(no_memory, "told to")

    def test_read_only(self) -> None:
        """A connection that may not write is replaced."""

        def read_only() -> sqlite3.Connection:
            return sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )

        self.check_it_recovers(read_only, "error")

    def test_closed(self) -> None:
        """A connection that is closed is replaced."""

        def closed() -> sqlite3.Connection:
            connection = connect(self.path)
            connection.close()
            return connection

        self.check_it_recovers(closed, "closed")

    def test_told_now_and_then(self) -> None:
        """A failure is logged, and those of the next minute are not."""

        def fail() -> sqlite3.Connection:
            raise sqlite3.OperationalError("disk I/O error")

        attempts = self.fail_first(*[fail] * 10)
        with capturedLogs() as events:
            self.start()
            for minute, failed in enumerate((3, 6)):
                self.until(partial(lambda failed: len(attempts) >= failed, failed))
                self.assertEqual(len(lines(events)), minute + 1)
                self.clock.advance(60)

    def test_writer_cannot_copy(self) -> None:
        """The thread that writes goes on where it cannot copy."""
        self.start()
        with capturedLogs() as events:
            self.write(ROWS)
            self.checkpoints.committed(self.writer)
            deadline = time.monotonic() + TIMEOUT
            while not self.checkpoints._copied.is_set() and time.monotonic() < deadline:
                time.sleep(0.001)
            self.writer.execute("BEGIN IMMEDIATE")  # within a transaction, it is refused
            self.checkpoints.committed(self.writer)
            self.writer.execute("COMMIT")
        (line,) = lines(events)
        self.assertIn("locked", line)

    def test_full_disk(self) -> None:
        """Where the file cannot grow, commits go on while the log has room. All is copied once
        there is room again.
        """
        disk = Disk(temporary_folder(self) / "disk")
        self.addCleanup(disk.unmount)
        self.open(disk.folder)
        self.addCleanup(self.writer.close)
        self.write(800)
        self.writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        before = self.size()
        disk.fill()
        with capturedLogs() as events:
            self.start()
            self.write(400)
            self.until(lambda: bool(lines(events)), rows=1)
            self.assertEqual(lines(events)[0].rpartition(": ")[2], "database or disk is full")
        self.assertLess(self.size(), before + 400 * 3000)
        disk.free()
        self.write(400)
        self.checkpoint(1600 * 3000)
        self.checkpoints.stop()

    def test_reader(self) -> None:
        """A reader that holds up the copying is no failure. All is copied once it has ended."""
        reader = self.reader()
        before = self.size()
        with capturedLogs() as events:
            self.start()
            self.write(ROWS)
            for _ in range(10):
                self.checkpoints.committed(self.writer)
                time.sleep(0.001)
            self.assertEqual(self.size(), before)
            reader.execute("COMMIT")
            self.write(ROWS)
            self.checkpoint(2 * ROWS * 3000)
        self.assertEqual(events, [])


def lines(events: Sequence[LogEvent]) -> list[str]:
    """The texts of log events."""
    return [formatEvent(each) for each in events]
