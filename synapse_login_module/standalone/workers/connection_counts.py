"""Spreads connections evenly over several processes that accept from one socket.

The kernel wakes all of them for a connection, and a process that is awake already would accept one
after the other while the others idle. So each process writes its number of connections to shared
memory, and lets processes with fewer accept first.
"""

from __future__ import annotations

import mmap
import tempfile
from array import array
from typing import IO


def make_counts(processes: int) -> IO[bytes]:
    """Make the unnamed file behind the shared memory. The caller closes it.

    :param processes: the number of processes.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115
    array("I", [0] * processes).tofile(file)
    file.flush()
    return file


class Counts:
    """The numbers of connections of all processes, in shared memory.

    A number may be out of date, or of a process that is dead. That delays the others by a moment.

    :param descriptor: the file descriptor from :func:`make_counts`.
    :param place: the index of this process, from 0 on.
    """

    def __init__(self, descriptor: int, place: int) -> None:
        self._counts = memoryview(mmap.mmap(descriptor, 0)).cast("I")
        self._place = place

    def should_yield(self, mine: int) -> bool:
        """Write this process's number of connections; return whether another process has fewer."""
        self._counts[self._place] = mine
        return min(self._counts) < mine
