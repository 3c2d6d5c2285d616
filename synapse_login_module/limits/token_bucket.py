"""Token buckets, bounded in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from hashlib import blake2b
from typing import Protocol

from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from synapse_login_module.errors import RateLimited
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.lru import Recent
from synapse_login_module.model import Bucket, Rate

Level = tuple[float, float]
"""How much a bucket held, and when that was."""


KNOWN_NETWORKS = "known_networks"
"""The name of what is remembered like buckets, but is none: attempts must not crowd it out."""


class Buckets(Protocol):
    """Where buckets are remembered, those alone that are not full."""

    def held(self, key: Hashable) -> AbstractContextManager[object]:
        """Keep a bucket from everybody else while it is read and written."""

    def get(self, key: Hashable) -> Level | None:
        """Read a bucket; ``None`` is a full one."""

    def put(self, key: Hashable, level: Level) -> None:
        """Write a bucket."""

    def forget(self, key: Hashable) -> None:
        """Make a bucket full again."""


_MAX_BUCKETS = 20_000
_MAX_KNOWN_NETWORKS = 100_000


class LocalBuckets:
    """The buckets of one process: some 300 bytes each, since a client chooses how long a name is.

    :param max_keys: how many are remembered; beyond that, the one left alone for longest is
        forgotten.
    """

    def __init__(self, max_keys: int = _MAX_BUCKETS) -> None:
        self._levels: Recent[bytes, Level] = Recent(max_keys)

    def held(self, key: Hashable) -> AbstractContextManager[object]:
        """Nobody else is there."""
        return nullcontext()

    def get(self, key: Hashable) -> Level | None:
        """Read a bucket."""
        return self._levels.get(_digest(key))

    def put(self, key: Hashable, level: Level) -> None:
        """Write a bucket."""
        self._levels.remember(_digest(key), level)

    def forget(self, key: Hashable) -> None:
        """Make a bucket full again."""
        self._levels.pop(_digest(key), None)


def local_buckets(name: str) -> LocalBuckets:
    """Make the buckets of a limit; of what attempts do not fill, more are remembered."""
    return LocalBuckets(_MAX_KNOWN_NETWORKS if name == KNOWN_NETWORKS else _MAX_BUCKETS)


def _digest(key: Hashable) -> bytes:
    return blake2b(repr(key).encode("utf-8", "backslashreplace"), digest_size=16).digest()


class RateLimiter:
    """One token bucket a key, each full at first.

    :param rate: the size and refill rate of every bucket, or ``None`` for no limit at all.
    :param clock: a clock; the same for all who share the buckets.
    :param buckets: where they are remembered.
    """

    def __init__(
        self, rate: Rate | None, clock: Callable[[], float], buckets: Buckets | None = None
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets = LocalBuckets() if buckets is None else buckets

    def consume(self, key: Hashable) -> None:
        """Count an attempt.

        :raise RateLimited: when the bucket is empty; then nothing is counted.
        """
        if self._rate is None:
            return
        with self._buckets.held(key):
            level = self._require(key)
            self._buckets.put(key, (level - 1, self._clock()))

    def require(self, key: Hashable) -> None:
        """See whether an attempt could be counted.

        :raise RateLimited: when the bucket is empty.
        """
        if self._rate is not None:
            self._require(key)

    def refund(self, key: Hashable) -> None:
        """Give back what an attempt took."""
        if self._rate is None:
            return
        with self._buckets.held(key):
            found = self._buckets.get(key)
            if found is None:
                return
            level = self._level(found) + 1
            if level < self._rate.burst_count:
                self._buckets.put(key, (level, self._clock()))
            else:
                # Full, as one that was never used: not worth remembering, in another's place.
                self._buckets.forget(key)

    def _require(self, key: Hashable) -> float:
        assert self._rate is not None
        level = self._level(self._buckets.get(key))
        if level < 1:
            raise RateLimited(math.ceil((1 - level) / self._rate.per_second * 1000) / 1000)
        return level

    def _level(self, found: Level | None) -> float:
        assert self._rate is not None
        if found is None:
            return self._rate.burst_count
        level, since = found
        elapsed = max(0.0, self._clock() - since)
        return min(self._rate.burst_count, level + elapsed * self._rate.per_second)


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
        return execute(self._consume, wanted, required, refunded)

    def refund(self, consumed: Sequence[Bucket]) -> Deferred[None]:
        """Refund what was consumed; it is done when this returns."""
        return execute(self._refund, consumed)

    def _consume(
        self, wanted: Sequence[Bucket], required: Sequence[Bucket], refunded: Sequence[Bucket]
    ) -> None:
        for bucket in required:
            with _naming(bucket):
                self._limiter(bucket).require(bucket.key)
        with ExitStack() as undo:
            for bucket in wanted:
                limiter = self._limiter(bucket)
                with _naming(bucket):
                    limiter.consume(bucket.key)
                undo.callback(limiter.refund, bucket.key)
            undo.pop_all()
        self._refund(refunded)

    def _refund(self, consumed: Sequence[Bucket]) -> None:
        for bucket in consumed:
            self._limiter(bucket).refund(bucket.key)

    def _limiter(self, bucket: Bucket) -> RateLimiter:
        kind = (bucket.limit, bucket.rate)
        if kind not in self._limiters:
            self._limiters[kind] = RateLimiter(
                bucket.rate, self._clock, self._buckets(bucket.limit)
            )
        return self._limiters[kind]


@contextmanager
def _naming(bucket: Bucket) -> Iterator[None]:
    """Have a refusal say whose bucket is empty."""
    try:
        yield
    except RateLimited as error:
        raise RateLimited(error.retry_after, bucket.limit, bucket.key) from None
