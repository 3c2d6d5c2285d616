"""twistd with a wall clock that is set from outside.

It is run as a program with the file that holds the offset, and the arguments for twistd. The offset
is applied before Twisted is imported, so that Twisted's own clock has it too.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from pathlib import Path

_OFFSET = struct.Struct("d")


class WallClock:
    """The wall clock of a server.

    :param file: the file that holds its offset.
    """

    def __init__(self, file: Path) -> None:
        self.program = ["-m", __name__, str(file)]
        self._file = os.open(file, os.O_RDWR | os.O_CREAT)
        self.set(0)

    def set(self, offset: float) -> None:
        """Set the clock off by that many seconds, from now on."""
        os.pwrite(self._file, _OFFSET.pack(offset), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _step(file: str) -> None:
    with open(file, "rb") as opened:
        offset = mmap.mmap(opened.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    real = time.time
    time.time = lambda: real() + _OFFSET.unpack_from(offset)[0]


if __name__ == "__main__":
    _step(sys.argv.pop(1))
    from twisted.scripts.twistd import run

    run()
