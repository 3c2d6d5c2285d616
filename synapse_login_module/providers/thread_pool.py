"""Threads of one backend's own: it may hang, and nobody else's work hangs with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import ProviderBusy, ProviderUnavailable

T = TypeVar("T")

_GRACE = 2.0


class BoundedPool(Service):
    """So many threads at work, so much work waiting; the rest is refused at once.

    Threads are made when there is work. A thread whose work never ends, whatever it is told, does
    not keep the program from ending.

    :param reactor: provides ``callFromThread``.
    :param threads: how many work at once.
    :param queue: how much work may wait.
    :param grace: for how many seconds stopping waits for the threads.
    """

    log = Logger()

    def __init__(self, reactor: Any, threads: int, queue: int, grace: float = _GRACE) -> None:
        self._reactor = reactor
        self._most_threads = threads
        self._most_work = threads + queue
        self._grace = grace
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._unfinished = 0
        self._awaited: dict[Deferred[Any], Callable[[], None]] = {}

    def stopService(self) -> None:
        """Give up what is under way, and end the threads."""
        super().stopService()
        if self._stopped:
            return
        self._stopped = True
        for give_up in list(self._awaited.values()):
            give_up()
        for _ in self._threads:
            self._work.put(None)
        deadline = time.monotonic() + self._grace
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in self._threads)
        if stuck:
            self.log.warn("{count} threads are left behind: their work does not end", count=stuck)
        # What has ended is yet to be told here, by the reactor.
        self._reactor.callLater(0, self._disappoint)

    def run(self, work: Callable[[], T], give_up: Callable[[], None] | None = None) -> Deferred[T]:
        """Do a piece of work on a thread.

        :param give_up: has the work end soon; called on the reactor's thread, at most once, when
            nobody waits for it any more. It may come before the work begins.
        :return: fires with what the work returned. Fails with what it raised, or at once with
            :class:`~synapse_login_module.errors.ProviderBusy` when there is no room.
            Cancelling it gives up the work; its thread is free only when the work has ended.
        """
        if self._stopped:
            return fail(ProviderUnavailable("the service is stopping"))
        if self._unfinished == self._most_work:
            problem = f"{self._unfinished} pieces of work are under way already"
            return fail(ProviderBusy(problem))
        self._unfinished += 1
        given_up = threading.Event()

        def stop() -> None:
            if not given_up.is_set():
                given_up.set()
                if give_up is not None:
                    give_up()

        def in_thread() -> None:
            result: T | Failure
            try:
                if given_up.is_set():
                    raise ProviderUnavailable("the work was given up before it began")
                result = work()
            except BaseException:
                result = Failure()
            self._reactor.callFromThread(on_reactor, result)

        def on_reactor(result: T | Failure) -> None:
            self._unfinished -= 1
            self._awaited.pop(done, None)
            if not done.called:
                done.callback(result)

        def cancel(_: object) -> None:
            self._awaited.pop(done, None)
            stop()

        done: Deferred[T] = Deferred(cancel)
        self._awaited[done] = stop
        self._work.put(in_thread)
        if len(self._threads) < self._most_threads:
            thread = threading.Thread(target=self._serve, name="backend", daemon=True)
            self._threads.append(thread)
            thread.start()
        return done

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _disappoint(self) -> None:
        """Tell those who still wait that nothing will come."""
        awaited, self._awaited = self._awaited, {}
        for done in awaited:
            if not done.called:
                done.errback(ProviderUnavailable("the service is stopping"))
