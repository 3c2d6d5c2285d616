"""How well a median is known, and what that says about a limit: pure functions.

The median of a few measurements is not the median of endlessly many. That one lies between the
k-th lowest and the k-th highest of the measurements with a probability that depends only on their
number and on k, however they are distributed. This is the interval that the tables print.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median
from typing import NamedTuple

SURE = 0.9
"""The least probability that the interval holds the median of endlessly many measurements."""

REACHED, MISSED, NEAR = "reached", "MISSED", "near"


class Spread(NamedTuple):
    """The median of measurements, and the interval in which that of endlessly many lies."""

    low: float
    middle: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median and its interval.

    It is the narrowest interval from the k-th lowest to the k-th highest value that holds the
    median with a probability of at least :data:`SURE`. Fewer than five values give less: then it
    goes from the lowest to the highest.

    :param values: at least one measurement, in any order.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside = 0
    while 1 - 2 * _probability(outside + 1, count) >= SURE:
        outside += 1
    return Spread(ordered[outside], median(ordered), ordered[count - 1 - outside])


def _probability(outside: int, count: int) -> float:
    """Return the probability that at most this many values are below their median."""
    return sum(comb(count, below) for below in range(outside + 1)) / float(2**count)


def judge(low: float, high: float, least: float | None, most: float | None) -> str:
    """Say whether a limit is met by all of an interval.

    :param least: the lower limit, or ``None``.
    :param most: the upper limit, or ``None``.
    :return: :data:`REACHED` or :data:`MISSED` when all of it is on one side of the limits,
        :data:`NEAR` when a limit is inside it, and nothing without limits.
    """
    if least is None and most is None:
        return ""
    floor = float("-inf") if least is None else least
    ceiling = float("inf") if most is None else most
    if floor <= low and high <= ceiling:
        return REACHED
    return MISSED if high < floor or low > ceiling else NEAR
