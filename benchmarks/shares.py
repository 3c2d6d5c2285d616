"""Splits the sessions of a database among the runs, each of which refreshes others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.figures import CONNECTIONS


def shares(lines: Sequence[bytes], rounds: int) -> Iterator[Sequence[bytes]]:
    """Split the sessions by round, with enough for two runs each."""
    for index in range(rounds):
        yield lines[index * 2 * CONNECTIONS : (index + 1) * 2 * CONNECTIONS]


def pairs(lines: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], Sequence[bytes]]]:
    """Yield the sessions for two runs, different ones each time."""
    for mine in shares(lines, len(lines) // (2 * CONNECTIONS)):
        yield mine[:CONNECTIONS], mine[CONNECTIONS:]


def parts(lines: Sequence[bytes], count: int) -> list[Sequence[bytes]]:
    """Split the sessions in equal parts."""
    each = len(lines) // count
    return [lines[index * each : (index + 1) * each] for index in range(count)]
