"""Watching files that may change while the program runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from synapse_login_module.errors import ConfigError

T = TypeVar("T")

Stamp = tuple[int, int, int, int]


class Unreadable(ConfigError):
    """A file cannot be read at the moment."""


def read_file(path: Path, called: object = "it") -> tuple[os.stat_result, bytes]:
    """Read a regular file; return its status and its content.

    A pipe or a device is rejected, because reading it could block for ever.

    :param called: the name of the file in the error.
    :raise ConfigError: when it is no regular file.
    :raise Unreadable: when it cannot be read.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError("", f"cannot read {called}: not a regular file")
            return status, file.read()
    except OSError as error:
        raise Unreadable("", f"cannot read {called}: {error.strerror}") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for a writer, as opening a pipe does."""
    return os.open(path, flags | os.O_NONBLOCK)


def stamp_of(path: Path) -> Stamp | None:
    """Return a value that changes when a file or its mode does; ``None`` when there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


class FileWatcher(Generic[T]):
    """Reads a file again when it has changed: each version once, even one with mistakes.

    A file that is there but cannot be read, as when the process has no file descriptor left, counts
    as not read, so that it is tried again.

    :param path: the file.
    :param read: reads and parses the file. Raises :class:`Unreadable` when it cannot be read, and
        another ``ConfigError`` when there are mistakes in it.
    :param stamp: what :func:`stamp_of` returned just before the file was last read.
    """

    def __init__(self, path: Path, read: Callable[[Path], T], stamp: Stamp | None) -> None:
        self.path = path
        self._read = read
        self._stamp = stamp
        self._was_read = True

    def is_current(self) -> bool:
        """Say whether the current version of the file was read.

        Calls ``stat`` on this thread, which takes a few µs. Handing that to another thread would
        take 50 µs.
        """
        return self._was_read and stamp_of(self.path) == self._stamp

    def has_changed(self) -> bool:
        """Say whether the file has changed since reading it last began."""
        return stamp_of(self.path) != self._stamp

    def read(self) -> T:
        """Read the current version of the file; may be called on a thread."""
        self._stamp = stamp_of(self.path)
        self._was_read = True
        try:
            return self._read(self.path)
        except Unreadable:
            self._was_read = self._stamp is None  # a missing file changes its stamp when it appears
            raise
