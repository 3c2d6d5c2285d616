"""Connections spread evenly over several processes that accept from one socket.

All of them wake up for a connection, and whoever is awake already would take one after the other,
though the others have nothing to do. So each writes down, in memory that they share, how many it
has, and lets those come first who have fewer.
"""

from __future__ import annotations

import mmap
import tempfile
from array import array
from typing import IO


def make_counts(processes: int) -> IO[bytes]:
    """Make the file, without a name, in which they write; it is the caller's to close."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    array("I", [0] * processes).tofile(file)
    file.flush()
    return file


class Counts:
    """What they wrote.

    What a process wrote may be old, or of one that is dead: it delays the others by a moment.

    :param descriptor: the file's.
    :param place: where this process writes, from 0 on.
    """

    def __init__(self, descriptor: int, place: int) -> None:
        self._counts = memoryview(mmap.mmap(descriptor, 0)).cast("I")
        self._place = place

    def should_yield(self, mine: int) -> bool:
        """Write down how many connections this process has; say whether another has fewer."""
        self._counts[self._place] = mine
        return min(self._counts) < mine
