"""Calls that block and cannot be interrupted, on threads of their own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from synapse_login_module.common.priority import lower_priority
from synapse_login_module.errors import ProviderBusy, ProviderUnavailable
from synapse_login_module.providers.thread_pool import BoundedPool

T = TypeVar("T")


class _HashingPool(BoundedPool):
    """Threads of a lower priority. Modules such as ``pam_unix`` hash the password on them."""

    def enter_thread(self) -> None:
        """Lower the priority of the thread, where that is allowed."""
        with suppress(OSError):
            lower_priority()


class _Call(Generic[T]):
    """A call, made on a thread.

    :param work: what is done.
    :param ended: called on the thread when it is done.
    :param now: returns the time in seconds.
    :ivar began: the time at which it began; ``None`` while it waits and after its end.
    """

    def __init__(
        self, work: Callable[[], T], ended: Callable[[], None], now: Callable[[], float]
    ) -> None:
        self._work = work
        self._ended = ended
        self._now = now
        self.began: float | None = None

    def __call__(self) -> T:
        self.began = self._now()
        try:
            return self._work()
        finally:
            self.began = None
            self._ended()


class Calls:
    """Makes calls on a few threads, each with a timeout.

    A call that is too late keeps its thread until it ends. While each thread is kept so, all calls
    fail at once. One owner may have half of the threads, so that a module that hangs for one user
    leaves others theirs.

    :param reactor: provides ``callFromThread``, ``callLater`` and ``seconds``.
    :param name: what is called, for the errors.
    :param threads: how many calls are made at once.
    :param queue: how many may wait.
    :param seconds: how long a call may take, its time in the queue included.
    :param hashes: whether the calls hash passwords.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        threads: int,
        queue: int,
        seconds: float,
        hashes: bool = False,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._threads = threads
        self._seconds = seconds
        pool = _HashingPool if hashes else BoundedPool
        self._pool = pool(reactor, threads, queue)
        self._calls: set[_Call[Any]] = set()
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the threads."""
        self._pool.startService()

    def stop(self) -> None:
        """End the threads, but for those that hang, which do not keep the program from exiting."""
        self._pool.stopService()

    def make(self, work: Callable[[], T], owner: str | None = None) -> Deferred[T]:
        """Make a call.

        :param owner: the user whose call it is; ``None`` for nobody's in particular.
        :return: fires with what the call returned. Fails with what it raised, or with
            :class:`~synapse_login_module.errors.ProviderUnavailable` when it is too late, or with
            :class:`~synapse_login_module.errors.ProviderBusy` when its owner has half of the
            threads.
        """

        def as_owner() -> T:
            with nullcontext() if owner is None else self._thread_of(owner):
                return work()

        return Deferred.fromCoroutine(self._make(as_owner))

    @contextmanager
    def _thread_of(self, owner: str) -> Iterator[None]:
        """Count a thread for its owner; called on the thread."""
        with self._lock:
            if self._held[owner] >= max(1, self._threads // 2):
                raise ProviderBusy(f"{self._name}: one user has {self._held[owner]} threads")
            self._held[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[owner] -= 1
                if not self._held[owner]:
                    del self._held[owner]

    async def _make(self, work: Callable[[], T]) -> T:
        if self._hanging >= self._threads:
            raise ProviderUnavailable(f"{self._name}: all threads hang ({self._threads})")

        def ended() -> None:
            self._reactor.callFromThread(self._calls.discard, call)

        def too_late(_: Any, seconds: float) -> Failure:
            return Failure(ProviderUnavailable(f"{self._name}: no answer in {seconds:g} seconds"))

        call = _Call(work, ended, self._reactor.seconds)
        self._calls.add(call)
        running = self._pool.run(call)
        try:
            return await running.addTimeout(self._seconds, self._reactor, onTimeoutCancel=too_late)
        finally:
            if call.began is None:
                self._calls.discard(call)

    @property
    def _hanging(self) -> int:
        """The number of calls that are too late and have not ended."""
        latest = self._reactor.seconds() - self._seconds
        times = [call.began for call in self._calls]
        return sum(began is not None and began <= latest for began in times)
