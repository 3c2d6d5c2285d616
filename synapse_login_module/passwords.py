"""Hashing of passwords, off the reactor thread.

Hashing runs in its own thread pool, one thread a core at the lowest priority, behind a bounded
queue. So a storm of logins does not fill the reactor's shared pool, and does not take the processor
from requests that need microseconds. Where other programs leave such threads next to nothing of the
processor, others of a higher priority take their place. A password that the queue has no room for
is rejected at once. While the queue is full, logins from known networks of the user come first.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from synapse_login_module.common.priority import LOW_PRIORITY, LOWEST_PRIORITY, lower_priority
from synapse_login_module.common.thread_pool import ThreadPool
from synapse_login_module.errors import Overloaded
from synapse_login_module.hashes import Kind, NewHashes, parse_hash, prepare
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.hashes.decoys import Decoys, Times
from synapse_login_module.hashes.kinds import pad
from synapse_login_module.interfaces import IHashing

T = TypeVar("T")

_RETRY_AFTER = 1.0

_STARVING_AFTER = 2.0
"""Seconds. Shorter work is done soon, however little of the processor it gets."""
_STARVING = 0.1
"""The share of a core below which a thread of the lowest priority starves."""
_PLENTY = 0.5
"""The share of a core above which the lowest priority is enough again."""
_TELLING = 0.02
"""Seconds. Shorter work may fit into one turn of a thread that hardly gets any."""


class _UnderWay(NamedTuple):
    """A password that a thread hashes.

    :param began: when it began, in seconds.
    :param before: what the thread had had of a processor by then, in seconds.
    :param worked: returns what it has had.
    """

    began: float
    before: float
    worked: Callable[[], float]

    def starves(self, now: float) -> bool:
        """Say whether it has had next to nothing of a processor, for long enough to tell."""
        seconds = now - self.began
        try:
            return seconds > _STARVING_AFTER and self.worked() - self.before < seconds * _STARVING
        except OSError:  # the thread has ended
            return False

    def thrives(self, now: float) -> bool:
        """Say whether it has had plenty; called on its thread."""
        seconds = now - self.began
        return seconds > _TELLING and self.worked() - self.before > seconds * _PLENTY


def thread_clock() -> Callable[[], float]:
    """Return what tells, on any thread, the processor time of this one, in seconds.

    Where the system has no such clock, it returns NaN, of which nothing is more or less.
    """
    if sys.platform != "linux":
        return lambda: math.nan
    return partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))


_known_as: ContextVar[str | None] = ContextVar("known_as", default=None)
_checked: ContextVar[list[Kind] | None] = ContextVar("checked", default=None)


def call_hashing_for(known_as: str | None, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function that has passwords hashed for a login, at once or in a coroutine that it
    starts.

    A context variable carries the name to the pool, so providers need not pass it on.

    :param known_as: the name that the client sent, if the user logged in by it from the client's
        network before; ``None`` otherwise. It is the owner of the hashing in the pool's queue.
    :return: what the function returned.
    """
    token = _known_as.set(known_as)
    try:
        return function(*arguments)
    finally:
        _known_as.reset(token)


def call_collecting_kinds(kinds: list[Kind], function: Callable[..., T], *arguments: Any) -> T:
    """Call a function, and collect the kinds of the hashes that it has checked, at once or in a
    coroutine that it starts.

    :return: what the function returned.
    """
    token = _checked.set(kinds)
    try:
        return function(*arguments)
    finally:
        _checked.reset(token)


def is_empty(password: str) -> bool:
    """Say whether a password is none. Some formats of hashes take NUL for nothing."""
    return not password.strip("\0")


def hash_password(password: str, pepper: str, rounds: int) -> str:
    """Hash a password as Synapse's ``hash_password`` does.

    :param rounds: bcrypt's cost, the logarithm of the work, 4 to 16.
    """
    return make_hash(password, pepper, new_hashes(rounds))


def make_hash(password: str, pepper: str, new: NewHashes, normalize: bool | None = None) -> str:
    """Hash a password. Blocks while it is computed.

    :param normalize: whether to apply NFKC; ``None`` for the rule of these hashes.
    """
    return new.make(prepare(password, pepper, new.kind.ruled(normalize).normalize))


def check_password(
    password: str, password_hash: str, pepper: str, normalize: bool | None = None
) -> bool:
    """Say whether the hash is of this password. Blocks while it is computed.

    :param normalize: whether to apply NFKC; ``None`` for the rule of the hash.
    :raise ValueError: when the hash cannot be used.
    """
    stored = parse_hash(password_hash)
    return stored.verify(prepare(password, pepper, stored.kind.ruled(normalize).normalize))


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@implementer(IHashing)
class HashingPool(ThreadPool):
    """A thread pool for hashing; see :class:`~synapse_login_module.interfaces.IHashing`.

    :param reactor: provides ``callFromThread``.
    :param threads: how many threads hash; ``None`` for one a core.
    :param queue: how many passwords may wait.
    :param new: how new hashes are made. Decoys are of their kind until a kind is reported.
    :param queue_timeout: seconds that a password may wait in the queue. It is shorter than any
        timeout of a provider, so that a full queue never looks like an outage.
    :param clock: returns the time in seconds, and never goes back.
    :param waited: called on a thread with the seconds that each password has waited.
    :param thread_clock: called on a thread; returns what returns the seconds that this thread has
        had of a processor, on any thread.
    :param watch: a clock that runs a look at the threads once a second, for those that starve;
        ``None`` for none.
    """

    log = Logger()
    needs_start = True

    def __init__(
        self,
        reactor: Any,
        threads: int | None,
        queue: int,
        new: NewHashes,
        queue_timeout: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        waited: Callable[[float], None] = lambda seconds: None,
        thread_clock: Callable[[], Callable[[], float]] = thread_clock,
        watch: IReactorTime | None = None,
    ) -> None:
        super().__init__(reactor, "hashing", threads or cores(), queue)
        self._niceness = LOWEST_PRIORITY
        self._thread_clock = thread_clock
        self._under_way: set[_UnderWay] = set()
        self._watching: LoopingCall | None = None
        if watch is not None:
            self._watching = LoopingCall(self.rescue_starving)
            self._watching.clock = watch
        self._waited = waited
        self._queue_timeout = queue_timeout
        self._clock = clock
        self._new = new
        self.times = Times()
        self._decoys = Decoys(new.kind, self.times)

    @property
    def kind(self) -> Kind:
        """The kind of new hashes."""
        return self._new.kind

    def startService(self) -> None:
        """Begin to hash."""
        super().startService()
        if self._watching is not None and not self._watching.running:
            self._watching.start(1.0, now=False)

    def stopService(self) -> None:
        """Hash no more; blocks until the threads have ended."""
        if self._watching is not None and self._watching.running:
            self._watching.stop()
        super().stopService()

    def no_room(self) -> Exception:
        """Make the error of a password without a place, which tells the client when to retry."""
        return Overloaded(_RETRY_AFTER)

    def enter_thread(self) -> None:
        """Lower the priority of the thread."""
        try:
            lower_priority(self._niceness)
        except OSError as error:
            self.log.info("hashing threads run at normal priority: {error}", error=error)

    def report_kind(self, kind: Kind, source: object = None) -> None:
        """Make decoys of the slowest kind of the latest reports of all sources."""
        self._decoys.report(kind, source)

    def check(
        self, password: str, password_hash: str, pepper: str, normalize: bool | None = None
    ) -> Deferred[bool]:
        """Fire with whether the hash is of this password.

        A hash that cannot be used is of no password. That result takes as long as a decoy.
        """
        decoys, checked = self._decoys.kind, _checked.get()

        def work() -> bool:
            try:
                stored = parse_hash(password_hash)
                kind = stored.kind.ruled(normalize)
                if checked is not None:
                    checked.append(kind)
                prepared = prepare(password, pepper, kind.normalize)
                return self._timed(kind, lambda: stored.verify(prepared))
            except ValueError:
                self._timed(decoys, lambda: decoys.decoy(password))
                return False

        return self._run(work)

    def hash(self, password: str, pepper: str, normalize: bool | None = None) -> Deferred[str]:
        """Fire with a new hash."""
        return self._run(lambda: make_hash(password, pepper, self._new, normalize))

    def decoy(self, password: str, kind: Kind | None = None) -> Deferred[None]:
        """Take as long as a check would; fires with ``None``.

        :param kind: the kind of that check's hash; ``None`` for the slowest that was reported.
        """
        chosen = kind or self._decoys.kind
        return self._run(lambda: self._timed(chosen, lambda: chosen.decoy(password)))

    def _timed(self, kind: Kind, work: Callable[[], T]) -> T:
        began = self._clock()
        try:
            result = work()
        except MemoryError:
            # It is no wrong password, so the client has to try again.
            self.log.error("not enough memory to compute {kind}", kind=str(kind))
            raise self.no_room() from None
        if kind.is_quick:
            pad()
        self.times.took(kind, self._clock() - began)
        return result

    def _run(self, work: Callable[[], T]) -> Deferred[T]:
        queued = self._clock()
        is_begun = False

        def work_in_time() -> T:
            nonlocal is_begun
            if not is_begun:
                is_begun = True
                waited = self._clock() - queued
                self._waited(waited)
                if waited > self._queue_timeout:
                    raise self.no_room()
            worked = self._thread_clock()
            mine = _UnderWay(self._clock(), worked(), worked)
            self._under_way.add(mine)
            try:
                return work()
            finally:
                self._under_way.discard(mine)
                self._see_share(mine)

        return self.run(work_in_time, owner=_known_as.get())

    def rescue_starving(self) -> None:
        """Hash anew, at a higher priority, what starves. Else it might take longer than a client
        waits.
        """
        now = self._clock()
        if self._niceness == LOWEST_PRIORITY and any(
            each.starves(now) for each in list(self._under_way)
        ):
            self._renew_at(LOW_PRIORITY, self.renew_threads)

    def _see_share(self, done: _UnderWay) -> None:
        """Choose the priority by what a thread has had of the processor; called on the thread."""
        niceness, now = self._niceness, self._clock()
        if done.starves(now):
            niceness = LOW_PRIORITY
        elif done.thrives(now):
            niceness = LOWEST_PRIORITY
        if niceness != self._niceness:
            self._reactor.callFromThread(self._set_niceness, niceness)

    def _set_niceness(self, niceness: int) -> None:
        """Have other threads of this priority. A thread may not raise its own."""
        if niceness != self._niceness and not self._stopped:
            self._renew_at(niceness, self._threads.renew)

    def _renew_at(self, niceness: int, renew: Callable[[], bool]) -> None:
        """Renew the threads at this priority. While none can be started, the next try is the next
        time that it is wanted.
        """
        before, self._niceness = self._niceness, niceness  # a new thread reads it as it starts
        if not renew():
            self._niceness = before


@implementer(IHashing)
class OwnDecoysHashing:
    """Hashing in a pool, with decoys of its own.

    A login may take two hashes, of two sources. Each source then has its own decoy for a user whom
    it does not know.
    """

    def __init__(self, pool: HashingPool) -> None:
        self._pool = pool
        self._decoys = Decoys(pool.kind, pool.times)

    @property
    def kind(self) -> Kind:
        """The kind of new hashes."""
        return self._pool.kind

    def check(
        self, password: str, password_hash: str, pepper: str, normalize: bool | None = None
    ) -> Deferred[bool]:
        """Check in the pool."""
        return self._pool.check(password, password_hash, pepper, normalize)

    def hash(self, password: str, pepper: str, normalize: bool | None = None) -> Deferred[str]:
        """Hash in the pool."""
        return self._pool.hash(password, pepper, normalize)

    def decoy(self, password: str) -> Deferred[None]:
        """Take as long as a check of a hash of the kind that was reported here."""
        return self._pool.decoy(password, self._decoys.kind)

    def report_kind(self, kind: Kind, source: object = None) -> None:
        """Make these decoys of this kind, and no others."""
        self._decoys.report(kind, source)
