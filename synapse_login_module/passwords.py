"""Bcrypt by Synapse's rules, off the reactor thread.

Hashing runs in its own thread pool, one thread a core at lower priority, behind a bounded queue. So
a storm of logins does not fill the reactor's shared pool, and does not take the processor from
requests that need microseconds. A password that the queue has no room for is rejected at once.
While the queue is full, logins from known networks of the user come first.
"""

from __future__ import annotations

import math
import os
import re
import sys
import threading
import time
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import bcrypt
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from synapse_login_module.common.thread_pool import ThreadPool
from synapse_login_module.errors import Overloaded
from synapse_login_module.interfaces import IHashing

T = TypeVar("T")

LEAST_COST = 10
"""A lower bcrypt cost is a warning, because a stolen hash is guessed too fast. OWASP's Password
Storage Cheat Sheet asks for 10 or more."""

_BCRYPT_BYTES = 72
_NORMALIZED = 1024
# The salt is 21 characters and one that holds two bits; the hash is 30 characters and one that
# holds four. The unused bits are zero: bcrypt sets none, and raises if one is set in the salt.
_HASH = re.compile(
    r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$"
    r"[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]"
)
_NICENESS = 10
_RETRY_AFTER = 1.0

_known_as: ContextVar[str | None] = ContextVar("known_as", default=None)


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


def prepare(password: str, pepper: str, normalize: bool = True) -> bytes:
    """Prepare a password for bcrypt: NFKC, then the pepper, then UTF-8 cut at 72 bytes.

    This is Synapse's rule, so that each of the two programs can check the hashes of the other. But
    here NFKC sees only the first 1,024 characters. For thousands of combining marks it takes
    seconds, and holds the interpreter lock that long.

    :param normalize: whether to apply NFKC, which other programs do not.
    """
    given = unicodedata.normalize("NFKC", password[:_NORMALIZED]) if normalize else password
    text = given + pepper
    return text.encode("utf-8")[:_BCRYPT_BYTES]


def hash_password(password: str, pepper: str, rounds: int) -> str:
    """Hash a password as Synapse's ``hash_password`` does.

    :param rounds: bcrypt's cost, the logarithm of the work, 4 to 31.
    """
    return bcrypt.hashpw(prepare(password, pepper), bcrypt.gensalt(rounds)).decode("ascii")


def check_password(password: str, password_hash: str, pepper: str, normalize: bool = True) -> bool:
    """Say whether the hash is of this password. Blocks while bcrypt hashes."""
    return bcrypt.checkpw(prepare(password, pepper, normalize), password_hash.encode("ascii"))


def cost_of(password_hash: str) -> int:
    """Return the cost of a bcrypt hash.

    :raise ValueError: when it is not a bcrypt hash, or one that no password can match.
    """
    match = _HASH.fullmatch(password_hash)
    if match is None:
        raise ValueError("not a bcrypt hash")
    return int(match[1])


class MostCommonCost:
    """The most common cost of hashes that are seen one at a time.

    Each account counts once, so that repeated logins to one account do not change the result.

    :param accounts: how many accounts are remembered; one more evicts the one that was not seen for
        the longest time.
    """

    def __init__(self, accounts: int = 1000) -> None:
        self._accounts = accounts
        self._costs: OrderedDict[str, int] = OrderedDict()
        self._counts: Counter[int] = Counter()

    def seen(self, account: str, cost: int) -> int:
        """Count the cost of an account's hash; return the most common cost."""
        before = self._costs.pop(account, None)
        if before is None and len(self._costs) == self._accounts:
            _, before = self._costs.popitem(last=False)
        if before is not None:
            self._counts[before] -= 1
        self._costs[account] = cost
        self._counts[cost] += 1
        return max(self._counts, key=self._counts.__getitem__)


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@implementer(IHashing)
class HashingPool(ThreadPool):
    """A thread pool for bcrypt; see :class:`~synapse_login_module.interfaces.IHashing`.

    :param reactor: provides ``callFromThread``.
    :param threads: how many threads hash; ``None`` for one a core.
    :param queue: how many passwords may wait.
    :param rounds: the cost of new hashes, and of decoys until a cost is reported.
    :param queue_timeout: seconds that a password may wait in the queue. It is shorter than any
        timeout of a provider, so that a full queue never looks like an outage.
    :param clock: returns the time in seconds, and never goes back.
    :param waited: called on a thread with the seconds that each password has waited.
    """

    log = Logger()
    needs_start = True

    def __init__(
        self,
        reactor: Any,
        threads: int | None,
        queue: int,
        rounds: int,
        queue_timeout: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        super().__init__(reactor, "hashing", threads or cores(), queue)
        self._waited = waited
        self._queue_timeout = queue_timeout
        self._clock = clock
        self.cost = rounds
        self._expected: dict[object, int] = {}

    def no_room(self) -> Exception:
        """Make the error of a password without a place, which tells the client when to retry."""
        return Overloaded(_RETRY_AFTER)

    def enter_thread(self) -> None:
        """Lower the priority of the thread. Only Linux has one for each thread."""
        if sys.platform != "linux":
            return
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        except OSError as error:
            self.log.info("hashing threads run at normal priority: {error}", error=error)

    def report_cost(self, cost: int, source: object = None) -> None:
        """Set the cost of decoys to the highest of the latest reports of all sources."""
        self._expected[source] = cost

    def check(
        self, password: str, password_hash: str, pepper: str, normalize: bool = True
    ) -> Deferred[bool]:
        """Fire with whether the hash is of this password.

        A hash that bcrypt does not accept is of no password. That result takes as long as a decoy.
        """
        decoy = self._decoy(password)

        def work() -> bool:
            try:
                return check_password(password, password_hash, pepper, normalize)
            except ValueError:
                decoy()
                return False

        return self._run(work)

    def hash(self, password: str, pepper: str) -> Deferred[str]:
        """Fire with a new hash."""
        return self._run(lambda: hash_password(password, pepper, self.cost))

    def decoy(self, password: str, cost: int | None = None) -> Deferred[None]:
        """Take as long as a check would; fires with ``None``.

        :param cost: the cost of that check; ``None`` for the highest of the reported costs.
        """
        return self._run(self._decoy(password, cost))

    def _decoy(self, password: str, cost: int | None = None) -> Callable[[], None]:
        if cost is None:
            cost = max(self._expected.values(), default=self.cost)

        def work() -> None:
            hash_password(password, "", cost)

        return work

    def _run(self, work: Callable[[], T]) -> Deferred[T]:
        queued = self._clock()

        def work_in_time() -> T:
            waited = self._clock() - queued
            self._waited(waited)
            if waited > self._queue_timeout:
                raise self.no_room()
            return work()

        return self.run(work_in_time, owner=_known_as.get())


@implementer(IHashing)
class OwnCostHashing:
    """Hashing in a pool, with a cost of decoys of its own.

    A login may take two hashes, of two sources. Each source then has its own decoy for a user whom
    it does not know.
    """

    def __init__(self, pool: HashingPool) -> None:
        self._pool = pool
        self._expected: dict[object, int] = {}

    @property
    def cost(self) -> int:
        """The cost of new hashes."""
        return self._pool.cost

    def check(
        self, password: str, password_hash: str, pepper: str, normalize: bool = True
    ) -> Deferred[bool]:
        """Check in the pool."""
        return self._pool.check(password, password_hash, pepper, normalize)

    def hash(self, password: str, pepper: str) -> Deferred[str]:
        """Hash in the pool."""
        return self._pool.hash(password, pepper)

    def decoy(self, password: str) -> Deferred[None]:
        """Take as long as a check of a hash with the cost that was reported here."""
        return self._pool.decoy(password, max(self._expected.values(), default=self.cost))

    def report_cost(self, cost: int, source: object = None) -> None:
        """Set the cost of these decoys, and of no others."""
        self._expected[source] = cost
