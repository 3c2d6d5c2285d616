"""Files that may change while the program runs: what tells their versions apart."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from synapse_login_module.errors import ConfigError

T = TypeVar("T")

Stamp = tuple[int, int, int, int]


class Unreadable(ConfigError):
    """A file cannot be read, now at least."""


def read_file(path: Path, called: object = "it") -> tuple[os.stat_result, bytes]:
    """The status of a file, and what it holds.

    :param called: what the error calls the file.
    :raise Unreadable: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()), file.read()
    except OSError as error:
        raise Unreadable("", f"cannot read {called}: {error.strerror}") from None


def stamp_of(path: Path) -> Stamp | None:
    """What changes when a file or its mode does, or ``None`` when it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


class FileWatcher(Generic[T]):
    """Read a file again when it has changed: each version once, a broken one too.

    One that is there and cannot be read, as where the process has no descriptor left, counts as
    not read.

    :param read: raises :class:`Unreadable` when the file cannot be read, and another
        ``ConfigError`` when it is broken.
    :param stamp: what :func:`stamp_of` said just before the file was last read.
    """

    def __init__(self, path: Path, read: Callable[[Path], T], stamp: Stamp | None) -> None:
        self.path = path
        self._read = read
        self._stamp = stamp
        self._was_read = True

    def is_current(self) -> bool:
        """Whether this version was read. That costs a ``stat``: a few µs, where handing it to a
        thread costs 50.
        """
        return self._was_read and stamp_of(self.path) == self._stamp

    def has_changed(self) -> bool:
        """Whether the file is another than when reading it was last begun."""
        return stamp_of(self.path) != self._stamp

    def read(self) -> T:
        """Read the file as it stands now; may be called on a thread."""
        self._stamp = stamp_of(self.path)
        self._was_read = True
        try:
            return self._read(self.path)
        except Unreadable:
            self._was_read = self._stamp is None  # one that is not there changes when it comes
            raise
