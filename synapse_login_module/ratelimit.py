"""Token buckets, bounded in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from synapse_login_module.errors import RateLimited
from synapse_login_module.recent import Recent


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a bucket refills and how much it holds; Synapse's names.

    :param per_second: attempts a second, in the long run.
    :param burst_count: attempts at once, after a rest.
    """

    per_second: float
    burst_count: int

    def looser(self, factor: int) -> Rate:
        """The same, so many times over."""
        return Rate(self.per_second * factor, self.burst_count * factor)


Bucket = tuple[float, float]
"""How much a bucket held, and when that was."""


class Buckets(Protocol):
    """Where buckets are remembered, those alone that are not full."""

    def held(self, key: Hashable) -> AbstractContextManager[object]:
        """Keep a bucket from everybody else while it is read and written."""

    def get(self, key: Hashable) -> Bucket | None:
        """Read a bucket; ``None`` is a full one."""

    def put(self, key: Hashable, bucket: Bucket) -> None:
        """Write a bucket."""

    def forget(self, key: Hashable) -> None:
        """Make a bucket full again."""


class LocalBuckets:
    """The buckets of one process.

    :param max_keys: how many are remembered; beyond that, the one left alone for longest is
        forgotten.
    """

    def __init__(self, max_keys: int = 100_000) -> None:
        self._buckets: Recent[Hashable, Bucket] = Recent(max_keys)

    def held(self, key: Hashable) -> AbstractContextManager[object]:
        """Nobody else is there."""
        return nullcontext()

    def get(self, key: Hashable) -> Bucket | None:
        """Read a bucket."""
        return self._buckets.get(key)

    def put(self, key: Hashable, bucket: Bucket) -> None:
        """Write a bucket."""
        self._buckets.remember(key, bucket)

    def forget(self, key: Hashable) -> None:
        """Make a bucket full again."""
        self._buckets.pop(key, None)


class RateLimiter:
    """One token bucket a key, each full at first.

    :param rate: the size and refill rate of every bucket, or ``None`` for no limit at all.
    :param seconds: a clock; the same for all who share the buckets.
    :param buckets: where they are remembered.
    """

    def __init__(
        self, rate: Rate | None, seconds: Callable[[], float], buckets: Buckets | None = None
    ) -> None:
        self._rate = rate
        self._seconds = seconds
        self._buckets = LocalBuckets() if buckets is None else buckets

    def take(self, key: Hashable) -> None:
        """Count an attempt.

        :raise RateLimited: when the bucket is empty; then nothing is counted.
        """
        if self._rate is None:
            return
        with self._buckets.held(key):
            level = self._level(self._buckets.get(key))
            if level < 1:
                raise RateLimited(math.ceil((1 - level) / self._rate.per_second * 1000) / 1000)
            self._buckets.put(key, (level - 1, self._seconds()))

    def refund(self, key: Hashable) -> None:
        """Give back what an attempt took."""
        if self._rate is None:
            return
        with self._buckets.held(key):
            bucket = self._buckets.get(key)
            if bucket is None:
                return
            level = self._level(bucket) + 1
            if level < self._rate.burst_count:
                self._buckets.put(key, (level, self._seconds()))
            else:
                # Full, as one that was never used: not worth remembering, in another's place.
                self._buckets.forget(key)

    def _level(self, bucket: Bucket | None) -> float:
        assert self._rate is not None
        if bucket is None:
            return self._rate.burst_count
        level, since = bucket
        elapsed = max(0.0, self._seconds() - since)
        return min(self._rate.burst_count, level + elapsed * self._rate.per_second)
