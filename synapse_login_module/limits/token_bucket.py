"""Token buckets, bounded in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from hashlib import blake2b
from typing import Protocol

from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from synapse_login_module.errors import RateLimited
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.limits import gcra
from synapse_login_module.lru import Recent
from synapse_login_module.model import Bucket, Rate

KNOWN_NETWORKS = "known_networks"
"""The name of what is kept as buckets are, but is none: the moments of logins, by network. Attempts
must not crowd them out.
"""


class Buckets(Protocol):
    """A bounded table of moments: when each bucket will be full, for those that are not."""

    def locked(self, key: Hashable) -> AbstractContextManager[object]:
        """Keep a bucket from other processes while it is read and written."""

    def get(self, key: Hashable) -> float | None:
        """Read a moment; ``None`` where there is none, as of a full bucket."""

    def set(self, key: Hashable, moment: float) -> None:
        """Write a moment; the one that was written longest ago may have to make room."""

    def delete(self, key: Hashable) -> None:
        """Drop a moment, as of a bucket that is full again."""


_MAX_BUCKETS = 20_000
_MAX_KNOWN_NETWORKS = 100_000


class LocalBuckets:
    """The buckets of one process: some 200 bytes each, since a client chooses how long a name is.

    :param max_keys: how many are remembered; beyond that, the one left alone for longest is
        forgotten.
    """

    def __init__(self, max_keys: int = _MAX_BUCKETS) -> None:
        self._moments: Recent[bytes, float] = Recent(max_keys)

    def locked(self, key: Hashable) -> AbstractContextManager[object]:
        """Do nothing: there is no other process."""
        return nullcontext()

    def get(self, key: Hashable) -> float | None:
        """Read a moment."""
        return self._moments.get(_digest(key))

    def set(self, key: Hashable, moment: float) -> None:
        """Write a moment."""
        self._moments.remember(_digest(key), moment)

    def delete(self, key: Hashable) -> None:
        """Drop a moment."""
        self._moments.pop(_digest(key), None)


def local_buckets(name: str) -> LocalBuckets:
    """Make the buckets of a limit; of what attempts do not fill, more are remembered."""
    return LocalBuckets(_MAX_KNOWN_NETWORKS if name == KNOWN_NETWORKS else _MAX_BUCKETS)


def _digest(key: Hashable) -> bytes:
    return blake2b(repr(key).encode("utf-8", "backslashreplace"), digest_size=16).digest()


class RateLimiter:
    """One token bucket a key, each full at first.

    :param rate: the size and refill rate of every bucket, or ``None`` for no limit at all.
    :param clock: a clock; the same for all who share the buckets.
    :param buckets: where they are kept.
    """

    def __init__(
        self, rate: Rate | None, clock: Callable[[], float], buckets: Buckets | None = None
    ) -> None:
        self._rate = rate
        self._clock = gcra.SteadyClock(clock)
        self._buckets = LocalBuckets() if buckets is None else buckets

    def consume(self, key: Hashable) -> None:
        """Count an attempt.

        :raise RateLimited: when the bucket is empty; then nothing is counted.
        """
        self._attempt(key, consumes=True)

    def require(self, key: Hashable) -> None:
        """See whether an attempt could be counted.

        :raise RateLimited: when the bucket is empty.
        """
        self._attempt(key, consumes=False)

    def refund(self, key: Hashable) -> None:
        """Give back what an attempt took."""
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
                # Full, as one that was never used: not worth remembering, in another's place.
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
    """Counts in the memory of this process, or in what it shares with others of this machine.

    :param clock: a clock; the same for all who share the buckets.
    :param buckets: for the name of each limit, where its buckets are.
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
        """Consume one from each bucket, or from none; it is done when this returns."""
        return execute(self.consume_now, wanted, required, refunded)

    def refund(self, consumed: Sequence[Bucket]) -> Deferred[None]:
        """Refund what was consumed; it is done when this returns."""
        return execute(self.consume_now, (), (), consumed)

    def consume_now(
        self,
        wanted: Sequence[Bucket],
        required: Sequence[Bucket] = (),
        refunded: Sequence[Bucket] = (),
    ) -> None:
        """Like :meth:`consume`, without a Deferred.

        :raise RateLimited: which names the bucket that is empty.
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
