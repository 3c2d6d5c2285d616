"""Files that a configuration names: read whole, and read again when they change."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import ConfigError

T = TypeVar("T")

Stamp = tuple[int, int, int, int]


def read_bytes(path: Path) -> bytes:
    """What a file holds.

    :raise ConfigError: when it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("", f"cannot read it: {error.strerror}") from None


def read_accounts(path: Path) -> bytes:
    """What a file of accounts holds.

    One that everybody may write to is refused: whoever has a login of any kind on the machine could
    make themselves any user. A group's right to write is usual where each user has a group of their
    own, so it is only warned of (:mod:`synapse_login_module.config.modes`).

    :raise ConfigError: when it cannot be read, or everybody may write to it.
    """
    content = read_bytes(path)
    if path.stat().st_mode & stat.S_IWOTH:
        raise ConfigError("", f"everybody may write to it: chmod o-w {path}")
    return content


def is_there(path: Path) -> bool:
    """Whether there is a file.

    ``Path.exists`` swallows more errors with each release of Python; this one tells them.

    :raise ConfigError: when there can be none: a name that is too long, or below a file.
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError("", f"cannot use {path}: {error.strerror}") from None
    except ValueError:
        raise ConfigError("", "not the path of a file") from None
    return True


def stamp_of(path: Path) -> Stamp | None:
    """What changes when a file does, or ``None`` when it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


@dataclass(frozen=True)
class ReadFile(Generic[T]):
    """A file that has been read once.

    :param value: what it said.
    :param stamp: what :func:`stamp_of` said just before that.
    :param read: reads it; raises ``ConfigError`` when it is broken.
    """

    path: Path
    value: T = field(repr=False)
    stamp: Stamp | None
    read: Callable[[Path], T]

    @classmethod
    def load(cls, key: str, path: Path, read: Callable[[Path], T]) -> ReadFile[T]:
        """Read the file.

        :param key: of the configuration, that names the file.
        :raise ConfigError: for the first thing wrong with it.
        """
        stamp = stamp_of(path)
        try:
            return cls(path, read(path), stamp, read)
        except ConfigError as error:
            raise error.in_file(key, path) from None

    def watch(self, reactor: Any) -> WatchedFile[T]:
        """The same file, as it stands from now on."""
        return WatchedFile(self.path, self.read, self.value, self.stamp, reactor)


class WatchedFile(Generic[T]):
    """What a file says, as it stands now; a broken version is logged, and the last good one kept.

    :param path: the file.
    :param read: reads it, on a thread; raises ``ConfigError`` when it is broken.
    :param value: what it said when it was last read.
    :param stamp: what :func:`stamp_of` said just before that.
    :param reactor: provides ``getThreadPool``.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], T],
        value: T,
        stamp: Stamp | None,
        reactor: Any,
    ) -> None:
        self._path = path
        self._read = read
        self._value = value
        self._stamp = stamp
        self._reactor = reactor
        self._waiting: list[Deferred[T]] = []

    def current(self) -> Deferred[T]:
        """Fire with what the file says; cancelling one gives up waiting, not the reading."""
        if not self._waiting and stamp_of(self._path) == self._stamp:
            return succeed(self._value)
        waiting: Deferred[T] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._read_again()
        return waiting

    def _read_again(self) -> None:
        stamp = stamp_of(self._path)
        pool = self._reactor.getThreadPool()
        reading = deferToThreadPool(self._reactor, pool, lambda: self._read(self._path))
        reading.addCallbacks(self._good, self._bad)
        reading.addErrback(self._failed)
        reading.addCallback(lambda _: self._done(stamp))

    def _good(self, value: T) -> None:
        self._value = value
        self.log.info("read {path} again", path=self._path)

    def _bad(self, failure: Failure) -> None:
        failure.trap(ConfigError)
        self.log.error(
            "{path} is not used as it stands now, but as it last was: {problem}",
            path=self._path,
            problem=failure.value,
        )

    def _failed(self, failure: Failure) -> None:
        self.log.failure("cannot read {path}", failure, path=self._path)

    def _done(self, stamp: Stamp | None) -> None:
        """Answer those who wait, unless the file has changed meanwhile."""
        self._stamp = stamp
        if stamp_of(self._path) != stamp:
            self._read_again()
            return
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(self._value)
