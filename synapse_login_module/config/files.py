"""Reading the files that a configuration names, and reading them again when they change."""

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

from synapse_login_module.common.filewatch import (
    FileWatcher,
    Stamp,
    Unreadable,
    read_file,
    stamp_of,
)
from synapse_login_module.errors import ConfigError

T = TypeVar("T")


def read_regular(path: Path) -> bytes:
    """Read a regular file whole; see :func:`~synapse_login_module.common.filewatch.read_file`."""
    return read_file(path)[1]


def read_bytes(path: Path) -> bytes:
    """Read a file whole, or what a pipe holds.

    :raise ConfigError: when it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable("", f"cannot read it: {error.strerror}") from None


def read_secret(path: Path, read: Callable[[Path], bytes] = read_regular) -> str:
    """Read a file that holds a secret; return it without the line end. It may be empty.

    A file that every user of the machine can read is accepted here, with a warning
    (:mod:`synapse_login_module.config.modes`).

    :param read: reads the file.
    :raise ConfigError: when it cannot be read, or is not UTF-8.
    """
    try:
        return read(path).decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError("", "not text in UTF-8") from None


def read_password(path: Path) -> str:
    """Read a file that holds a password, as :func:`read_secret` does; it must not be empty.

    :raise ConfigError: when it is empty, and as :func:`read_secret` does.
    """
    password = read_secret(path)
    if not password:
        raise ConfigError("", "there is nothing in it")
    return password


def read_accounts(path: Path) -> bytes:
    """Read a file of accounts.

    A file that every user of the machine may write to is rejected: each of them could log in as any
    account. A file that its group may write to gets only a warning
    (:mod:`synapse_login_module.config.modes`), since on many systems each user has a group of their
    own.

    :raise ConfigError: when it cannot be read, or every user may write to it.
    """
    status, content = read_file(path)
    if status.st_mode & stat.S_IWOTH:
        raise ConfigError("", f"everybody may write to it: chmod o-w {path}")
    return content


def is_there(path: Path) -> bool:
    """Say whether there is a file.

    ``Path.exists`` hides more errors with each release of Python; this function raises them.

    :raise ConfigError: when the path cannot be used, such as a name that is too long or is below a
        file.
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


@dataclass(frozen=True)
class ReadFile(Generic[T]):
    """A file that has been read once.

    :param path: the file.
    :param value: its parsed content.
    :param stamp: what :func:`~synapse_login_module.common.filewatch.stamp_of` returned just before
        the file was read.
    :param read: reads and parses it; raises ``ConfigError`` when there are mistakes in it.
    """

    path: Path
    value: T = field(repr=False)
    stamp: Stamp | None
    read: Callable[[Path], T]

    @classmethod
    def load(cls, key: str, path: Path, read: Callable[[Path], T]) -> ReadFile[T]:
        """Read the file.

        :param key: the key of the configuration that names the file.
        :raise ConfigError: for the first mistake in it.
        """
        stamp = stamp_of(path)
        try:
            return cls(path, read(path), stamp, read)
        except ConfigError as error:
            raise error.in_file(key, path) from None

    def watch(self, reactor: Any) -> WatchedFile[T]:
        """Watch the file for changes from now on."""
        return WatchedFile(FileWatcher(self.path, self.read, self.stamp), self.value, reactor)


class WatchedFile(Generic[T]):
    """The current content of a file. A version with mistakes is logged, and the last good one kept.

    :param file: watches and reads the file; the reading is done on a thread.
    :param value: its parsed content when it was last read.
    :param reactor: provides ``getThreadPool``.
    """

    log = Logger()

    def __init__(self, file: FileWatcher[T], value: T, reactor: Any) -> None:
        self._file = file
        self._value = value
        self._reactor = reactor
        self._unreadable = ""
        self._read_late = 0
        self._waiting: list[Deferred[T]] = []

    def current(self) -> Deferred[T]:
        """Fire with the parsed content, after reading the file again if it has changed.

        Cancelling the Deferred stops the waiting, not the reading.
        """
        if not self._waiting and self._file.is_current():
            return succeed(self._value)
        waiting: Deferred[T] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._read_again()
        return waiting

    def version(self) -> object:
        """Return a value that changes when the content may have changed; ``None`` when there is no
        file.

        It changes with the file. Where that cannot be read at first, as when the process has no
        file descriptor left, the last content is used meanwhile. So it changes again once the file
        could be read, and until then each call tries to.
        """
        if self._unreadable and not self._waiting:
            self.current()
        stamp = stamp_of(self._file.path)
        return None if stamp is None else (stamp, self._read_late)

    def _read_again(self) -> None:
        pool = self._reactor.getThreadPool()
        reading = deferToThreadPool(self._reactor, pool, self._file.read)
        reading.addCallbacks(self._good, self._bad)
        reading.addErrback(self._failed)
        reading.addCallback(self._done)

    def _good(self, value: T) -> None:
        self._value = value
        if self._unreadable:
            self._read_late += 1
        self._unreadable = ""
        self.log.info("read {path} again", path=self._file.path)

    def _bad(self, failure: Failure) -> None:
        failure.trap(ConfigError)
        unreadable = str(failure.value) if failure.check(Unreadable) else ""
        if not unreadable or unreadable != self._unreadable:
            self.log.error(
                "{path} is not used as it stands now, but as it last was: {problem}",
                path=self._file.path,
                problem=failure.value,
            )
        self._unreadable = unreadable

    def _failed(self, failure: Failure) -> None:
        self.log.failure("cannot read {path}", failure, path=self._file.path)

    def _done(self, _: object) -> None:
        """Fire the Deferreds that wait; read again instead if the file has changed meanwhile."""
        if self._file.has_changed():
            self._read_again()
            return
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(self._value)
