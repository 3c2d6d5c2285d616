"""Bcrypt as Synapse does it, off the reactor thread.

Hashing runs in a pool of its own, one thread a core at lower priority, behind a bounded queue. So
a storm of logins neither fills the reactor's shared pool nor takes the processor from requests
that need microseconds; what does not fit is shed at once. While the queue is full, logins from
networks where the user has logged in before come first.
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

from synapse_login_module.errors import Overloaded
from synapse_login_module.interfaces import IHashing
from synapse_login_module.thread_pool import ThreadPool

T = TypeVar("T")

_BCRYPT_BYTES = 72
_NORMALIZED = 1024
# 21 characters of salt and one more of two bits, 30 of the hash and one more of four: bits that
# belong to neither are zero. Bcrypt raises on others in the salt, and never makes others itself.
_HASH = re.compile(
    r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$"
    r"[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]"
)
_NICENESS = 10
_RETRY_AFTER = 1.0

_known_as: ContextVar[str | None] = ContextVar("known_as", default=None)


def call_hashing_for(known_as: str | None, function: Callable[..., T], *arguments: Any) -> T:
    """Call something that has passwords hashed for a login, then or in a coroutine that it begins.

    No provider has to know of it, though each asks for the hashing of its own accounts.

    :param known_as: the name that the client gave, if the user logged in by it from the client's
        network before; ``None`` otherwise.
    """
    token = _known_as.set(known_as)
    try:
        return function(*arguments)
    finally:
        _known_as.reset(token)


def prepare(password: str, pepper: str, normalize: bool = True) -> bytes:
    """The bytes that bcrypt is given: NFKC, then the pepper, then UTF-8 cut at 72 bytes.

    This is Synapse's rule, so that its hashes are good here and ours there. But what comes after
    the first 1,024 characters is left aside before NFKC, which takes seconds for thousands of
    combining marks, and holds the interpreter for as long.

    :param normalize: whether NFKC is part of it; other programs leave the password as it comes.
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
    """Whether the hash is of this password. Blocks for as long as the hash costs."""
    return bcrypt.checkpw(prepare(password, pepper, normalize), password_hash.encode("ascii"))


def cost_of(password_hash: str) -> int:
    """The cost that a bcrypt hash was made with.

    :raise ValueError: when it is no bcrypt hash, or one that no password can be right for.
    """
    match = _HASH.fullmatch(password_hash)
    if match is None:
        raise ValueError("not a bcrypt hash")
    return int(match[1])


class MostCommonCost:
    """What most hashes cost, for whoever sees them one at a time.

    Each account has one voice, however often it comes, so that nobody sways it by logging in to one
    account again and again.

    :param accounts: how many are remembered; the one not seen for longest is forgotten.
    """

    def __init__(self, accounts: int = 1000) -> None:
        self._accounts = accounts
        self._costs: OrderedDict[str, int] = OrderedDict()
        self._counts: Counter[int] = Counter()

    def seen(self, account: str, cost: int) -> int:
        """Take note of an account's hash, and say what most cost."""
        before = self._costs.pop(account, None)
        if before is None and len(self._costs) == self._accounts:
            _, before = self._costs.popitem(last=False)
        if before is not None:
            self._counts[before] -= 1
        self._costs[account] = cost
        self._counts[cost] += 1
        return max(self._counts, key=self._counts.__getitem__)


def cores() -> int:
    """How many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@implementer(IHashing)
class HashingPool(ThreadPool):
    """Bcrypt in threads of its own; see :class:`~synapse_login_module.interfaces.IHashing`.

    :param reactor: provides ``callFromThread``.
    :param threads: how many hash at once; ``None`` is one a core.
    :param queue: how many may wait.
    :param rounds: the cost of new hashes, and of a decoy until somebody says otherwise.
    :param queue_timeout: seconds that a password may wait in the queue. It is shorter than any
        timeout of a provider, so that a full queue never looks like an outage.
    :param clock: a clock that never goes back.
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
    ) -> None:
        super().__init__(reactor, "hashing", threads or cores(), queue)
        self._queue_timeout = queue_timeout
        self._clock = clock
        self.cost = rounds
        self._expected: dict[object, int] = {}

    def no_room(self) -> Exception:
        """Tell the client to come again."""
        return Overloaded(_RETRY_AFTER)

    def enter_thread(self) -> None:
        """Step back behind the reactor thread, where the system has a priority for each thread."""
        if sys.platform != "linux":
            return
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        except OSError as error:
            self.log.info("hashing threads run at normal priority: {error}", error=error)

    def report_cost(self, cost: int, source: object = None) -> None:
        """Make decoys as dear as the dearest of what each says now that most of its hashes cost."""
        self._expected[source] = cost

    def check(
        self, password: str, password_hash: str, pepper: str, normalize: bool = True
    ) -> Deferred[bool]:
        """Fire with whether the hash is of this password.

        A hash that bcrypt does not take is of no password; to say so takes as long as a decoy.
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
        """Take as long as a check would.

        :param cost: of that check, where it is known better than what most hashes cost.
        """
        return self._run(self._decoy(password, cost))

    def _decoy(self, password: str, cost: int | None = None) -> Callable[[], None]:
        if cost is None:
            cost = max(self._expected.values(), default=self.cost)

        def work() -> None:
            hash_password(password, "", cost)

        return work

    def _run(self, work: Callable[[], T]) -> Deferred[T]:
        too_late = self._clock() + self._queue_timeout

        def in_time() -> T:
            if self._clock() > too_late:
                raise self.no_room()
            return work()

        return self.run(in_time, owner=_known_as.get())


@implementer(IHashing)
class OwnCostHashing:
    """A pool's hashing for hashes whose cost is their own: it is no measure for others' decoys.

    Where a login takes two hashes, of two sources, each has its decoy for who is not known there.
    """

    def __init__(self, pool: HashingPool) -> None:
        self._pool = pool
        self._expected: dict[object, int] = {}

    @property
    def cost(self) -> int:
        """What new hashes cost."""
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
        """Take as long as a check of a hash of that cost would."""
        return self._pool.decoy(password, max(self._expected.values(), default=self.cost))

    def report_cost(self, cost: int, source: object = None) -> None:
        """Make these decoys as dear, and no others."""
        self._expected[source] = cost
