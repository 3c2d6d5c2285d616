"""Tests for the threads that hashing and queries run on."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.common import thread_pool
from synapse_login_module.common.thread_pool import ThreadPool
from tests.stores.test_group_commit import TIMEOUT, ThreadCalls


class NoRoom(Exception):
    """The error of work without a place."""


class Stopping(Exception):
    """The error of work in a pool that stops."""


class Pool(ThreadPool):
    """A pool with errors of its own."""

    def no_room(self) -> Exception:
        return NoRoom()

    def stopping(self) -> Exception:
        return Stopping()


class LatePool(Pool):
    """A pool whose jobs wait for the start."""

    needs_start = True


class StoppingPool(Pool):
    """A pool that the reactor's thread stops while another thread begins a job.

    :ivar stop_next: whether that happens at the next chance.
    """

    stop_next = False

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name == "_stopped" and self.stop_next:
            self.stop_next = False
            self.stopService()
        return value


class ManualThreads:
    """Replaces the threads and the reactor; runs work when the test says so."""

    def __init__(self) -> None:
        self.given: list[Callable[[], object]] = []
        self.wanted: list[int] = []
        self.later = Clock()
        self.stuck = 0

    def call(self, function: Callable[[], object], wanted: int) -> None:
        """Queue a call."""
        self.given.append(function)
        self.wanted.append(wanted)

    def stop(self, grace: float | None) -> int:
        """Return how many threads are left behind."""
        return self.stuck

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Call the function at once."""
        function(*arguments)

    def callLater(self, delay: float, function: Callable[..., object]) -> object:
        """Call the function when the clock is advanced."""
        return self.later.callLater(delay, function)

    def finish_one(self) -> bool:
        """Run the oldest call; return whether there was one."""
        if not self.given:
            return False
        self.given.pop(0)()
        return True


class OrderTests(SynchronousTestCase):
    """The order of a pool's steps, tested without threads."""

    def setUp(self) -> None:
        self.threads = ManualThreads()
        self.patch(thread_pool, "Threads", lambda *_: self.threads)
        self.done: list[str] = []
        self.given_up: list[str] = []

    def pool(self, threads: int = 1, queue: int = 2, cls: type[ThreadPool] = Pool) -> ThreadPool:
        """A pool."""
        return cls(self.threads, "test", threads, queue)

    def ask(self, pool: ThreadPool, name: str) -> Deferred[str]:
        """Run a job in the pool."""

        def work() -> str:
            self.done.append(name)
            return name

        return pool.run(work, lambda: self.given_up.append(name))

    def test_first_come(self) -> None:
        """Jobs are done in the order they came, and a bounded number is with the threads."""
        pool = self.pool(threads=2)
        asked = [self.ask(pool, name) for name in "abcd"]
        self.failureResultOf(self.ask(pool, "e"), NoRoom)
        self.assertEqual(len(self.threads.given), 2)
        while self.threads.finish_one():
            pass
        self.assertEqual(self.done, list("abcd"))
        self.assertEqual([self.successResultOf(each) for each in asked], list("abcd"))

    def test_threads_wanted(self) -> None:
        """A pool starts as many threads as there are jobs at once, and no more."""
        pool = self.pool(threads=2)
        for name in "ab":
            self.ask(pool, name)
            self.threads.finish_one()
        self.assertEqual(self.threads.wanted, [1, 1])
        for name in "abc":
            self.ask(pool, name)
        self.threads.finish_one()
        self.assertEqual(self.threads.wanted, [1, 1, 1, 2, 2])

    def test_next_begins_first(self) -> None:
        """A thread gets the next job before the result of the last one is delivered."""
        pool = self.pool()
        first = self.ask(pool, "a")
        self.ask(pool, "b")
        waiting: list[int] = []
        first.addCallback(lambda _: waiting.append(len(self.threads.given)))
        self.threads.finish_one()
        self.assertEqual(waiting, [1])

    def test_cancelled_in_the_queue(self) -> None:
        """What is cancelled before its turn gives its place back at once; there is nothing to give
        up.
        """
        pool = self.pool(queue=1)
        self.ask(pool, "a")
        gone = self.ask(pool, "b")
        self.failureResultOf(self.ask(pool, "c"), NoRoom)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        last = self.ask(pool, "d")
        self.threads.finish_one()
        self.threads.finish_one()
        self.assertEqual(self.successResultOf(last), "d")
        self.assertEqual((self.done, self.given_up), (["a", "d"], []))

    def test_cancelled_with_a_thread(self) -> None:
        """What is cancelled with a thread is given up, once, and its place is free when the thread
        is; work that the thread has not begun is not done.
        """
        pool = self.pool(queue=0)
        gone = self.ask(pool, "a")
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.failureResultOf(self.ask(pool, "b"), NoRoom)
        self.threads.finish_one()
        self.ask(pool, "c")
        self.threads.finish_one()
        self.assertEqual((self.done, self.given_up), (["c"], ["a"]))

    def test_stopped(self) -> None:
        """Stopping rejects what waits at once, and gives up what is under way, each once."""
        pool = self.pool(threads=2)
        asked = [self.ask(pool, name) for name in "abc"]
        asked[0].cancel()
        self.failureResultOf(asked[0], CancelledError)
        pool.stopService()
        self.failureResultOf(asked[2], Stopping)
        self.assertEqual(self.given_up, ["a", "b"])
        self.assertNoResult(asked[1])
        self.threads.finish_one()
        self.threads.finish_one()
        self.failureResultOf(asked[1], Stopping)
        self.assertEqual(self.done, [])
        self.failureResultOf(self.ask(pool, "d"), Stopping)
        pool.stopService()

    def test_stopped_as_it_begins(self) -> None:
        """What a thread begins just then is done or rejected, and never reported as done when it
        is not.
        """
        pool = self.pool(cls=StoppingPool)
        asked = self.ask(pool, "a")
        assert isinstance(pool, StoppingPool)
        pool.stop_next = True
        self.threads.finish_one()
        asked.addErrback(lambda failure: failure.trap(Stopping) and "rejected")
        self.assertEqual(self.successResultOf(asked), "a" if self.done else "rejected")

    def test_stuck(self) -> None:
        """A job whose thread is left behind fails, after the others have got their results."""
        pool = self.pool(threads=2)
        stuck, late = self.ask(pool, "a"), self.ask(pool, "b")
        self.threads.stuck = 1
        with capturedLogs() as events:
            pool.stopService()
        self.assertEqual([event["count"] for event in events], [1])
        self.assertNoResult(stuck)
        late.addErrback(lambda failure: failure.trap(Stopping) and "told")
        self.threads.given.pop()()
        self.assertEqual(self.successResultOf(late), "told")
        self.threads.later.advance(0)
        self.failureResultOf(stuck, Stopping)
        self.threads.finish_one()

    def test_start(self) -> None:
        """With ``needs_start``, no job begins before the start."""
        pool = self.pool(cls=LatePool)
        early = self.ask(pool, "a")
        self.assertEqual(self.threads.given, [])
        pool.startService()
        self.threads.finish_one()
        self.assertEqual(self.successResultOf(early), "a")

    def test_stopped_before_the_start(self) -> None:
        """Jobs that wait for the start are rejected when the pool stops."""
        pool = self.pool(cls=LatePool)
        early = self.ask(pool, "a")
        pool.stopService()
        self.failureResultOf(early, Stopping)


class NoThreadTests(SynchronousTestCase):
    """A system that gives the process no more threads."""

    def setUp(self) -> None:
        self.calls = ThreadCalls()
        self.pool = Pool(self.calls, "test", 2, 1)
        self.addCleanup(self.pool.stopService)

    def refuse(self) -> Any:
        """Make the system refuse to start threads from now on."""

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        return self.patch(threading.Thread, "start", refuse)

    def test_none(self) -> None:
        """Without any thread, work fails and gives its place back."""
        patch = self.refuse()
        for _ in range(5):
            self.failureResultOf(self.pool.run(lambda: None), RuntimeError)
        patch.restore()
        late = self.pool.run(lambda: 7)
        self.calls.wait_for(late)
        self.assertEqual(self.successResultOf(late), 7)

    def test_fewer(self) -> None:
        """With fewer threads than wanted, those do all the work."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        first = self.pool.run(lambda: gate.wait(TIMEOUT))
        self.refuse()
        second = self.pool.run(threading.get_ident)
        gate.set()
        self.calls.wait_for(first, second)
        self.assertTrue(self.successResultOf(first))
        self.assertNotEqual(self.successResultOf(second), threading.get_ident())

    def test_not_renewed(self) -> None:
        """Where no thread can take their place, the present ones do what is under way, what waits
        and what comes, each once. They are renewed when that is wanted again.
        """
        gate, begun = threading.Event(), threading.Semaphore(0)
        self.addCleanup(gate.set)

        def work() -> int:
            begun.release()
            gate.wait(TIMEOUT)
            return threading.get_ident()

        asked = [self.pool.run(work) for _ in range(3)]
        for _ in range(2):
            self.assertTrue(begun.acquire(timeout=TIMEOUT))
        patch = self.refuse()
        self.assertFalse(self.pool.renew_threads())
        gate.set()
        self.calls.wait_for(*asked)
        present = {self.successResultOf(each) for each in asked}
        late = self.pool.run(work)
        self.calls.wait_for(late)
        self.assertIn(self.successResultOf(late), present)
        self.assertEqual((len(present), begun._value), (2, 2))
        patch.restore()
        self.assertTrue(self.pool.renew_threads())
        late = self.pool.run(work)
        self.calls.wait_for(late)
        self.assertNotIn(self.successResultOf(late), present)


class IdleTests(SynchronousTestCase):
    """A thread that waits for work."""

    def test_forgets(self) -> None:
        """It keeps no reference to its last work, which may hold a password."""
        asked = threading.Semaphore(0)

        class Calls(SimpleQueue[Any]):
            def get(self, block: bool = True, timeout: float | None = None) -> Any:
                asked.release()
                return super().get(block, timeout)

        class Work:
            def __call__(self) -> None:
                pass

        threads = thread_pool.Threads("test", lambda: None)
        threads._calls = Calls()
        self.addCleanup(threads.stop, TIMEOUT)
        work = Work()
        held = weakref.ref(work)
        threads.call(work, 1)
        del work
        for _ in range(2):
            self.assertTrue(asked.acquire(timeout=TIMEOUT))
        self.assertIsNone(held())
