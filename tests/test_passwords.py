"""Tests for hashing."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple
from unittest import skipUnless

import bcrypt
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from synapse_login_module import passwords
from synapse_login_module.common import thread_pool
from synapse_login_module.errors import Overloaded, RateLimited
from synapse_login_module.hashes import Kind, Strength, parse_hash
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.interfaces import IHashing
from synapse_login_module.passwords import (
    HashingPool,
    OwnDecoysHashing,
    call_collecting_kinds,
    call_hashing_for,
    hash_password,
    thread_clock,
)
from tests.common.test_thread_pool import ManualThreads
from tests.hashes.vectors import VECTORS
from tests.stores.test_group_commit import TIMEOUT, ThreadCalls
from tests.support.niceness import niceness

ROUNDS = 4
_BY_NAME = {vector.name: vector.text for vector in VECTORS}
SSHA, PBKDF2 = _BY_NAME["dovecot_ssha"], _BY_NAME["django_pbkdf2_sha256"]
YESCRYPT = _BY_NAME["mkpasswd_yescrypt"]


def bcrypt_of(raw: bytes) -> str:
    """Hash these bytes with bcrypt, without NFKC and pepper."""
    return bcrypt.hashpw(raw, bcrypt.gensalt(ROUNDS)).decode("ascii")


def stray_salt(password_hash: str) -> str:
    """Set a bit of a hash's salt that is not one of the 128."""
    return password_hash[:28] + "/" + password_hash[29:]


class Stub(NamedTuple):
    """A stored hash whose check is a function of the password's bytes."""

    verify: Callable[[bytes], Any]
    kind: Kind = new_hashes(ROUNDS).kind


class HashingPoolTestCase(SynchronousTestCase):
    """A pool with real threads, whose results a test lets through one at a time."""

    def setUp(self) -> None:
        self.calls = ThreadCalls()
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.seen: list[str] = []

    def pool(self, threads: int | None = 1, queue: int = 2, start: bool = True) -> HashingPool:
        """Make a pool, which is stopped after the test."""
        pool = HashingPool(self.calls, threads, queue, new_hashes(ROUNDS))
        if start:
            self.start(pool)
        return pool

    def start(self, pool: HashingPool) -> None:
        """Start a pool."""
        pool.startService()
        self.addCleanup(self.stop, pool)

    def stop(self, pool: HashingPool) -> None:
        """Stop a pool, if it runs, with the gate open."""
        self.gate.set()
        if pool.running:
            pool.stopService()

    def hold(self) -> None:
        """Make every check wait at the gate; it succeeds if its password is ``right``."""

        def verify(password: bytes) -> bool:
            self.seen.append(password.decode())
            self.entered.release()
            self.gate.wait(TIMEOUT)
            if password == b"broken":
                raise ZeroDivisionError
            return password == b"right"

        self.patch(passwords, "parse_hash", lambda text: Stub(verify))

    def wait_until_entered(self, count: int = 1) -> None:
        """Wait until ``count`` more checks wait at the gate."""
        for _ in range(count):
            self.assertTrue(self.entered.acquire(timeout=TIMEOUT))

    def wait_for(self, deferred: Deferred[Any]) -> Any:
        """What a Deferred fires with."""
        self.calls.wait_for(deferred)
        return self.successResultOf(deferred)

    def record_decoys(self) -> list[str]:
        """Return a list that the kind of each decoy is added to."""
        kinds: list[str] = []
        real = Kind.decoy

        def decoy(kind: Kind, password: str) -> None:
            kinds.append(str(kind))
            real(kind, password)

        self.patch(Kind, "decoy", decoy)
        return kinds

    def in_thread(self, function: Callable[[], Any]) -> Any:
        """What a function returns on a hashing thread."""
        self.patch(passwords, "parse_hash", lambda text: Stub(lambda password: function()))
        return self.wait_for(self.pool().check("", "", ""))


UNUSABLE = (
    "",
    "disabled",
    "no hash at all",
    "!" + bcrypt_of(b"x"),
    stray_salt(bcrypt_of(b"x")),
    "$2b$31" + bcrypt_of(b"x")[6:],
    "{SHA}" + "x" * 28,
)
"""What stands in the place of a hash, and no password is right for."""


class HashingPoolTests(HashingPoolTestCase):
    """The hashing pool."""

    def test_interface(self) -> None:
        """It provides the interface, and its methods return Deferreds."""
        pool = self.pool()
        verifyObject(IHashing, pool)
        checked, decoy = pool.check("x", bcrypt_of(b"x"), ""), pool.decoy("x")
        for answer in (checked, decoy):
            self.assertIsInstance(answer, Deferred)
        self.calls.wait_for(checked, decoy)

    def test_check(self) -> None:
        """It tells a right password from a wrong one, with the pepper."""
        pool = self.pool()
        hashed = hash_password("ilovebananas", "pepper", ROUNDS)
        self.assertIs(self.wait_for(pool.check("ilovebananas", hashed, "pepper")), True)
        self.assertIs(self.wait_for(pool.check("ilovebananas", hashed, "")), False)
        self.assertIs(self.wait_for(pool.check("wrong", hashed, "pepper")), False)

    def test_failure(self) -> None:
        """Work that raises fails, and gives its place back."""
        self.patch(passwords, "make_hash", lambda *_: bcrypt.gensalt(99))
        pool = self.pool(threads=1, queue=0)
        for _ in range(3):
            broken = pool.hash("x", "")
            self.calls.wait_for(broken)
            self.failureResultOf(broken, ValueError)

    def test_unusable_hashes(self) -> None:
        """A hash that cannot be used matches no password, and takes as long as a decoy."""
        decoys = self.record_decoys()
        pool = self.pool()
        pool.report_kind(new_hashes(5).kind)
        for unusable in UNUSABLE:
            self.assertIs(self.wait_for(pool.check("x", unusable, "")), False, unusable)
            self.assertEqual(decoys.pop(), "bcrypt cost=5")
        self.assertIs(self.wait_for(pool.check("x", bcrypt_of(b"x"), "")), True)
        self.assertEqual(decoys, [])

    def test_refusing_library(self) -> None:
        """A hash that its library refuses to check is one that cannot be used."""
        decoys = self.record_decoys()

        def verify(password: bytes) -> bool:
            raise ValueError("Invalid parameter combination")

        self.patch(passwords, "parse_hash", lambda text: Stub(verify))
        self.assertIs(self.wait_for(self.pool().check("x", "", "")), False)
        self.assertEqual(decoys, ["bcrypt cost=4"])

    def test_no_memory(self) -> None:
        """A hash that there is no memory for says nothing about the password."""

        def verify(password: bytes) -> bool:
            raise MemoryError

        self.patch(passwords, "parse_hash", lambda text: Stub(verify))
        checked = self.pool().check("x", "", "")
        self.calls.wait_for(checked)
        self.failureResultOf(checked, Overloaded)

    def test_before_the_start(self) -> None:
        """Work that is added before the start waits for it."""
        pool = self.pool(start=False)
        early = pool.check("x", bcrypt_of(b"x"), "")
        self.assertNoResult(early)
        self.start(pool)
        self.assertIs(self.wait_for(early), True)

    def test_stop_waits(self) -> None:
        """Stopping waits for work that has begun, and its Deferred fires with the result."""
        self.hold()
        pool = self.pool()
        begun = pool.check("right", "", "")
        self.wait_until_entered()
        self.stop(pool)
        self.assertIs(self.wait_for(begun), True)


class QueueTests(HashingPoolTestCase):
    """A queue that gets more passwords than can be hashed."""

    def test_overloaded(self) -> None:
        """A password without a place is rejected at once, with the time to retry."""
        self.hold()
        pool = self.pool(threads=1, queue=2)
        fitting = [pool.check("right", "", "") for _ in range(3)]
        for refused in (pool.check("right", "", ""), pool.decoy("x")):
            failure = self.failureResultOf(refused, Overloaded)
            assert isinstance(failure.value, RateLimited)
            self.assertGreater(failure.value.retry_after, 0)
        for each in fitting:
            self.assertNoResult(each)
        self.gate.set()
        for each in fitting:
            self.assertIs(self.wait_for(each), True)
        self.assertEqual(self.seen, ["right"] * 3)

    def test_queue_timeout(self) -> None:
        """What has waited too long is not hashed any more, be it a password or a decoy, and makes
        room; what is being hashed is done.
        """
        self.hold()
        clock = Clock()
        pool = HashingPool(
            self.calls, 1, 2, new_hashes(ROUNDS), queue_timeout=10, clock=clock.seconds
        )
        self.start(pool)
        begun = pool.check("right", "", "")
        self.wait_until_entered()
        waiting: list[Deferred[Any]] = [pool.check("right", "", ""), pool.decoy("x")]
        clock.advance(11)
        self.gate.set()
        self.assertIs(self.wait_for(begun), True)
        self.calls.wait_for(*waiting)
        for each in waiting:
            self.failureResultOf(each, Overloaded)
        self.assertEqual(self.seen, ["right"])
        for each in [pool.check("right", "", "") for _ in range(3)]:
            self.assertIs(self.wait_for(each), True)

    def test_room_is_given_back(self) -> None:
        """Each check that ends makes room for another, whether it was right, wrong or failed."""
        self.hold()
        self.gate.set()
        pool = self.pool(threads=1, queue=2)
        for _ in range(3):
            results = [pool.check(password, "", "") for password in ("right", "wrong", "broken")]
            self.failureResultOf(pool.check("right", "", ""), Overloaded)
            self.calls.wait_for(*results)
            self.assertIs(self.successResultOf(results[0]), True)
            self.assertIs(self.successResultOf(results[1]), False)
            self.failureResultOf(results[2], ZeroDivisionError)

    def test_threads(self) -> None:
        """As many passwords are hashed at once as there are threads."""
        self.hold()
        pool = self.pool(threads=3, queue=1)
        fitting = [pool.check("right", "", "") for _ in range(4)]
        self.wait_until_entered(3)
        self.assertEqual(len(self.seen), 3)
        self.failureResultOf(pool.check("right", "", ""), Overloaded)
        self.gate.set()
        self.calls.wait_for(*fitting)

    @skipUnless(sys.platform == "linux", "asks Linux for its cores")
    def test_one_thread_a_core(self) -> None:
        """By default there is one thread for each core that the process may use."""
        self.patch(os, "sched_getaffinity", lambda pid: {0, 5, 7})
        self.hold()
        pool = self.pool(threads=None, queue=0)
        fitting = [pool.check("right", "", "") for _ in range(3)]
        self.wait_until_entered(3)
        self.failureResultOf(pool.check("right", "", ""), Overloaded)
        self.gate.set()
        self.calls.wait_for(*fitting)

    def test_cancelled_while_waiting(self) -> None:
        """A check that is cancelled in the queue is not hashed, and frees its place at once."""
        self.hold()
        pool = self.pool(threads=1, queue=2)
        first = pool.check("first", "", "")
        self.wait_until_entered()
        gone = pool.check("gone", "", "")
        waiting = pool.check("waiting", "", "")
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        last = pool.check("last", "", "")
        self.gate.set()
        self.calls.deliver(3)
        self.assertEqual(self.seen, ["first", "waiting", "last"])
        for each in (first, waiting, last):
            self.successResultOf(each)
        again = [pool.check("again", "", "") for _ in range(3)]
        self.calls.wait_for(*again)
        for each in again:
            self.successResultOf(each)

    def test_cancelled_under_way(self) -> None:
        """What is cancelled while it is hashed ends at once, and its place comes back when the
        thread is done, whatever became of it.
        """
        for password in ("right", "broken"):
            self.gate.clear()
            self.hold()
            pool = self.pool(threads=1, queue=0)
            gone = pool.check(password, "", "")
            self.wait_until_entered()
            gone.cancel()
            self.failureResultOf(gone, CancelledError)
            self.failureResultOf(pool.check("right", "", ""), Overloaded)
            self.gate.set()
            self.calls.deliver()
            self.assertIs(self.wait_for(pool.check("right", "", "")), True)


class KnownNetworkTests(HashingPoolTestCase):
    """A full queue, and logins from known networks."""

    def full(self, queue: int = 3) -> tuple[HashingPool, list[Deferred[bool]]]:
        """Make a pool with one busy thread and a queue that is full of strangers."""
        self.hold()
        pool = self.pool(threads=1, queue=queue)
        self.busy = pool.check("busy", "", "")
        self.wait_until_entered()
        return pool, [pool.check(f"stranger{number}", "", "") for number in range(queue)]

    def known(self, pool: HashingPool, name: str, password: str = "right") -> Deferred[bool]:
        """Begin a check for a login from a known network."""
        return call_hashing_for(name, pool.check, password, "", "")

    def assert_shed(self, *checks: Deferred[Any]) -> None:
        """Assert that these checks were rejected."""
        for check in checks:
            self.failureResultOf(check, Overloaded)

    def finish(self, *checks: Deferred[bool]) -> None:
        """Assert that these checks are done in the end."""
        self.gate.set()
        for check in checks:
            self.assertIsInstance(self.wait_for(check), bool)

    def test_displaces_the_newest(self) -> None:
        """One from a known network has the place of the stranger that has waited least, and its
        turn after all others.
        """
        pool, strangers = self.full()
        alice = self.known(pool, "alice", "alice")
        bob = self.known(pool, "bob", "bob")
        self.assert_shed(strangers[2], strangers[1])
        self.assertNoResult(strangers[0])
        self.finish(strangers[0], alice, bob)
        self.assertEqual(self.seen, ["busy", "stranger0", "alice", "bob"])

    def test_room(self) -> None:
        """While there is room, no login is displaced."""
        self.hold()
        pool = self.pool(threads=1, queue=2)
        checks = [pool.check("right", "", ""), self.known(pool, "alice"), self.known(pool, "bob")]
        self.gate.set()
        for check in checks:
            self.assertIs(self.wait_for(check), True)

    def test_strangers_displace_none(self) -> None:
        """A login from an unknown network finds no place in a full queue."""
        pool, strangers = self.full()
        alice = self.known(pool, "alice")
        self.assert_shed(strangers[2])
        self.assert_shed(pool.check("right", "", ""), call_hashing_for(None, pool.hash, "x", ""))
        self.finish(alice, *strangers[:2])

    def test_known_displace_no_known(self) -> None:
        """If all who wait are from known networks, the next is rejected, known or not."""
        pool, strangers = self.full(queue=2)
        first = [self.known(pool, name) for name in ("alice", "bob")]
        self.assert_shed(*strangers)
        self.assert_shed(self.known(pool, "carol"), pool.check("right", "", ""))
        self.finish(*first)

    def test_few_a_user(self) -> None:
        """One user displaces two at a time, and then waits until one of them has its turn."""
        pool, strangers = self.full(queue=4)
        waiting = [self.known(pool, "mallory", f"mallory{n}") for n in range(2)]
        self.assert_shed(self.known(pool, "mallory"))
        self.assert_shed(*strangers[2:])
        self.assertNoResult(strangers[1])
        alice = self.known(pool, "alice", "alice")
        self.assert_shed(strangers[1])
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        fills = pool.check("fills", "", "")
        again = self.known(pool, "mallory", "again")
        self.assert_shed(fills)
        self.finish(strangers[0], waiting[1], alice, again)
        self.assertEqual(self.seen, ["busy", "stranger0", "mallory1", "alice", "again"])

    def test_one_user_fills_the_queue(self) -> None:
        """Of one user's that found room two keep their place; the others are displaced by other
        users, and not by the same.
        """
        self.hold()
        pool = self.pool(threads=1, queue=4)
        busy = pool.check("busy", "", "")
        self.wait_until_entered()
        mallory = [self.known(pool, "mallory", f"mallory{n}") for n in range(4)]
        self.assert_shed(self.known(pool, "mallory"))
        alice, bob = (self.known(pool, name, name) for name in ("alice", "bob"))
        self.assert_shed(mallory[3], mallory[2], self.known(pool, "carol"))
        self.finish(busy, *mallory[:2], alice, bob)
        self.assertEqual(self.seen, ["busy", "mallory0", "mallory1", "alice", "bob"])

    def test_being_hashed(self) -> None:
        """A password that is being hashed is not displaced."""
        self.hold()
        pool = self.pool(threads=1, queue=0)
        busy = pool.check("right", "", "")
        self.wait_until_entered()
        self.assert_shed(self.known(pool, "alice"))
        self.gate.set()
        self.assertIs(self.wait_for(busy), True)

    def test_in_a_coroutine(self) -> None:
        """A provider that waits for something first hashes for the same login still, and for no
        other that goes on meanwhile.
        """
        pool, strangers = self.full()
        waits: list[Deferred[None]] = [Deferred(), Deferred()]

        async def authenticate(first: Deferred[None]) -> bool:
            await first
            return await pool.check("right", "", "")

        def begin(first: Deferred[None]) -> Deferred[bool]:
            return Deferred.fromCoroutine(authenticate(first))

        known = call_hashing_for("alice", begin, waits[0])
        unknown = begin(waits[1])
        for each in waits:
            each.callback(None)
        self.assert_shed(strangers[2])
        self.failureResultOf(unknown, Overloaded)
        self.finish(known, *strangers[:2])

    def test_stopped(self) -> None:
        """Checks that wait when the pool stops are rejected."""
        pool, strangers = self.full()
        alice = self.known(pool, "alice")
        self.stop(pool)
        self.assert_shed(alice, *strangers)
        self.assertIs(self.wait_for(self.busy), False)

    @settings(max_examples=100)
    @given(
        st.integers(0, 4),
        st.lists(
            st.tuples(st.sampled_from(["ask", "cancel", "done"]), st.sampled_from([None, "a", "b"]))
        ),
    )
    def test_any_order(self, queue: int, steps: list[tuple[str, str | None]]) -> None:
        """For any order of logins: the queue is never longer than its bound, no login from a known
        network is displaced, each is answered once, and they are hashed in the order they came.
        """
        threads = ManualThreads()
        self.patch(thread_pool, "Threads", lambda *_: threads)
        self.patch(passwords, "parse_hash", lambda text: Stub(lambda password: password.decode()))
        pool = HashingPool(threads, 1, queue, new_hashes(ROUNDS))
        pool.startService()
        asked: list[tuple[str | None, Deferred[Any]]] = []
        hashed: list[int] = []
        shed: set[int] = set()
        gone: set[int] = set()

        def ask(name: str | None) -> None:
            number = len(asked)
            check = call_hashing_for(name, pool.check, str(number), "", "")
            asked.append((name, check))

            def failed(failure: Any) -> None:
                if failure.check(CancelledError):
                    gone.add(number)
                    return
                failure.trap(Overloaded)
                self.assertNotIn(number, shed)
                shed.add(number)

            at_once = check.called
            check.addCallbacks(lambda result: hashed.append(int(result)), failed)
            # Within one user's own places, no login from a known network is rejected.
            of_this_user = sum(each == name and not other.called for each, other in asked)
            if name is not None and not at_once and of_this_user <= thread_pool._PLACES:
                kept.add(number)

        kept: set[int] = set()
        for step, name in steps:
            if step == "ask":
                ask(name)
            elif step == "done":
                threads.finish_one()
            elif waiting := [check for _, check in asked if not check.called]:
                waiting[-1].cancel()
            waiting_now = sum(not check.called for _, check in asked)
            self.assertLessEqual(waiting_now, 1 + queue)
            self.assertFalse(kept & shed)
        while threads.finish_one():
            pass
        self.assertEqual(hashed, sorted(hashed))
        self.assertEqual(sorted([*hashed, *shed, *gone]), list(range(len(asked))))


class CollectingTests(HashingPoolTestCase):
    """The kinds of hashes that were checked."""

    def test_kinds(self) -> None:
        """They are collected of the call, and of no other."""
        pool = self.pool()
        kinds: list[Kind] = []

        async def check() -> None:
            for text in (bcrypt_of(b"x"), "no hash", SSHA):
                await pool.check("x", text, "")

        self.wait_for(call_collecting_kinds(kinds, Deferred.fromCoroutine, check()))
        self.wait_for(pool.check("x", PBKDF2, ""))
        self.assertEqual([str(kind) for kind in kinds], ["bcrypt cost=4", "{SSHA}"])


class DecoyTests(HashingPoolTestCase):
    """Decoys, which are hashed for unknown users."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.kinds = self.record_decoys()

    def decoy_of(self, pool: HashingPool | OwnDecoysHashing) -> str:
        """Return the kind of a decoy."""
        self.assertIsNone(self.wait_for(pool.decoy("ilovebananas")))
        return self.kinds.pop()

    def timed_pool(self) -> HashingPool:
        """Make a pool whose clock only the test advances."""
        pool = HashingPool(self.calls, 1, 2, new_hashes(ROUNDS), clock=self.clock.seconds)
        self.start(pool)
        return pool

    def kind(self, name: str, estimate: float, seconds: float) -> Kind:
        """Make a kind whose checks take some seconds, whatever is estimated."""

        def digest(password: bytes, salt: bytes) -> bytes:
            self.clock.advance(seconds)
            return b""

        return Kind(name, (), digest, b"", Strength.MEMORY_HARD, estimate)

    def test_new_hashes(self) -> None:
        """A decoy is of the kind of new hashes until a kind is reported."""
        self.assertEqual(self.decoy_of(self.pool()), "bcrypt cost=4")

    def test_reported(self) -> None:
        """A decoy is of the kind that was reported, whether it takes less time or more."""
        for text in (SSHA, bcrypt_of(b"x"), PBKDF2):
            pool = self.pool()
            kind = parse_hash(text).kind
            pool.report_kind(kind)
            self.assertEqual(self.decoy_of(pool), str(kind))

    def test_pepper(self) -> None:
        """A decoy is as long as a check's password: SHA-crypt takes twice as long for 42 bytes as
        for ten.
        """
        seen: list[bytes] = []

        def digest(password: bytes, salt: bytes) -> bytes:
            seen.append(password)
            return b""

        kind = Kind("any", (), digest, b"", Strength.BCRYPT, 1.0)
        pool = self.pool()
        pool.report_kind(kind.ruled(None, "pepper"))
        self.decoy_of(pool)
        self.assertEqual(seen, [b"ilovebananaspepper"])
        self.assertNotIn("pepper", repr(kind.ruled(None, "pepper")))

    def test_highest(self) -> None:
        """Of the reports of several sources the slowest counts, in any order."""
        pool = self.pool()
        for source, cost in enumerate((6, 9, 7)):
            pool.report_kind(new_hashes(cost).kind, source)
        self.assertEqual(self.decoy_of(pool), "bcrypt cost=9")

    def test_measured(self) -> None:
        """The slowest is found by the estimates, until a check of each kind was measured."""
        pool = self.timed_pool()
        slow = self.kind("slow here", 1.0, 3.0)
        fast = self.kind("fast here", 2.0, 1.0)
        pool.report_kind(slow, "one")
        pool.report_kind(fast, "other")
        self.assertEqual(self.decoy_of(pool), "fast here")
        self.assertEqual(self.decoy_of(pool), "fast here")
        self.wait_for(pool.decoy("x", slow))
        self.kinds.clear()
        self.assertEqual(self.decoy_of(pool), "slow here")

    def test_shortest(self) -> None:
        """The shortest time of each kind counts, since other load makes times longer."""
        seconds = {"one": [2.0, 9.0, 2.0], "other": [3.0, 3.0, 3.0]}

        def digest(name: str) -> Callable[[bytes, bytes], bytes]:
            def compute(password: bytes, salt: bytes) -> bytes:
                self.clock.advance(seconds[name].pop(0))
                return b""

            return compute

        pool = self.timed_pool()
        kinds = [Kind(name, (), digest(name), b"", Strength.BCRYPT, 1.0) for name in seconds]
        for kind in kinds:
            pool.report_kind(kind, kind.scheme)
            for _ in range(2):
                self.wait_for(pool.decoy("x", kind))
        self.kinds.clear()
        self.assertEqual(self.decoy_of(pool), "other")

    def test_checks_are_measured(self) -> None:
        """A check of an account's hash counts as well, by the rule that it was checked with."""
        pool = self.timed_pool()
        stored = parse_hash(bcrypt_of(b"x"))
        self.wait_for(pool.check("x", bcrypt_of(b"x"), "", False))
        ruled = stored.kind.ruled(False)
        self.assertEqual(pool.times.slowest({ruled}), ruled)
        other = self.kind("other", 0.0, 5.0)
        self.wait_for(pool.decoy("x", other))
        self.assertEqual(pool.times.slowest({ruled, other}), other)
        self.assertEqual(pool.times.slowest({stored.kind, other}), stored.kind)

    def test_padding(self) -> None:
        """A check that takes next to nothing is padded, and so is its decoy; others are not."""
        padded: list[str] = []
        self.patch(passwords, "pad", lambda: padded.append("padded"))
        pool = self.pool()
        for text, padding in (
            (SSHA, ["padded"]),
            (PBKDF2, ["padded"]),
            (bcrypt_of(b"x"), []),
            (YESCRYPT, []),
            (f"pbkdf2_sha256$100000$salt${'a' * 43}=", []),
        ):
            self.wait_for(pool.check("x", text, ""))
            self.assertEqual(padded, padding, text)
            padded.clear()
            pool.report_kind(parse_hash(text).kind)
            self.wait_for(pool.decoy("x"))
            self.assertEqual(padded, padding, text)
            padded.clear()

    def test_own_decoys(self) -> None:
        """Hashing with its own decoys has them of its own kind, and changes no others."""
        pool = self.pool()
        own = OwnDecoysHashing(pool)
        verifyObject(IHashing, own)
        pool.report_kind(new_hashes(6).kind)
        self.assertEqual(self.decoy_of(own), "bcrypt cost=4")
        own.report_kind(new_hashes(9).kind)
        self.assertEqual(
            (self.decoy_of(own), self.decoy_of(pool)), ("bcrypt cost=9", "bcrypt cost=6")
        )
        self.assertIs(self.wait_for(own.check("right", bcrypt_of(b"wrong"), "")), False)

    def test_latest(self) -> None:
        """An earlier report of the same source does not count any more, whether higher or lower."""
        pool = self.pool()
        pool.report_kind(new_hashes(6).kind, "another")
        for said in (8, 9, 7, 5):
            pool.report_kind(new_hashes(said).kind, "one")
            self.assertEqual(self.decoy_of(pool), f"bcrypt cost={max(said, 6)}")

    def test_hashes(self) -> None:
        """A decoy does hash, with any password."""
        pool = self.pool()
        for text in (bcrypt_of(b"x"), SSHA, PBKDF2, YESCRYPT):
            pool.report_kind(parse_hash(text).kind)
            for password in ("", "ilovebananas", "\0", "ä" * 500, "\ud800", "x" * 70_000):
                self.assertIsNone(self.wait_for(pool.decoy(password)))
                self.assertIs(self.wait_for(pool.check(password, text, "")), False)


class ThreadTests(HashingPoolTestCase):
    """The threads that hash."""

    def test_threads_of_its_own(self) -> None:
        """Hashing runs on threads of the pool's own: the reactor is asked for nothing but to be
        called back.
        """
        name = self.in_thread(lambda: threading.current_thread().name)
        self.assertIn("hashing", name)
        self.assertEqual(
            [each for each in dir(self.calls) if "thread" in each.lower()], ["callFromThread"]
        )

    @skipUnless(sys.platform == "linux", "elsewhere threads have no priority of their own")
    def test_priority(self) -> None:
        """On Linux the threads have the lowest priority, and the rest of the process keeps its."""
        before = os.getpriority(os.PRIO_PROCESS, 0)
        self.assertEqual(self.in_thread(niceness), 19)
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, 0), before)

    @skipUnless(sys.platform == "linux", "elsewhere threads have no priority of their own")
    def test_starving(self) -> None:
        """Threads that get next to nothing of a core are replaced by some of a higher priority,
        until these get enough of it.
        """
        if os.getpriority(os.PRIO_PROCESS, 0) > 10:
            self.skipTest("the tests run at too low a priority themselves")
        clock, worked = Clock(), Clock()
        pool = HashingPool(
            *(self.calls, 1, 2, new_hashes(ROUNDS)),
            clock=clock.seconds,
            thread_clock=lambda: worked.seconds,
        )
        self.start(pool)
        found: list[tuple[int, int]] = []

        def hashing(seconds: float, share: float) -> int:
            """Return the niceness of the thread that then hashed."""

            def digest(password: bytes, salt: bytes) -> bytes:
                found.append((niceness(), threading.get_native_id()))
                clock.advance(seconds)
                worked.advance(seconds * share)
                return b""

            kind = Kind("any", (), digest, b"", Strength.BCRYPT, 1.0)
            self.wait_for(pool.decoy("x", kind))
            return found[-1][0]

        self.assertEqual(hashing(1.0, 0.01), 19, "too short to say")
        self.assertEqual(hashing(20.0, 0.2), 19)
        self.assertEqual(hashing(20.0, 0.01), 19)
        self.assertEqual(hashing(3.0, 0.01), 10)
        self.assertEqual(hashing(3.0, 0.3), 10)
        self.assertEqual(hashing(1.0, 0.9), 10)
        self.assertEqual(hashing(1.0, 0.9), 19)
        self.assertEqual(len({thread for _, thread in found}), 3)
        pool.stopService()
        living = {each.native_id for each in threading.enumerate()}
        self.assertFalse(living & {thread for _, thread in found})

    @skipUnless(sys.platform == "linux", "elsewhere threads have no priority of their own")
    def test_rescue(self) -> None:
        """A password whose thread starves is hashed anew by one of a higher priority. The first
        result counts, and a thread that works is left alone.
        """
        clock, worked, timers = Clock(), Clock(), Clock()
        pool = HashingPool(
            *(self.calls, 1, 2, new_hashes(ROUNDS)),
            clock=clock.seconds,
            thread_clock=lambda: worked.seconds,
            watch=timers,
        )
        self.start(pool)
        begun: SimpleQueue[threading.Event] = SimpleQueue()
        done: list[int] = []

        def digest(password: bytes, salt: bytes) -> bytes:
            release = threading.Event()
            begun.put(release)
            release.wait(TIMEOUT)
            done.append(niceness())
            return b""

        decoy = pool.decoy("x", Kind("any", (), digest, b"", Strength.BCRYPT, 1.0))
        starving = begun.get(timeout=TIMEOUT)
        for seconds, share in ((1.9, 0.0), (1.0, 1.0)):
            clock.advance(seconds)
            worked.advance(seconds * share)
            timers.advance(1)
        self.assertTrue(begun.empty())
        clock.advance(20)
        timers.advance(1)
        begun.get(timeout=TIMEOUT).set()
        self.wait_for(decoy)
        self.assertEqual(done, [10])
        timers.advance(1)
        self.assertTrue(begun.empty())
        starving.set()
        pool.stopService()
        self.assertEqual(done, [10, 19])
        self.assertEqual(timers.getDelayedCalls(), [])

    @skipUnless(sys.platform == "linux", "elsewhere threads have no priority of their own")
    def test_no_rescue(self) -> None:
        """While the system can start no thread, the one that starves stays and hashes all. The next
        look that finds it starving tries again.
        """
        clock, timers = Clock(), Clock()
        pool = HashingPool(
            *(self.calls, 1, 2, new_hashes(ROUNDS)),
            clock=clock.seconds,
            thread_clock=lambda: lambda: 0.0,
            watch=timers,
        )
        self.start(pool)
        begun: SimpleQueue[threading.Event] = SimpleQueue()

        def digest(password: bytes, salt: bytes) -> bytes:
            release = threading.Event()
            begun.put(release)
            release.wait(TIMEOUT)
            found.append(niceness())
            return b""

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        found: list[int] = []
        kind = Kind("any", (), digest, b"", Strength.BCRYPT, 1.0)
        first, second = pool.decoy("x", kind), pool.decoy("x", kind)
        release = begun.get(timeout=TIMEOUT)
        patch = self.patch(threading.Thread, "start", refuse)
        clock.advance(20)
        timers.advance(1)
        release.set()
        self.wait_for(first)
        starving = begun.get(timeout=TIMEOUT)
        self.assertEqual(found, [19])
        patch.restore()
        clock.advance(20)
        timers.advance(1)
        begun.get(timeout=TIMEOUT).set()
        self.wait_for(second)
        self.assertEqual(found, [19, 10])
        starving.set()

    @skipUnless(sys.platform == "linux", "elsewhere threads have no priority of their own")
    def test_thread_clock(self) -> None:
        """The processor time of a thread is told on another, and not once it has ended."""
        tell, end = SimpleQueue[Callable[[], float]](), threading.Event()

        def work() -> None:
            tell.put(thread_clock())
            end.wait(TIMEOUT)

        thread = threading.Thread(target=work)
        thread.start()
        worked = tell.get(timeout=TIMEOUT)
        self.assertLess(worked(), TIMEOUT)
        end.set()
        thread.join()
        deadline = time.monotonic() + TIMEOUT
        with self.assertRaises(OSError):
            while time.monotonic() < deadline:  # the system ends it a little later
                worked()

    @skipUnless(sys.platform == "linux", "elsewhere threads have no priority of their own")
    def test_priority_refused(self) -> None:
        """If the system refuses the priority, hashing goes on, and each thread logs it once."""

        def refuse(*arguments: int) -> None:
            raise PermissionError("not permitted")

        self.patch(os, "setpriority", refuse)
        pool = self.pool()
        hashed = bcrypt_of(b"x")
        with capturedLogs() as events:
            for _ in range(3):
                self.assertIs(self.wait_for(pool.check("x", hashed, "")), True)
        self.assertEqual(
            [str(event["error"]) for event in events if "error" in event], ["not permitted"]
        )
