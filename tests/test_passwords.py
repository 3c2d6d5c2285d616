"""Tests for hashing."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any
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
from synapse_login_module.interfaces import IHashing
from synapse_login_module.passwords import (
    HashingPool,
    MostCommonCost,
    OwnCostHashing,
    call_hashing_for,
    check_password,
    cost_of,
    hash_password,
    prepare,
)
from tests.common.test_thread_pool import ManualThreads
from tests.stores.test_group_commit import TIMEOUT, ThreadCalls

ROUNDS = 4


def bcrypt_of(raw: bytes) -> str:
    """Hash these bytes with bcrypt, without NFKC and pepper."""
    return bcrypt.hashpw(raw, bcrypt.gensalt(ROUNDS)).decode("ascii")


def stray_salt(password_hash: str) -> str:
    """Set a bit of a hash's salt that is not one of the 128."""
    return password_hash[:28] + "/" + password_hash[29:]


def is_hash(text: str) -> bool:
    """Say whether a text is accepted as a bcrypt hash."""
    try:
        cost_of(text)
    except ValueError:
        return False
    return True


class PrepareTests(SynchronousTestCase):
    """How passwords are prepared for bcrypt: Synapse's rule."""

    def test_many_marks(self) -> None:
        """Only the start of a password is normalized: thousands of marks would take seconds."""
        marks = "a" + "\u0345" * 600 + "\u0334" * 16_000
        self.assertEqual(prepare(marks, ""), prepare(marks[:1024], ""))
        self.assertEqual(prepare("a" * 2000, "pepper"), b"a" * 72)

    def test_short(self) -> None:
        """A short password becomes its UTF-8, followed by the pepper."""
        self.assertEqual(prepare("ilovebananas", ""), b"ilovebananas")
        self.assertEqual(prepare("ilovebananas", "pepper"), b"ilovebananaspepper")
        self.assertEqual(prepare("pässword", ""), b"p\xc3\xa4ssword")
        self.assertEqual(prepare("", ""), b"")

    def test_bounds(self) -> None:
        """Of 71, 72, 73 and many more bytes, the first 72 count."""
        for length in (71, 72, 73, 100, 65_536):
            self.assertEqual(prepare("a" * length, ""), b"a" * min(length, 72))

    def test_cut_inside_a_character(self) -> None:
        """The cut is after 72 bytes, even inside a character."""
        self.assertEqual(prepare("a" * 71 + "ä", ""), b"a" * 71 + b"\xc3")
        self.assertEqual(prepare("a" * 70 + "ä", ""), b"a" * 70 + b"\xc3\xa4")
        self.assertEqual(prepare("a" * 69 + "\U0001f34c", ""), b"a" * 69 + b"\xf0\x9f\x8d")

    def test_pepper_across_the_bound(self) -> None:
        """The pepper is cut with the password, and has no effect after a long one."""
        self.assertEqual(prepare("a" * 70, "pepper"), b"a" * 70 + b"pe")
        self.assertEqual(prepare("a" * 72, "pepper"), b"a" * 72)
        self.assertEqual(prepare("a" * 71, "é"), b"a" * 71 + b"\xc3")

    def test_normalised(self) -> None:
        """NFKC is applied to the password before it is cut, and not to the pepper."""
        self.assertEqual(prepare("a\u0308", ""), b"\xc3\xa4")
        self.assertEqual(prepare("\ufb01", ""), b"fi")
        self.assertEqual(prepare("x", "a\u0308"), b"xa\xcc\x88")
        self.assertEqual(prepare("x", "\ufb01"), b"x\xef\xac\x81")
        self.assertEqual(prepare("a\u0308" * 30, ""), b"\xc3\xa4" * 30)
        self.assertEqual(prepare("a", "\u0308"), b"a\xcc\x88")


class CheckTests(SynchronousTestCase):
    """Hashes, made and checked."""

    def test_own_hash(self) -> None:
        """A hash is of its password and pepper and of no other, and of the cost asked for."""
        made = hash_password("ilovebananas", "pepper", ROUNDS)
        self.assertTrue(check_password("ilovebananas", made, "pepper"))
        self.assertFalse(check_password("ilovebananas", made, ""))
        self.assertFalse(check_password("Ilovebananas", made, "pepper"))
        self.assertEqual(cost_of(made), ROUNDS)

    def test_foreign_hash(self) -> None:
        """A hash that a homeserver made is good here, at 71, 72 and 73 bytes, and one made here is
        good there.
        """
        for password, pepper, raw in (
            ("a" * 71, "", b"a" * 71),
            ("a" * 72, "", b"a" * 72),
            ("a" * 73, "", b"a" * 72),
            ("a" * 70, "xyz", b"a" * 70 + b"xy"),
            ("a" * 71 + "ä", "", b"a" * 71 + b"\xc3"),
        ):
            self.assertTrue(check_password(password, bcrypt_of(raw), pepper))
            made = hash_password(password, pepper, ROUNDS).encode("ascii")
            self.assertTrue(bcrypt.checkpw(raw, made))

    def test_each_byte_to_the_bound(self) -> None:
        """The 72nd byte counts, and the 73rd does not."""
        made = hash_password("a" * 72, "", ROUNDS)
        self.assertFalse(check_password("a" * 71, made, ""))
        self.assertFalse(check_password("a" * 71 + "b", made, ""))
        self.assertTrue(check_password("a" * 72 + "b", made, ""))

    def test_nul(self) -> None:
        """A NUL is a byte like any other."""
        made = hash_password("a\0b", "", ROUNDS)
        self.assertTrue(check_password("a\0b", made, ""))
        for other in ("a", "a\0", "a\0c"):
            self.assertFalse(check_password(other, made, ""))

    @settings(max_examples=30)
    @given(st.text(), st.text(max_size=80))
    def test_any_text(self, password: str, pepper: str) -> None:
        """Any password can be hashed and is then right."""
        made = hash_password(password, pepper, ROUNDS)
        self.assertTrue(check_password(password, made, pepper))


class CostTests(SynchronousTestCase):
    """The cost of a hash."""

    def test_cost(self) -> None:
        """The cost is read from the hash, in every version of bcrypt that Synapse accepts."""
        tail = bcrypt_of(b"x")[7:]
        for hashed, cost in (
            (f"$2b$12${tail}", 12),
            (f"$2a$04${tail}", 4),
            (f"$2y$31${tail}", 31),
        ):
            self.assertEqual(cost_of(hashed), cost)

    def test_no_hash(self) -> None:
        """A text that is not a bcrypt hash is refused."""
        tail = bcrypt_of(b"x")[7:]
        for bad in (
            "",
            "ilovebananas",
            "$",
            "$2b$12$",
            f"$2b$12${tail[:-1]}",
            f"$2b$12${tail}x",
            f"$2b$03${tail}",
            f"$2b$32${tail}",
            f"$2b$xx${tail}",
            f"$1$12${tail}",
            f"$2x$12${tail}",
            f"$argon2id$12${tail}",
            f"$2b$12${tail[:20]}${tail[21:]}",
        ):
            self.assertFalse(is_hash(bad), bad)

    def test_what_bcrypt_refuses(self) -> None:
        """A hash that bcrypt cannot check, or that no password can match, is refused."""
        tail = bcrypt_of(b"x")[7:]
        taken = []
        for bad in (
            f"x$2b$04${tail}",
            f" $2b$04${tail}",
            f"$2b$4${tail}",
            f"$2b$ 4${tail}",
            f"$2b$+4${tail}",
            f"$2b$1_2${tail}",
            f"$2b$04${'!' * 53}",
            f"$2b$04${'é' * 53}",
            f"$2b$04${tail[:-1]}\n",
        ):
            if is_hash(bad):
                taken.append(bad)
        self.assertEqual(taken, [])


class HashingPoolTestCase(SynchronousTestCase):
    """A pool with real threads, whose results a test lets through one at a time."""

    def setUp(self) -> None:
        self.calls = ThreadCalls()
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.seen: list[str] = []

    def pool(self, threads: int | None = 1, queue: int = 2, start: bool = True) -> HashingPool:
        """Make a pool, which is stopped after the test."""
        pool = HashingPool(self.calls, threads, queue, ROUNDS)
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

        def check(password: str, password_hash: str, pepper: str, normalize: bool) -> bool:
            self.seen.append(password)
            self.entered.release()
            self.gate.wait(TIMEOUT)
            if password == "broken":
                raise ZeroDivisionError
            return password == "right"

        self.patch(passwords, "check_password", check)

    def wait_until_entered(self, count: int = 1) -> None:
        """Wait until ``count`` more checks wait at the gate."""
        for _ in range(count):
            self.assertTrue(self.entered.acquire(timeout=TIMEOUT))

    def wait_for(self, deferred: Deferred[Any]) -> Any:
        """What a Deferred fires with."""
        self.calls.wait_for(deferred)
        return self.successResultOf(deferred)

    def in_thread(self, function: Callable[[], Any]) -> Any:
        """What a function returns on a hashing thread."""
        self.patch(passwords, "check_password", lambda *arguments: function())
        return self.wait_for(self.pool().check("", "", ""))


UNUSABLE = ("", "disabled", "no hash at all", "!" + bcrypt_of(b"x"), stray_salt(bcrypt_of(b"x")))
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
        pool = self.pool(threads=1, queue=0)
        pool.cost = 99
        for _ in range(3):
            broken = pool.hash("x", "")
            self.calls.wait_for(broken)
            self.failureResultOf(broken, ValueError)

    def test_unusable_hashes(self) -> None:
        """A hash that bcrypt does not accept matches no password, and takes as long as a decoy."""
        costs: list[int] = []
        real = passwords.hash_password

        def hash_password(password: str, pepper: str, rounds: int) -> str:
            costs.append(rounds)
            return real(password, pepper, rounds)

        self.patch(passwords, "hash_password", hash_password)
        pool = self.pool()
        pool.report_cost(5)
        for unusable in UNUSABLE:
            self.assertIs(self.wait_for(pool.check("x", unusable, "")), False, unusable)
            self.assertEqual(costs.pop(), 5)
        self.assertIs(self.wait_for(pool.check("x", bcrypt_of(b"x"), "")), True)
        self.assertEqual(costs, [])

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
        pool = HashingPool(self.calls, 1, 2, ROUNDS, queue_timeout=10, clock=clock.seconds)
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
        self.patch(passwords, "check_password", lambda password, *_: password)
        pool = HashingPool(threads, 1, queue, ROUNDS)
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


class DecoyTests(HashingPoolTestCase):
    """Decoys, which are hashed for unknown users."""

    def decoy_cost(self, pool: HashingPool | OwnCostHashing) -> int:
        """Return the cost of a decoy."""
        costs: list[int] = []

        def hashed(password: str, pepper: str, rounds: int) -> str:
            costs.append(rounds)
            return ""

        self.patch(passwords, "hash_password", hashed)
        self.assertIsNone(self.wait_for(pool.decoy("ilovebananas")))
        (cost,) = costs
        return cost

    def test_cost(self) -> None:
        """A decoy has the configured cost until a cost is reported."""
        self.assertEqual(self.decoy_cost(self.pool()), ROUNDS)

    def test_expected_cost(self) -> None:
        """A decoy has the cost that was reported, whether lower or higher."""
        for cost in (ROUNDS + 1, ROUNDS - 1):
            pool = self.pool()
            pool.report_cost(cost)
            self.assertEqual(self.decoy_cost(pool), cost)

    def test_highest(self) -> None:
        """Of the reports of several sources the highest counts, in any order."""
        pool = self.pool()
        for whose, cost in enumerate((6, 9, 7)):
            pool.report_cost(cost, whose)
        self.assertEqual(self.decoy_cost(pool), 9)

    def test_own_cost(self) -> None:
        """Hashing with its own cost has decoys of that cost, and changes no others."""
        pool = self.pool()
        own = OwnCostHashing(pool)
        verifyObject(IHashing, own)
        pool.report_cost(6)
        self.assertEqual(self.decoy_cost(own), ROUNDS)
        own.report_cost(9)
        self.assertEqual((self.decoy_cost(own), self.decoy_cost(pool)), (9, 6))
        self.assertIs(self.wait_for(own.check("right", bcrypt_of(b"wrong"), "")), False)

    def test_latest(self) -> None:
        """An earlier report of the same source does not count any more, whether higher or lower."""
        pool = self.pool()
        pool.report_cost(6, "another")
        for said in (8, 9, 7, 5):
            pool.report_cost(said, "one")
            self.assertEqual(self.decoy_cost(pool), max(said, 6))

    def test_hashes(self) -> None:
        """A decoy does hash, with any password."""
        pool = self.pool()
        for password in ("", "ilovebananas", "\0", "ä" * 500):
            self.assertIsNone(self.wait_for(pool.decoy(password)))


class UsualCostTests(SynchronousTestCase):
    """The most common cost of hashes that are seen one at a time."""

    def test_odd_one(self) -> None:
        """A single hash of another cost changes nothing, however often it is seen."""
        usual = MostCommonCost()
        for number in range(3):
            self.assertEqual(usual.seen(f"user{number}", 12), 12)
        for odd in (14, 4):
            for _ in range(20):
                self.assertEqual(usual.seen("odd", odd), 12)

    def test_made_anew(self) -> None:
        """When most hashes have been renewed, the new cost is the most common."""
        usual = MostCommonCost()
        for cost in (12, 10):
            said = [usual.seen(f"user{number}", cost) for number in range(5)]
        self.assertEqual(said[-1], 10)

    def test_bound(self) -> None:
        """The number of remembered accounts is bounded; those seen last are kept."""
        usual = MostCommonCost(accounts=3)
        for number in range(10):
            usual.seen(f"user{number}", 12)
        self.assertEqual([usual.seen(f"other{number}", 10) for number in range(3)], [12, 10, 10])


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
        """On Linux the threads have a lower priority than the rest of the process."""
        before = os.getpriority(os.PRIO_PROCESS, 0)
        if before > 10:
            self.skipTest("the tests run at too low a priority themselves")

        def niceness() -> int:
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

        self.assertEqual(self.in_thread(niceness), 10)
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, 0), before)

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
