"""Token buckets, bounded in memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from synapse_login_module.errors import RateLimited


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


class RateLimiter:
    """One token bucket a key, each full at first.

    :param rate: the size and refill rate of every bucket, or ``None`` for no limit at all.
    :param seconds: a clock.
    :param max_keys: how many buckets are remembered; beyond that, the one left alone for longest is
        forgotten.
    """

    def __init__(
        self, rate: Rate | None, seconds: Callable[[], float], max_keys: int = 100_000
    ) -> None:
        self._rate = rate
        self._seconds = seconds
        self._max_keys = max_keys
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable) -> None:
        """Count an attempt.

        :raise RateLimited: when the bucket is empty; then nothing is counted.
        """
        if self._rate is None:
            return
        level = self._level(key)
        if level < 1:
            raise RateLimited(math.ceil((1 - level) / self._rate.per_second * 1000) / 1000)
        self._set(key, level - 1)

    def refund(self, key: Hashable) -> None:
        """Give back what an attempt took."""
        if self._rate is None or key not in self._buckets:
            return
        level = self._level(key) + 1
        if level < self._rate.burst_count:
            self._set(key, level)
        else:
            # Full, as one that was never used: not worth remembering, in another's place.
            del self._buckets[key]

    def _level(self, key: Hashable) -> float:
        assert self._rate is not None
        level, since = self._buckets.get(key, (self._rate.burst_count, 0.0))
        elapsed = max(0.0, self._seconds() - since)
        return min(self._rate.burst_count, level + elapsed * self._rate.per_second)

    def _set(self, key: Hashable, level: float) -> None:
        self._buckets[key] = (level, self._seconds())
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
