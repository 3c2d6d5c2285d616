"""Tests for token buckets in a table that several processes share."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
from pathlib import Path
from subprocess import PIPE, Popen

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import RateLimited
from synapse_login_module.limits.shared_memory import SharedBuckets, make_table
from synapse_login_module.limits.token_bucket import KNOWN_NETWORKS, RateLimiter
from synapse_login_module.model import Rate
from tests.support.process import subprocess_environment

_TAKE = """
import sys, time
from synapse_login_module.errors import RateLimited
from synapse_login_module.model import Rate
from synapse_login_module.limits import shared_memory
from synapse_login_module.limits.token_bucket import RateLimiter
from synapse_login_module.limits.shared_memory import SharedBuckets

# However long another is off the processor while it holds the bucket.
shared_memory._LOCK_TIMEOUT = 600.0
descriptor, tries = map(int, sys.argv[1:])
limiter = RateLimiter(Rate(1e-6, 1000), time.monotonic, SharedBuckets(descriptor, "x"))
taken = 0
sys.stdin.readline()
for _ in range(tries):
    try:
        limiter.consume("alice")
        taken += 1
    except RateLimited:
        pass
print(taken)
"""

_HOLD = """
import sys
from synapse_login_module.limits.shared_memory import SharedBuckets

with SharedBuckets(int(sys.argv[1]), "x").locked("alice"):
    print("held", flush=True)
    sys.stdin.read()
"""


class SharedBucketsTests(SynchronousTestCase):
    """A table, and limiters over it as two workers have them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1)
        self.file = make_table()
        self.addCleanup(self.file.close)

    def limiter(self, name: str = "x", burst_count: int = 3) -> RateLimiter:
        """Make the limiter of one worker."""
        buckets = SharedBuckets(self.file.fileno(), name)
        return RateLimiter(Rate(0.5, burst_count), self.clock.seconds, buckets)

    def taken(self, limiter: RateLimiter, key: object = "alice") -> int:
        """Count how many attempts are allowed at once."""
        for count in range(50):
            try:
                limiter.consume(str(key))
            except RateLimited:
                return count
        return 50

    def child(self, code: str, *arguments: int) -> Popen[str]:
        """Start a process that has the table."""
        descriptor = self.file.fileno()
        child = Popen(
            [sys.executable, "-c", code, str(descriptor), *map(str, arguments)],
            pass_fds=[descriptor],
            env=subprocess_environment(),
            stdin=PIPE,
            stdout=PIPE,
            text=True,
        )
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def test_counted_together(self) -> None:
        """What one worker consumes is consumed for the other, and refills for both."""
        one, other = self.limiter(), self.limiter()
        one.consume("alice")
        self.assertEqual(self.taken(other), 2)
        self.assertEqual(self.taken(one), 0)
        self.clock.advance(2)
        self.assertEqual(self.taken(one), 1)
        self.assertEqual(self.taken(other), 0)

    def test_refund(self) -> None:
        """What one worker refunds, the other can consume."""
        one, other = self.limiter(), self.limiter()
        self.taken(one)
        other.refund("alice")
        self.assertEqual(self.taken(one), 1)
        for _ in range(5):
            one.refund("alice")
        self.assertEqual(self.taken(other), 3)

    def test_apart(self) -> None:
        """Keys, and limits of different names, have buckets of their own."""
        self.taken(self.limiter())
        self.assertEqual(self.taken(self.limiter(), "bob"), 3)
        self.assertEqual(self.taken(self.limiter("y")), 3)

    def test_no_more_room(self) -> None:
        """In a table that is full, the bucket left alone for longest is full again."""
        self.file = make_table(sets=1)
        self.addCleanup(self.file.close)
        limiter = self.limiter()
        for key in range(8):
            self.taken(limiter, key)
            self.clock.advance(0.01)
        self.assertEqual([self.taken(limiter, key) for key in range(8)], [0] * 8)
        self.assertEqual(self.taken(limiter, 8), 3)
        self.assertEqual([self.taken(limiter, key) for key in range(1, 9)], [0] * 8)
        self.assertEqual(self.taken(limiter, 0), 3)

    def test_room_of_a_full_one(self) -> None:
        """In a table that is full, a bucket that is full again makes room before any other."""
        self.file = make_table(sets=1)
        self.addCleanup(self.file.close)
        limiter = self.limiter()
        for key in range(8):
            self.taken(limiter, key)
        for _ in range(3):
            limiter.refund("5")
        self.assertEqual(self.taken(limiter, 8), 3)
        others = [key for key in range(8) if key != 5]
        self.assertEqual([self.taken(limiter, key) for key in others], [0] * 7)

    def test_clock_stepping_back(self) -> None:
        """A bucket is never emptier than empty, though the clock stepped back when only another
        process looked.
        """
        self.clock.advance(1000)
        self.limiter().consume("alice")
        self.clock.advance(-1000)
        limiter = self.limiter()
        self.assertEqual(self.taken(limiter), 0)
        self.clock.advance(2)
        self.assertEqual(self.taken(limiter), 1)

    def test_known_networks_stay(self) -> None:
        """Attempts, however many, do not evict the known networks."""
        self.file = make_table(sets=4)
        self.addCleanup(self.file.close)
        known = SharedBuckets(self.file.fileno(), KNOWN_NETWORKS)
        for name in range(8):
            known.set(name, self.clock.seconds())
        limiter = self.limiter()
        for key in range(1000):
            self.clock.advance(0.01)
            limiter.consume(key)
        self.assertEqual([known.get(name) for name in range(8)], [1.0] * 8)
        known.set("another", self.clock.seconds())
        self.assertEqual([known.get(name) for name in range(8)].count(None), 1)

    def test_unforeseeable(self) -> None:
        """Two tables have a key in different places, so clients cannot choose keys that collide."""
        tables = [bytes(32) + bytes(8), bytes(32) + bytes(8)]
        for index in range(2):
            with make_table() as file:
                buckets = SharedBuckets(file.fileno(), "x")
                buckets.set("alice", 1.0)
                file.seek(32)
                table = file.read()
                tables[index] = table[: table.index(struct.pack("=d", 1.0))][-8:]
        self.assertNotEqual(*tables)

    def test_racing_processes(self) -> None:
        """Processes that consume from one bucket at once together get its burst."""
        children = [self.child(_TAKE, 2000) for _ in range(3)]
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        self.assertEqual(sum(int(child.communicate()[0]) for child in children), 1000)

    def test_stopped_holder(self) -> None:
        """A process that is stopped while it holds a lock does not keep others waiting."""
        holder = self.child(_HOLD)
        assert holder.stdout is not None
        holder.stdout.readline()
        os.kill(holder.pid, signal.SIGSTOP)
        self.assertEqual(self.taken(self.limiter()), 3)
        os.kill(holder.pid, signal.SIGCONT)

    def test_killed_holder(self) -> None:
        """A process that dies while it holds a bucket leaves it free."""
        holder = self.child(_HOLD)
        assert holder.stdout is not None
        holder.stdout.readline()
        with self.assertRaises(BlockingIOError):
            fcntl.lockf(self.file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill()
        holder.wait()
        fcntl.lockf(self.file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_nameless(self) -> None:
        """The file has no name in the file system."""
        self.assertEqual(os.fstat(self.file.fileno()).st_nlink, 0)
        self.assertFalse(Path(str(self.file.name)).is_absolute())
