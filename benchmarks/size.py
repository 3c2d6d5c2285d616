"""How much the measurements measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """The size of the measurements.

    :param rounds: the number of rounds of each comparison; see :mod:`benchmarks.rounds`.
    :param refreshes: the number of refreshes in one run of the load generator.
    :param hashing: the seconds of hashing in one run.
    :param cost: the cost of the bcrypt hashes in the comparison with bcrypt and in the storm.
    :param sessions: the numbers of sessions in the compared databases, the yardstick's first.
    :param postgresql: whether to measure on PostgreSQL as well as on SQLite.
    """

    rounds: int
    refreshes: int
    hashing: float
    cost: int
    sessions: Sequence[int]
    postgresql: bool
