"""Threads for work that blocks: a bounded number of them, and a bounded queue in front."""

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
"""How many places in the queue one owner has that no other owner can take."""


@dataclass(slots=True, eq=False)
class Job:
    """A piece of work.

    :ivar work: called on a thread.
    :ivar done: fires with what the work returns.
    :ivar give_up: has the work end soon, where it can be told to.
    :ivar owner: whose it is. What is nobody's displaces nothing, and may be displaced.
    :ivar is_given_up: whether its result is of no use any more.
    """

    work: Callable[[], Any]
    done: Deferred[Any]
    give_up: Callable[[], None] | None
    owner: str | None
    is_given_up: bool = False


class JobQueue:
    """Jobs that wait for a thread: the first that comes is the first that is done.

    A few jobs of each owner keep their place; all others may be displaced. So one owner who has
    many, as a user who has logged in from many networks, cannot keep others out.
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
        """Take a job out; say whether it still waited."""
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
        """Take the first job out."""
        job = next(iter(self._jobs))
        self.discard(job)
        return job

    def displaced_by(self, owner: str | None) -> Job | None:
        """Find the job that makes room for one of an owner, in the queue's full state.

        It is the newest of those that may be, since the others have waited for longer.
        """
        if owner is None or not self._has_place(owner) or not self._displaceable:
            return None
        return next(reversed(self._displaceable))

    def _has_place(self, owner: str) -> bool:
        return self._places[owner] < _PLACES


class ThreadPool(Service):
    """Run work on threads of its own; reject what there is no room for at once.

    All but the work itself is for the reactor's thread. Threads are made when there is work for
    them.

    :cvar needs_start: whether work waits for the start, before which the process may go into the
        background: threads do not come along.
    :param reactor: provides ``callFromThread`` and ``callLater``.
    :param name: of the threads.
    :param threads: how many work at once.
    :param queue: how many jobs may wait.
    :param grace: seconds that stopping waits for the threads; ``None`` is for as long as it takes.
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
        """What work fails with that finds no room, or that other work displaces."""
        raise NotImplementedError

    def stopping(self) -> Exception:
        """What work fails with that is not done because the pool stops."""
        return self.no_room()

    def enter_thread(self) -> None:
        """Prepare a new thread; called on it."""

    @property
    def unfinished(self) -> int:
        """How many jobs wait or are under way."""
        return len(self._working) + len(self._waiting)

    def startService(self) -> None:
        """Begin what has come before the start."""
        super().startService()
        self._begin()

    def stopService(self) -> None:
        """Reject what waits, give up what is under way, and end the threads."""
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
            # What the other threads have done is yet to be told here, by the reactor.
            self._reactor.callLater(0, self._fail_stuck)

    def run(
        self,
        work: Callable[[], T],
        give_up: Callable[[], None] | None = None,
        owner: str | None = None,
    ) -> Deferred[T]:
        """Do a piece of work on a thread.

        :param give_up: has the work end soon; called on the reactor's thread, at most once, when
            nobody waits for it any more. It may come just before the work begins.
        :param owner: whose work it is: when the queue is full it displaces what is nobody's.
        :return: fires with what the work returned. Fails with what it raised, or with what
            :meth:`no_room` and :meth:`stopping` say. Cancelling it gives up the work; a thread is
            free only when its work has ended.
        """
        if self._stopped:
            return fail(self.stopping())
        displaced = None
        if len(self._working) + len(self._waiting) >= self._most_jobs:
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

    def _begin(self) -> None:
        """Give jobs to the threads that have none."""
        if self._stopped or (self.needs_start and not self.running):
            return
        while self._waiting and len(self._working) < self._size:
            job = self._waiting.pop_first()
            self._working.add(job)
            try:
                self._threads.call(partial(self._do, job), len(self._working))
            except RuntimeError:  # the system gives this process no thread
                self._finish(job, Failure())

    def _do(self, job: Job) -> None:
        """Do a job; called on a thread."""
        result: Any = None
        try:
            if self._stopped:
                raise self.stopping()
            if not job.is_given_up:
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
        """Tell those who still wait that nothing will come."""
        for job in self._working:
            if not job.done.called:
                job.done.errback(self.stopping())


class Threads:
    """Threads, made one by one as they are wanted.

    A thread whose work never ends, whatever it is told, does not keep the program from ending.

    :param enter: called on each thread before its first work.
    """

    def __init__(self, name: str, enter: Callable[[], None]) -> None:
        self._name = name
        self._enter = enter
        self._threads: list[threading.Thread] = []
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def call(self, function: Callable[[], None], wanted: int) -> None:
        """Call a function, which raises nothing, on the next thread that is free.

        :param wanted: how many threads there are to be for it.
        :raise RuntimeError: when there is no thread, and none can be made.
        """
        if len(self._threads) < wanted:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not self._threads:
                    raise
            else:
                self._threads.append(thread)
        self._calls.put(function)

    def stop(self, grace: float | None) -> int:
        """End the threads once what they are at is done.

        :param grace: how many seconds to wait for them; ``None`` is for as long as it takes.
        :return: how many are left behind.
        """
        for _ in self._threads:
            self._calls.put(None)
        deadline = None if grace is None else time.monotonic() + grace
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        self._enter()
        while (function := self._calls.get()) is not None:
            function()
            del function  # it may hold a password, and the next may be long in coming
