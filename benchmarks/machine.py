"""How much of this machine's processors other programs take during a measurement.

Linux counts what the processors do in ``/proc/stat``, and what each process takes in
``/proc/PID/stat``. What this program, its children and theirs have not taken was taken elsewhere:
by other programs, by the kernel for itself, or by other machines on the same host.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class Processors:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = _elsewhere()

    def elsewhere(self) -> float:
        """Return the share of all processors' time that was taken elsewhere, from 0 to 1."""
        taken = _elsewhere() - self._before
        lasted = time.monotonic() - self._began
        return min(1.0, max(0.0, taken / lasted / (os.cpu_count() or 1)))


def processor_time(pid: int) -> float:
    """Return the seconds that a process's threads have run; 0 where Linux does not count them."""
    threads = (_PROC / str(pid) / "task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in threads) / 1e9


def _elsewhere() -> float:
    """Return the seconds that were taken elsewhere since some time in the past."""
    first = (_PROC / "stat").read_text().partition("\n")[0]
    user, nice, system, _, _, interrupts, soft, stolen = map(int, first.split()[1:9])
    busy = user + nice + system + interrupts + soft + stolen
    return (busy - sum(_ticks_of_ours())) / _TICKS


def _ticks_of_ours() -> Iterator[int]:
    """Yield the ticks of this process and of what it has started, with those that have ended."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for file in _PROC.glob("[0-9]*/stat"):
        try:
            text = file.read_text()
        except OSError:
            continue  # it has ended just now
        # The name stands in brackets, and may have brackets and spaces in it.
        fields = text.rpartition(")")[2].split()
        pid = int(file.parent.name)
        parents[pid] = int(fields[1])
        ticks[pid] = sum(map(int, fields[11:15]))
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found = [os.getpid()]
    while found:
        pid = found.pop()
        yield ticks[pid]
        found += children.get(pid, ())
