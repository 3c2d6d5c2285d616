"""Thread pools for work that blocks, with a bounded number of threads and a bounded queue."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")

_PLACES = 2
"""How many places in the queue one owner has that no other owner can displace."""


@dataclass(slots=True, eq=False)
class Job:
    """A piece of work in the pool.

    :ivar work: called on a thread.
    :ivar done: fires with what the work returned.
    :ivar give_up: makes the work end soon; ``None`` if it cannot be interrupted.
    :ivar owner: the name that its place in the queue is counted for. A job without an owner
        displaces no other, and may be displaced.
    :ivar is_given_up: whether its result is no longer wanted.
    """

    work: Callable[[], Any]
    done: Deferred[Any]
    give_up: Callable[[], None] | None
    owner: str | None
    is_given_up: bool = False


class JobQueue:
    """Jobs that wait for a thread, first in, first out.

    A few jobs of each owner keep their place; all others may be displaced. So one owner with many
    jobs, such as a user with many known networks, cannot keep others out.
    """

    def __init__(self) -> None:
        self._jobs: OrderedDict[Job, None] = OrderedDict()
        self._displaceable: OrderedDict[Job, None] = OrderedDict()
        self._places: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._jobs)

    def append(self, job: Job) -> None:
        """Put a job at the end."""
        self._jobs[job] = None
        if job.owner is not None and self._has_place(job.owner):
            self._places[job.owner] += 1
        else:
            self._displaceable[job] = None

    def discard(self, job: Job) -> bool:
        """Remove a job; return whether it still waited."""
        if job not in self._jobs:
            return False
        del self._jobs[job]
        if job in self._displaceable:
            del self._displaceable[job]
        elif job.owner is not None:
            self._places[job.owner] -= 1
            if not self._places[job.owner]:
                del self._places[job.owner]
        return True

    def pop_first(self) -> Job:
        """Remove the first job and return it."""
        job = next(iter(self._jobs))
        self.discard(job)
        return job

    def displaced_by(self, owner: str | None) -> Job | None:
        """Find the job of a full queue that a new job of this owner displaces.

        Of those that may be displaced it is the newest, since the others have waited for longer.

        :return: ``None`` if the new job displaces none.
        """
        if owner is None or not self._has_place(owner) or not self._displaceable:
            return None
        return next(reversed(self._displaceable))

    def _has_place(self, owner: str) -> bool:
        return self._places[owner] < _PLACES


class ThreadPool(Service):
    """A pool of threads that rejects work at once when its queue is full.

    It is used from the reactor's thread only. Threads are started when there is work for them.

    :cvar needs_start: whether work waits until the service is started. The process may fork into
        the background before that, and a fork loses threads.
    :param reactor: provides ``callFromThread`` and ``callLater``.
    :param name: the name of the threads.
    :param threads: how many threads work at once.
    :param queue: how many jobs may wait.
    :param grace: seconds that stopping waits for the threads; ``None`` for no limit.
    """

    log = Logger()
    needs_start = False

    def __init__(
        self, reactor: Any, name: str, threads: int, queue: int, grace: float | None = None
    ) -> None:
        self._reactor = reactor
        self._size = threads
        self._most_jobs = threads + queue
        self._waiting = JobQueue()
        self._working: set[Job] = set()
        self._threads = Threads(name, self.enter_thread)
        self._grace = grace
        self._stopped = False

    def no_room(self) -> Exception:
        """Make the error of work that finds no room, or that other work displaces."""
        raise NotImplementedError

    def stopping(self) -> Exception:
        """Make the error of work that is not done because the pool stops."""
        return self.no_room()

    def enter_thread(self) -> None:
        """Prepare a new thread; called on it."""

    @property
    def unfinished(self) -> int:
        """The number of jobs that wait or are under way."""
        return len(self._working) + len(self._waiting)

    @property
    def waiting(self) -> int:
        """The number of jobs that wait."""
        return len(self._waiting)

    def startService(self) -> None:
        """Begin the work that was added before the start."""
        super().startService()
        self._begin()

    def stopService(self) -> None:
        """Reject the jobs that wait, give up those under way, and end the threads.

        Blocks until the threads have ended, or the grace is over.
        """
        super().stopService()
        if self._stopped:
            return
        self._stopped = True
        while self._waiting:
            self._waiting.pop_first().done.errback(self.stopping())
        for job in self._working:
            self._give_up(job)
        stuck = self._threads.stop(self._grace)
        if stuck:
            self.log.warn("{count} threads are left behind: their work does not end", count=stuck)
            # The results of the other threads are still queued in the reactor, and come first.
            self._reactor.callLater(0, self._fail_stuck)

    def run(
        self,
        work: Callable[[], T],
        give_up: Callable[[], None] | None = None,
        owner: str | None = None,
    ) -> Deferred[T]:
        """Run work on a thread.

        :param give_up: makes the work end soon. It is called on the reactor's thread, at most once,
            when the Deferred is cancelled or the pool stops. It may be called just before the work
            begins.
        :param owner: the name that the work is counted for. When the queue is full, work with an
            owner displaces work that has no place of its own.
        :return: fires with what the work returned. Fails with what it raised, or with the error
            that :meth:`no_room` or :meth:`stopping` makes. Cancelling it gives up the work, but the
            thread is free only when the work has ended.
        """
        if self._stopped:
            return fail(self.stopping())
        displaced = None
        if self.unfinished >= self._most_jobs:
            displaced = self._waiting.displaced_by(owner)
            if displaced is None:
                return fail(self.no_room())
            self._waiting.discard(displaced)
        job = Job(work, Deferred(lambda _: self._cancel(job)), give_up, owner)
        self._waiting.append(job)
        self._begin()
        if displaced is not None:
            displaced.done.errback(self.no_room())
        return job.done

    def renew_threads(self) -> bool:
        """Do the jobs under way once more, on new threads. The first result of each counts.

        The work of such a job runs twice, perhaps at once.

        :return: whether a thread could be started. If not, the present ones go on.
        """
        if not self._threads.renew():
            return False
        for job in self._working:
            self._threads.call(partial(self._do, job), len(self._working))
        return True

    def _begin(self) -> None:
        """Give jobs to the threads that are free."""
        if self._stopped or (self.needs_start and not self.running):
            return
        while self._waiting and len(self._working) < self._size:
            job = self._waiting.pop_first()
            self._working.add(job)
            try:
                self._threads.call(partial(self._do, job), len(self._working))
            except RuntimeError:  # the system cannot start a thread
                self._finish(job, Failure())

    def _do(self, job: Job) -> None:
        """Run a job; called on a thread."""
        result: Any = None
        try:
            # Given up first: stopping gives up after it is said that the pool has stopped.
            if job.is_given_up or self._stopped:
                raise self.stopping()
            result = job.work()
        except BaseException:
            result = Failure()
        self._reactor.callFromThread(self._finish, job, result)

    def _finish(self, job: Job, result: Any) -> None:
        self._working.discard(job)
        self._begin()
        if not job.done.called:
            job.done.callback(result)

    def _cancel(self, job: Job) -> None:
        if not self._waiting.discard(job):
            self._give_up(job)

    @staticmethod
    def _give_up(job: Job) -> None:
        if not job.is_given_up:
            job.is_given_up = True
            if job.give_up is not None:
                job.give_up()

    def _fail_stuck(self) -> None:
        """Fail the jobs whose threads were left behind."""
        for job in self._working:
            if not job.done.called:
                job.done.errback(self.stopping())


class Threads:
    """Threads that are started one by one as they are needed.

    They are daemon threads: one whose work never ends does not keep the program from exiting. All
    methods are called on one thread.

    :param name: the name of each thread.
    :param enter: called on each thread before its first work.
    """

    def __init__(self, name: str, enter: Callable[[], None]) -> None:
        self._name = name
        self._enter = enter
        self._threads: list[threading.Thread] = []
        self._ending: list[threading.Thread] = []
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def call(self, function: Callable[[], None], wanted: int) -> None:
        """Call a function, which must not raise, on the next thread that is free.

        :param wanted: how many threads there should be; one is started if there are fewer.
        :raise RuntimeError: when there is no thread, and none can be started.
        """
        if len(self._threads) < wanted:
            try:
                self._threads.append(self._start(self._calls))
            except RuntimeError:
                if not self._threads:
                    raise
        self._calls.put(function)

    def renew(self) -> bool:
        """End each thread when its work is done, and start others for the calls to come.

        The first of the others is started at once. While the system can start none, the present
        threads stay.

        :return: whether the threads are renewed.
        """
        calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        try:
            first = self._start(calls)
        except RuntimeError:
            return False
        self._end()
        self._threads, self._calls = [first], calls
        return True

    def stop(self, grace: float | None) -> int:
        """End each thread when its work is done, and wait for them.

        :param grace: seconds to wait for all of them together; ``None`` for no limit.
        :return: how many threads have not ended.
        """
        self._end()
        deadline = None if grace is None else time.monotonic() + grace
        for thread in self._ending:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._ending)

    def _start(self, calls: SimpleQueue[Callable[[], None] | None]) -> threading.Thread:
        """Start a thread that serves these calls.

        :raise RuntimeError: when the system can start none.
        """
        thread = threading.Thread(target=self._serve, args=(calls,), name=self._name, daemon=True)
        thread.start()
        return thread

    def _end(self) -> None:
        """End each thread when its work is done."""
        for _ in self._threads:
            self._calls.put(None)
        self._ending = [each for each in self._ending if each.is_alive()] + self._threads
        self._threads = []

    def _serve(self, calls: SimpleQueue[Callable[[], None] | None]) -> None:
        self._enter()
        while (function := calls.get()) is not None:
            function()
            del function  # it may hold a password, and the next call may be hours away
