"""The arithmetic of token buckets: the generic cell rate algorithm, in virtual scheduling form.

A bucket is one number, the moment when it will be full. ITU-T I.371 calls it the theoretical
arrival time. Let ``interval`` be ``1 / per_second``, and ``capacity`` be ``burst_count *
interval``, both in seconds. Then these are the rules, here and in SQL
(``stores/postgresql/limits.py``):

* A bucket is full if ``full_at <= now``, and need not be stored.
* An attempt is refused if ``full_at + interval > now + capacity``. It has to wait for ``full_at +
  interval - now - capacity`` seconds.
* To consume is to set ``full_at = max(full_at, now) + interval``.
* To require is to refuse by the same rule, and to change nothing.
* To refund is to set ``full_at = full_at - interval``.
* A bucket that refuses is set to ``full_at = min(full_at, now + capacity)``. That changes it only
  after the clock has stepped back: a bucket is never emptier than empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from synapse_login_module.model import Rate


def consume(rate: Rate, full_at: float, now: float) -> tuple[float, float]:
    """Consume one from a bucket, or refuse the attempt.

    :param full_at: the moment when the bucket will be full, in seconds of the clock.
    :param now: the time, in seconds of the same clock.
    :return: the moment when the bucket will be full now; and the seconds for which the attempt is
        refused, 0 if it is allowed. A caller that only requires one stores the moment only if the
        attempt is refused.
    """
    interval = 1 / rate.per_second
    empty = now + rate.burst_count * interval
    # Each attempt of a burst may have been rounded by half a unit in the last place.
    empty += rate.burst_count * math.ulp(empty)
    if full_at + interval <= empty:
        return max(full_at, now) + interval, 0.0
    full_at = min(full_at, empty)
    return full_at, full_at + interval - empty


def refund(rate: Rate, full_at: float) -> float:
    """Refund one to a bucket; return the moment when it will be full."""
    return full_at - 1 / rate.per_second


class SteadyClock:
    """A clock that never goes back: when the clock behind it steps back, this one goes on from the
    time that it showed last.

    :param clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = -math.inf
        self._behind = 0.0

    def __call__(self) -> float:
        """Return the time in seconds, never less than before."""
        now = self._clock()
        if now < self._last:
            self._behind += self._last - now
        self._last = now
        return now + self._behind
