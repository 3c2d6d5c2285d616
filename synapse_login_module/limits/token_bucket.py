"""Token buckets, bounded in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from hashlib import blake2b
from typing import Protocol

from twisted.internet.defer import Deferred, execute, succeed
from zope.interface import implementer

from synapse_login_module.common.lru import Recent
from synapse_login_module.errors import RateLimited
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.limits import gcra
from synapse_login_module.model import Bucket, Rate

KNOWN_NETWORKS = "known_networks"
"""The name of a table that holds moments of logins, by name and network, in the place of buckets.
Attempts must not evict them.
"""


class Buckets(Protocol):
    """A bounded table of the buckets that are not full. It holds the moment when each will be."""

    def locked(self, key: Hashable) -> AbstractContextManager[object]:
        """Lock a bucket against other processes while it is read and written."""

    def get(self, key: Hashable) -> float | None:
        """Read the moment of a bucket; ``None`` if there is none, since the bucket is full."""

    def set(self, key: Hashable, moment: float) -> None:
        """Write the moment of a bucket; may evict the moment that was written longest ago."""

    def delete(self, key: Hashable) -> None:
        """Delete the moment of a bucket, which is full again."""


_MAX_BUCKETS = 20_000
_MAX_KNOWN_NETWORKS = 100_000


class LocalBuckets:
    """The buckets of one process. Keys are hashed, since a client chooses how long a name is: an
    entry takes some 200 bytes.

    :param max_keys: how many buckets are kept; one more evicts the one that was written longest
        ago.
    """

    def __init__(self, max_keys: int = _MAX_BUCKETS) -> None:
        self._moments: Recent[bytes, float] = Recent(max_keys)

    def locked(self, key: Hashable) -> AbstractContextManager[object]:
        """Lock nothing: there is no other process."""
        return nullcontext()

    def get(self, key: Hashable) -> float | None:
        """Read the moment of a bucket."""
        return self._moments.get(_digest(key))

    def set(self, key: Hashable, moment: float) -> None:
        """Write the moment of a bucket."""
        self._moments.remember(_digest(key), moment)

    def delete(self, key: Hashable) -> None:
        """Delete the moment of a bucket."""
        self._moments.pop(_digest(key), None)


def local_buckets(name: str) -> LocalBuckets:
    """Make the table of a limit; that of the known networks, which attempts do not fill, is larger.

    :param name: the name of the limit.
    """
    return LocalBuckets(_MAX_KNOWN_NETWORKS if name == KNOWN_NETWORKS else _MAX_BUCKETS)


def _digest(key: Hashable) -> bytes:
    return blake2b(repr(key).encode("utf-8", "backslashreplace"), digest_size=16).digest()


class RateLimiter:
    """One token bucket for each key, full at first.

    :param rate: the size and refill rate of every bucket, or ``None`` for no limit.
    :param clock: returns the time in seconds; one clock for all processes that share the buckets.
    :param buckets: the table that holds the buckets.
    """

    def __init__(
        self, rate: Rate | None, clock: Callable[[], float], buckets: Buckets | None = None
    ) -> None:
        self._rate = rate
        self._clock = gcra.SteadyClock(clock)
        self._buckets = LocalBuckets() if buckets is None else buckets

    def consume(self, key: Hashable) -> None:
        """Count an attempt.

        :raise RateLimited: when the bucket is empty. Then nothing is counted.
        """
        self._attempt(key, consumes=True)

    def require(self, key: Hashable) -> None:
        """Check that an attempt could be counted, without counting one.

        :raise RateLimited: when the bucket is empty.
        """
        self._attempt(key, consumes=False)

    def wait(self, key: Hashable) -> float:
        """Return for how many seconds an attempt would be refused; 0 if it is allowed."""
        found = None if self._rate is None else self._buckets.get(key)
        if self._rate is None or found is None:
            return 0.0
        return gcra.consume(self._rate, found, self._clock())[1]

    def refund(self, key: Hashable) -> None:
        """Refund what an attempt consumed."""
        if self._rate is None:
            return
        with self._buckets.locked(key):
            full_at = self._buckets.get(key)
            if full_at is None:
                return
            full_at = gcra.refund(self._rate, full_at)
            if full_at > self._clock():
                self._buckets.set(key, full_at)
            else:
                # A full bucket need not be kept, and another can use its place.
                self._buckets.delete(key)

    def _attempt(self, key: Hashable, consumes: bool) -> None:
        if self._rate is None:
            return
        with self._buckets.locked(key):
            now = self._clock()
            found = self._buckets.get(key)
            before = now if found is None else found
            full_at, wait = gcra.consume(self._rate, before, now)
            if (consumes or wait) and full_at != before:
                self._buckets.set(key, full_at)
        if wait:
            raise RateLimited(math.ceil(wait * 1000) / 1000)


@implementer(IRateLimits)
class LocalRateLimits:
    """Counts attempts in the memory of this process, or in memory that the processes of this
    machine share.

    :param clock: returns the time in seconds; one clock for all processes that share the buckets.
    :param buckets: returns the table of a limit, by the limit's name.
    """

    def __init__(self, clock: Callable[[], float], buckets: Callable[[str], Buckets]) -> None:
        self._clock = clock
        self._buckets = buckets
        self._limiters: dict[tuple[str, Rate], RateLimiter] = {}

    def consume(
        self,
        wanted: Sequence[Bucket],
        required: Sequence[Bucket] = (),
        refunded: Sequence[Bucket] = (),
    ) -> Deferred[None]:
        """Consume one from each bucket, or from none. The Deferred has fired when this returns."""
        return execute(self.consume_now, wanted, required, refunded)

    def waits(self, buckets: Sequence[Bucket]) -> Deferred[list[float]]:
        """Read how long each bucket refuses. The Deferred has fired when this returns."""
        return succeed([self._limiter(bucket).wait(bucket.key) for bucket in buckets])

    def refund(self, consumed: Sequence[Bucket]) -> Deferred[None]:
        """Refund one to each bucket. The Deferred has fired when this returns."""
        return execute(self.consume_now, (), (), consumed)

    def consume_now(
        self,
        wanted: Sequence[Bucket],
        required: Sequence[Bucket] = (),
        refunded: Sequence[Bucket] = (),
    ) -> None:
        """Consume one from each bucket, or from none, like :meth:`consume` without a Deferred.

        :raise RateLimited: when a bucket is empty; names that bucket.
        """
        with ExitStack() as undo:
            try:
                for bucket in required:
                    self._limiter(bucket).require(bucket.key)
                for bucket in wanted:
                    limiter = self._limiter(bucket)
                    limiter.consume(bucket.key)
                    undo.callback(limiter.refund, bucket.key)
            except RateLimited as error:
                raise RateLimited(error.retry_after, bucket.limit, bucket.key) from None
            undo.pop_all()
        for bucket in refunded:
            self._limiter(bucket).refund(bucket.key)

    def _limiter(self, bucket: Bucket) -> RateLimiter:
        kind = (bucket.limit, bucket.rate)
        if kind not in self._limiters:
            self._limiters[kind] = RateLimiter(
                bucket.rate, self._clock, self._buckets(bucket.limit)
            )
        return self._limiters[kind]
