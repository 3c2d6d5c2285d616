"""Tests for the thread that commits many pieces of work in one transaction."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import StoreUnavailable, UnknownToken
from synapse_login_module.stores.group_commit import GroupCommitThread

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds after which a thread that has not answered counts as hung."""


class ThreadCalls:
    """Stands in for a reactor: keeps the calls from threads until a test makes them."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Keep a call."""
        self._calls.put(lambda: function(*arguments))

    def callLater(
        self, seconds: float, function: Callable[..., object], *arguments: object
    ) -> None:
        """Keep a call, for the next turn."""
        self._calls.put(lambda: function(*arguments))

    def deliver(self, count: int = 1) -> None:
        """Make ``count`` calls; raise ``queue.Empty`` when they do not come."""
        for _ in range(count):
            self._calls.get(timeout=TIMEOUT)()

    def deliver_all(self) -> None:
        """Make the waiting calls."""
        while not self._calls.empty():
            self._calls.get()()

    def wait_for(self, *deferreds: Deferred[Any]) -> None:
        """Make calls until all of these Deferreds have fired."""
        while not all(each.called and not each.paused for each in deferreds):
            self.deliver()


class Recorded(sqlite3.Connection):
    """A connection that records its statements."""

    journal: list[str]
    fail_on: str | None = None

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        """Execute and record."""
        self.journal.append(sql)
        if self.fail_on is not None and sql.startswith(self.fail_on):
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *arguments)

    def close(self) -> None:
        """Close and record."""
        self.journal.append("close")
        super().close()


class GroupCommitTestCase(SynchronousTestCase):
    """A thread on a file with one table, not started yet."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.journal: list[str] = []
        self.setup: list[str] = []
        self.connection: Recorded | None = None
        self.refusals = 0
        self.calls = ThreadCalls()
        connection = sqlite3.connect(self.path)
        connection.execute("CREATE TABLE items (name TEXT UNIQUE NOT NULL)")
        connection.close()
        self.thread = GroupCommitThread(self.connect, self.call_from_thread, self.calls.callLater)
        self.started = False
        self.addCleanup(self.stop)

    def connect(self) -> sqlite3.Connection:
        """Connect, or fail while refusals are left."""
        self.journal.append("connect")
        if self.refusals:
            self.refusals -= 1
            raise sqlite3.OperationalError("unable to open database file")
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, factory=Recorded
        )
        connection.journal = []
        for statement in self.setup:
            connection.execute(statement)
        connection.journal = self.journal
        self.connection = connection
        return connection

    def call_from_thread(self, function: Callable[..., object], *arguments: object) -> None:
        """Record when the thread delivers results."""
        if threading.current_thread() is not threading.main_thread():
            self.journal.append("deliver")
        self.calls.callFromThread(function, *arguments)

    def start(self) -> None:
        """Start the thread."""
        self.started = True
        self.thread.start()

    def stop(self) -> None:
        """Stop the thread, if it runs."""
        if self.started:
            self.started = False
            self.thread.stop()

    def put(self, name: str | None) -> Deferred[str | None]:
        """Insert a row; fires with its name."""

        def work(connection: sqlite3.Connection) -> str | None:
            connection.execute("INSERT INTO items VALUES (?)", (name,))
            return name

        return self.thread.run(work)

    def raising(self, error: Exception, first: str | None = None) -> Deferred[None]:
        """Run work that raises, after it has written ``first`` if that is given."""

        def work(connection: sqlite3.Connection) -> None:
            if first is not None:
                connection.execute("INSERT INTO items VALUES (?)", (first,))
            raise error

        return self.thread.run(work)

    def wait_for(self, deferred: Deferred[T]) -> T:
        """Wait for a Deferred, and return its result."""
        self.calls.wait_for(deferred)
        return self.successResultOf(deferred)

    def wait_for_failure(self, deferred: Deferred[Any], *errors: type[Exception]) -> Exception:
        """Wait for a Deferred to fail, and return its error."""
        self.calls.wait_for(deferred)
        error = self.failureResultOf(deferred, *errors).value
        assert isinstance(error, Exception)
        return error

    def rows(self) -> list[str]:
        """Read the table over another connection."""
        connection = sqlite3.connect(self.path)
        try:
            return [row[0] for row in connection.execute("SELECT name FROM items ORDER BY name")]
        finally:
            connection.close()


class TransactionTests(GroupCommitTestCase):
    """Work that succeeds."""

    def test_many_in_one(self) -> None:
        """Waiting work runs in one transaction, and each piece gets its own result."""
        pieces = [self.put(f"item {number:03}") for number in range(100)]
        self.start()
        self.calls.wait_for(*pieces)
        self.assertEqual(
            [self.successResultOf(piece) for piece in pieces],
            [f"item {number:03}" for number in range(100)],
        )
        self.assertEqual(
            self.journal,
            [
                "connect",
                "BEGIN IMMEDIATE",
                *["INSERT INTO items VALUES (?)"] * 100,
                "COMMIT",
                "deliver",
            ],
        )

    def test_gathers(self) -> None:
        """Work that comes in consecutive turns of the reactor runs in one transaction."""
        self.start()
        pieces = [self.put("alice")]
        for name in ("bob", "carol", "dora"):
            pieces.append(self.put(name))
            self.calls.deliver()
        self.assertEqual(self.journal, [])
        self.calls.wait_for(*pieces)
        self.assertEqual(self.journal.count("COMMIT"), 1)
        self.assertEqual(self.rows(), ["alice", "bob", "carol", "dora"])

    def test_gathers_what_comes_of_answers(self) -> None:
        """Work that the callbacks of one transaction begin shares the next transaction."""
        pieces = [self.put(name) for name in ("alice", "bob", "carol")]
        more: list[Deferred[str | None]] = []
        for piece in pieces:
            piece.addCallback(lambda name: more.append(self.put(f"{name}'s friend")))
        self.start()
        self.calls.wait_for(*pieces)
        self.calls.wait_for(*more)
        self.assertEqual(len(more), 3)
        self.assertEqual(self.journal.count("COMMIT"), 2)

    def test_enough(self) -> None:
        """Work is committed even while every turn of the reactor brings more."""
        self.start()
        first = self.put("first")
        for number in range(1000):
            self.put(f"item {number}")
            self.calls.deliver()
            if first.called:
                break
        self.assertEqual(self.successResultOf(first), "first")
        self.assertEqual(self.journal.count("COMMIT"), 1)

    def test_in_order(self) -> None:
        """Pieces of work run in the order in which they came."""
        done: list[int] = []
        pieces = [
            self.thread.run(lambda connection, number=number: done.append(number))  # type: ignore[misc]
            for number in range(20)
        ]
        self.start()
        self.calls.wait_for(*pieces)
        self.assertEqual(done, list(range(20)))

    def test_result_after_commit(self) -> None:
        """No Deferred fires before its commit: other connections see the write by then."""
        seen: list[int] = []

        def look(name: str | None) -> str | None:
            seen.append(len(self.rows()))
            return name

        self.start()
        for number in range(5):
            self.wait_for(self.put(f"item {number}").addCallback(look))
        self.assertEqual(seen, [1, 2, 3, 4, 5])
        commits = [
            each for each in self.journal if each in ("BEGIN IMMEDIATE", "COMMIT", "deliver")
        ]
        self.assertEqual(commits, ["BEGIN IMMEDIATE", "COMMIT", "deliver"] * 5)

    def test_bounded_batch(self) -> None:
        """Very many pieces run in several transactions, so that none waits for all."""
        pieces = [self.put(f"item {number}") for number in range(600)]
        self.start()
        self.calls.wait_for(*pieces)
        self.assertEqual(self.journal.count("COMMIT"), 3)
        self.assertEqual(len(self.rows()), 600)

    def test_not_on_the_callers_thread(self) -> None:
        """Deferreds fire through the reactor only."""
        piece = self.put("alice")
        self.start()
        self.stop()
        self.assertNoResult(piece)
        self.calls.deliver_all()
        self.assertEqual(self.successResultOf(piece), "alice")


class FailureTests(GroupCommitTestCase):
    """Tests of work that fails, and of the work beside it."""

    def test_constraint(self) -> None:
        """A piece that SQLite rejects fails alone; the others are committed."""
        pieces = [self.put(name) for name in ("alice", "bob")]
        bad = self.put(None)
        pieces += [self.put(name) for name in ("carol", "dora")]
        worse = self.put("alice")
        self.start()
        self.calls.wait_for(bad, worse, *pieces)
        for piece in (bad, worse):
            self.failureResultOf(piece, StoreUnavailable)
        self.assertEqual(
            [self.successResultOf(piece) for piece in pieces], ["alice", "bob", "carol", "dora"]
        )
        self.assertEqual(self.rows(), ["alice", "bob", "carol", "dora"])

    def test_refusal(self) -> None:
        """A piece that raises an error of this package fails with it; the others are committed."""
        error = UnknownToken()
        before, bad, after = self.put("alice"), self.raising(error), self.put("bob")
        self.start()
        self.calls.wait_for(before, bad, after)
        self.assertIs(self.failureResultOf(bad, UnknownToken).value, error)
        self.successResultOf(before)
        self.successResultOf(after)
        self.assertEqual(self.journal.count("BEGIN IMMEDIATE"), 1)
        self.assertEqual(self.rows(), ["alice", "bob"])

    def test_mistake(self) -> None:
        """A piece that raises another error fails alone, and its writes are rolled back."""
        before = self.put("alice")
        bad = self.raising(ZeroDivisionError("a mistake"), first="half done")
        after = self.put("bob")
        self.start()
        self.calls.wait_for(before, bad, after)
        self.failureResultOf(bad, ZeroDivisionError)
        self.successResultOf(before)
        self.successResultOf(after)
        self.assertEqual(self.rows(), ["alice", "bob"])

    def test_all_bad(self) -> None:
        """When every piece of a transaction fails, each Deferred fails, and later work succeeds."""
        pieces = [self.put(None) for _ in range(10)]
        self.start()
        self.calls.wait_for(*pieces)
        for piece in pieces:
            self.failureResultOf(piece, StoreUnavailable)
        self.assertEqual(self.wait_for(self.put("alice")), "alice")
        self.assertEqual(self.rows(), ["alice"])

    def test_disk_full(self) -> None:
        """A full disk fails every piece of the transaction and writes none.

        Smaller work succeeds when there is room again.
        """
        self.setup = ["PRAGMA max_page_count = 4"]
        pieces = [self.put("alice"), self.put("x" * 100_000), self.put("bob")]
        self.start()
        self.calls.wait_for(*pieces)
        for piece in pieces:
            self.assertIn("full", str(self.failureResultOf(piece, StoreUnavailable).value))
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.wait_for(self.put("carol")), "carol")
        self.assertEqual(self.rows(), ["carol"])

    def test_read_only(self) -> None:
        """A database that cannot be written fails every piece."""
        self.setup = ["PRAGMA query_only = ON"]
        pieces = [self.put(name) for name in ("alice", "bob")]
        self.start()
        self.calls.wait_for(*pieces)
        for piece in pieces:
            self.assertIn("readonly", str(self.failureResultOf(piece, StoreUnavailable).value))

    def test_commit_fails(self) -> None:
        """When the commit fails, every piece fails, nothing is written, and later work succeeds."""
        pieces = [self.put(name) for name in ("alice", "bob")]
        self.start()
        self.calls.wait_for(*pieces)
        assert self.connection is not None
        self.connection.fail_on = "COMMIT"
        self.wait_for_failure(self.put("carol"), StoreUnavailable)
        self.assertEqual(self.rows(), ["alice", "bob"])
        self.connection.fail_on = None
        self.wait_for(self.put("dora"))
        self.assertEqual(self.rows(), ["alice", "bob", "dora"])

    def test_deferred_constraint(self) -> None:
        """A constraint that fails at the commit fails the pieces, and the thread goes on."""
        connection = sqlite3.connect(self.path)
        connection.execute(
            "CREATE TABLE tags (item TEXT REFERENCES items (name) DEFERRABLE INITIALLY DEFERRED)"
        )
        connection.close()
        self.setup = ["PRAGMA foreign_keys = ON"]

        def tag(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO tags VALUES ('nobody')")

        bad = self.thread.run(tag)
        self.start()
        self.wait_for_failure(bad, StoreUnavailable)
        self.wait_for(self.put("alice"))

    def test_rollback_fails(self) -> None:
        """When the rollback fails too, every piece still fails."""
        self.wait_for_start()
        assert self.connection is not None
        self.connection.fail_on = "ROLLBACK"
        self.wait_for_failure(self.put(None), StoreUnavailable)

    def wait_for_start(self) -> None:
        """Start the thread, and wait until it is connected."""
        self.start()
        self.wait_for(self.put("first"))

    def test_cancelled(self) -> None:
        """A piece of work whose Deferred was cancelled does not disturb the others."""
        before, gone, after = self.put("alice"), self.put("bob"), self.put("carol")
        gone.cancel()
        gone.addErrback(lambda _: None)
        self.start()
        self.calls.wait_for(before, after)
        self.assertEqual(self.successResultOf(before), "alice")
        self.assertEqual(self.successResultOf(after), "carol")

    def test_bad_callback(self) -> None:
        """An error in the callback of one result does not keep the next Deferred from firing."""
        first, second = self.put("alice"), self.put("bob")
        first.addCallback(lambda _: 1 / 0)
        self.start()
        self.calls.wait_for(first, second)
        self.failureResultOf(first, ZeroDivisionError)
        self.assertEqual(self.successResultOf(second), "bob")


class ConnectTests(GroupCommitTestCase):
    """Tests of a database that cannot be opened."""

    def test_recovers(self) -> None:
        """Every piece fails while the database cannot be opened; later work succeeds."""
        self.refusals = 2
        first = [self.put("alice"), self.put("bob")]
        self.start()
        self.calls.wait_for(*first)
        for piece in first:
            self.assertIn("unable", str(self.failureResultOf(piece, StoreUnavailable).value))
        self.wait_for_failure(self.put("carol"), StoreUnavailable)
        self.assertEqual(self.wait_for(self.put("dora")), "dora")
        self.assertEqual(self.wait_for(self.put("emma")), "emma")
        self.assertEqual(self.journal.count("connect"), 3)
        self.assertEqual(self.rows(), ["dora", "emma"])


class StopTests(GroupCommitTestCase):
    """Tests of stopping."""

    def test_finishes(self) -> None:
        """``stop`` runs and commits the waiting work, and then closes the connection."""
        pieces = [self.put(f"item {number}") for number in range(300)]
        self.start()
        self.stop()
        self.assertEqual(self.journal[-1], "close")
        self.assertEqual(len(self.rows()), 300)
        self.calls.deliver_all()
        for piece in pieces:
            self.successResultOf(piece)

    def test_afterwards(self) -> None:
        """Work that comes after the stop fails at once."""
        self.start()
        self.stop()
        self.failureResultOf(self.put("alice"), StoreUnavailable)
        self.assertEqual(self.rows(), [])

    def test_idle(self) -> None:
        """A thread without work ends without opening the file."""
        self.start()
        self.stop()
        self.assertEqual(self.journal, [])

    def test_cannot_connect(self) -> None:
        """Waiting work fails when the file cannot be opened any more."""
        self.refusals = 100
        pieces = [self.put(f"item {number}") for number in range(300)]
        self.start()
        self.stop()
        self.calls.deliver_all()
        for piece in pieces:
            self.failureResultOf(piece, StoreUnavailable)

    def test_twice(self) -> None:
        """Stopping again does nothing."""
        self.start()
        self.stop()
        self.thread.stop()
