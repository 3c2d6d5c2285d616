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

from synapse_login_module import thread_pool
from synapse_login_module.thread_pool import ThreadPool
from tests.stores.test_group_commit import TIMEOUT, ThreadCalls


class NoRoom(Exception):
    """There is no room for some work."""


class Stopping(Exception):
    """The pool stops."""


class Pool(ThreadPool):
    """A pool that says in plain words what it rejects."""

    def no_room(self) -> Exception:
        return NoRoom()

    def stopping(self) -> Exception:
        return Stopping()


class LatePool(Pool):
    """A pool that has a job begin only once it is started."""

    needs_start = True


class ManualThreads:
    """In the place of threads, and of a reactor: what is to be done is done when told."""

    def __init__(self) -> None:
        self.given: list[Callable[[], object]] = []
        self.wanted: list[int] = []
        self.later = Clock()
        self.stuck = 0

    def call(self, function: Callable[[], object], wanted: int) -> None:
        """Take some work."""
        self.given.append(function)
        self.wanted.append(wanted)

    def stop(self, grace: float | None) -> int:
        """Say how many are left behind."""
        return self.stuck

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Do it at once."""
        function(*arguments)

    def callLater(self, delay: float, function: Callable[..., object]) -> object:
        """Do it when the clock is moved on."""
        return self.later.callLater(delay, function)

    def finish_one(self) -> bool:
        """Do what was given first; whether there was anything."""
        if not self.given:
            return False
        self.given.pop(0)()
        return True


class OrderTests(SynchronousTestCase):
    """What a pool does when, without a thread."""

    def setUp(self) -> None:
        self.threads = ManualThreads()
        self.patch(thread_pool, "Threads", lambda *_: self.threads)
        self.done: list[str] = []
        self.given_up: list[str] = []

    def pool(self, threads: int = 1, queue: int = 2, cls: type[ThreadPool] = Pool) -> ThreadPool:
        """A pool."""
        return cls(self.threads, "test", threads, queue)

    def ask(self, pool: ThreadPool, name: str) -> Deferred[str]:
        """Have some work done."""

        def work() -> str:
            self.done.append(name)
            return name

        return pool.run(work, lambda: self.given_up.append(name))

    def test_first_come(self) -> None:
        """What comes first is done first, and only so much is with the threads at a time."""
        pool = self.pool(threads=2)
        asked = [self.ask(pool, name) for name in "abcd"]
        self.failureResultOf(self.ask(pool, "e"), NoRoom)
        self.assertEqual(len(self.threads.given), 2)
        while self.threads.finish_one():
            pass
        self.assertEqual(self.done, list("abcd"))
        self.assertEqual([self.successResultOf(each) for each in asked], list("abcd"))

    def test_threads_wanted(self) -> None:
        """There are as many threads as work at once, and one alone where that is enough."""
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
        """A thread has the next work before the last one's result is told."""
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

    def test_stuck(self) -> None:
        """Who waits for a thread that is left behind is told so, after what others have done."""
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
        """Where it is wanted, nothing begins before the start."""
        pool = self.pool(cls=LatePool)
        early = self.ask(pool, "a")
        self.assertEqual(self.threads.given, [])
        pool.startService()
        self.threads.finish_one()
        self.assertEqual(self.successResultOf(early), "a")

    def test_stopped_before_the_start(self) -> None:
        """What waits for a start that does not come is rejected."""
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
        """Have the system refuse threads from now on."""

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        return self.patch(threading.Thread, "start", refuse)

    def test_none(self) -> None:
        """Where there is none at all work fails, and takes no place."""
        patch = self.refuse()
        for _ in range(5):
            self.failureResultOf(self.pool.run(lambda: None), RuntimeError)
        patch.restore()
        late = self.pool.run(lambda: 7)
        self.calls.wait_for(late)
        self.assertEqual(self.successResultOf(late), 7)

    def test_fewer(self) -> None:
        """Where there are some they do it all."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        first = self.pool.run(lambda: gate.wait(TIMEOUT))
        self.refuse()
        second = self.pool.run(threading.get_ident)
        gate.set()
        self.calls.wait_for(first, second)
        self.assertTrue(self.successResultOf(first))
        self.assertNotEqual(self.successResultOf(second), threading.get_ident())


class IdleTests(SynchronousTestCase):
    """A thread that waits for work."""

    def test_forgets(self) -> None:
        """It holds nothing of the work before, which may be a password."""
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
