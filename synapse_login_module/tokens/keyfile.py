"""The file of token keys, which is created on the first start, read and rotated.

Each line is a key: its id, a space, and 32 bytes in base64, with the mark ``new`` behind them or
not. Of the keys without the mark, the one with the highest id signs. A key with the mark is known
but signs nothing here yet: tokens that another machine makes with it are already accepted. When a
key is added, activated or removed, the other lines, mode, owner and group of the file stay.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from twisted.logger import Logger

from synapse_login_module.common.filewatch import FileWatcher, read_file, stamp_of
from synapse_login_module.errors import ConfigError
from synapse_login_module.tokens.format import KEY_SIZE, MAX_KEY_ID, KeyRing, KeySet

_WAITING = "new"


def load(path: Path) -> KeyRing:
    """Read the keys. The key ring reads the file again when it changes.

    :raise ConfigError: when the file is missing, open to other users, or not a file of keys.
    """
    watcher = KeyFileWatcher(path)
    keys = _read(path)
    return KeyRing(keys.keys, watcher.read, keys.waiting)


class KeyFileWatcher:
    """Reads the key file again when it has changed: each version once, even one with mistakes.

    A made-up token of an unknown key then costs one ``stat`` and no reading. The ``stat`` runs on
    the reactor's thread if the store has no thread of its own.

    While the file cannot be read, the previous keys stay valid.
    """

    log = Logger()

    def __init__(self, path: Path) -> None:
        self._file = FileWatcher(path, _read, stamp_of(path))
        self._problem = ""

    def read(self) -> KeySet | None:
        """Return the keys of a file that has changed; ``None`` if the previous keys stay valid."""
        if self._file.is_current():
            return None
        try:
            keys = self._file.read()
        except ConfigError as error:
            self._log_once(str(error))
            return None
        self._problem = ""
        return keys

    def _log_once(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self.log.error("the token keys stay as they were: {problem}", problem=problem)


def load_or_make(path: Path, random: Callable[[int], bytes]) -> KeyRing:
    """Read the keys; create the file with one new key if there is none.

    :param random: returns a given number of random bytes.
    :raise ConfigError: when the file cannot be created, or as :func:`load` does.
    """
    if stamp_of(path) is None:
        try:
            _write(path, [_Line.of(1, random(KEY_SIZE))], None)
        except FileExistsError:
            pass  # another process has just created it: use that file
        except OSError as error:
            raise ConfigError("", f"cannot make {path}: {error.strerror}") from None
    return load(path)


def rotate(
    path: Path,
    random: Callable[[int], bytes],
    taken: Collection[int] = (),
    now: bool = False,
) -> int:
    """Add a key; the old keys stay valid.

    :param random: returns a given number of random bytes.
    :param taken: ids that the key must not have, besides those in the file.
    :param now: whether the key signs at once.
    :return: its id, which is higher than all others.
    :raise ConfigError: when the file cannot be read, or no id is left.
    """
    status, lines = _open(path)
    newest = max(*(line.key_id for line in lines), *taken, -1) + 1
    if newest > MAX_KEY_ID:
        raise ConfigError("", f"{path} has no key id left; remove old keys and renumber")
    lines.append(_Line.of(newest, random(KEY_SIZE), waiting=not now))
    _write(path, lines, status)
    return newest


def activate(path: Path) -> int:
    """Make the newest key the one that signs; return its id.

    :raise ConfigError: when the newest key signs already.
    """
    status, lines = _open(path)
    newest = max(lines, key=lambda line: line.key_id)
    if not newest.waiting:
        raise ConfigError(
            "", f"{path} has no new key: key {newest.key_id}, its newest, signs already"
        )
    lines[lines.index(newest)] = newest.signing()
    _write(path, lines, status)
    return newest.key_id


def remove(path: Path, key_id: int) -> bool:
    """Remove a key; return whether it was there.

    :raise ConfigError: when it is the key that signs.
    """
    status, lines = _open(path)
    if key_id == _signing(path, lines):
        raise ConfigError(
            "", f"{path}: key {key_id} signs new tokens: have another sign before it is retired"
        )
    kept = [line for line in lines if line.key_id != key_id or not line.key]
    if len(kept) < len(lines):
        _write(path, kept, status)
    return len(kept) < len(lines)


class _Line(NamedTuple):
    """A line of the file, which may hold a key.

    :param text: the line as it is in the file.
    :param key_id: ``-1`` if the line holds no key.
    :param waiting: whether the key is marked ``new``.
    """

    text: str
    key_id: int = -1
    key: bytes = b""
    waiting: bool = False

    @classmethod
    def of(cls, key_id: int, key: bytes, waiting: bool = False) -> _Line:
        """Make the line of a key."""
        encoded = base64.b64encode(key).decode("ascii")
        return cls(f"{key_id} {encoded}{f' {_WAITING}' * waiting}", key_id, key, waiting)

    def signing(self) -> _Line:
        """Return the line without the mark, so that its key signs."""
        return self._replace(text=self.text.rstrip()[: -len(_WAITING)].rstrip(), waiting=False)


def _read(path: Path) -> KeySet:
    keys = [line for line in _open(path)[1] if line.key_id >= 0]
    return KeySet(
        {line.key_id: line.key for line in keys},
        frozenset(line.key_id for line in keys if line.waiting),
    )


def _open(path: Path) -> tuple[os.stat_result, list[_Line]]:
    """Read the file; return its status and its lines, which are checked."""
    status, content = read_file(path, path)
    try:
        texts = content.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise ConfigError("", f"{path} is not a file of keys") from None
    if status.st_mode & 0o007:
        raise ConfigError("", f"{path} can be read by everybody: chmod 600 it")
    lines: list[_Line] = []
    known: set[int] = set()
    for number, each in enumerate(texts, 1):
        if not each.strip() or each.startswith("#"):
            lines.append(_Line(each))
            continue
        line = _parse_key(f"{path}, line {number}", each)
        if line.key_id in known:
            raise ConfigError("", f"{path}, line {number}: key {line.key_id} is there already")
        known.add(line.key_id)
        lines.append(line)
    _signing(path, lines)
    return status, lines


def _parse_key(where: str, text: str) -> _Line:
    """Parse the line of a key.

    :param where: the path and the line's number, for errors.
    """
    try:
        name, _, encoded = text.strip().partition(" ")
        encoded, separator, mark = encoded.partition(" ")
        key_id, key = int(name), base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise ConfigError("", f"{where}: not a key") from None
    if separator and mark.strip() != _WAITING:
        raise ConfigError("", f"{where}: only the mark {_WAITING} may follow the key")
    if not 0 <= key_id <= MAX_KEY_ID or len(key) != KEY_SIZE:
        raise ConfigError("", f"{where}: not an id of 0 to {MAX_KEY_ID} and {KEY_SIZE} bytes")
    return _Line(text, key_id, key, bool(separator))


def _signing(path: Path, lines: Collection[_Line]) -> int:
    """Return the id of the key that signs."""
    keys = [line for line in lines if line.key_id >= 0]
    if not keys:
        raise ConfigError("", f"{path} holds no key")
    signing = [line.key_id for line in keys if not line.waiting]
    if not signing:
        raise ConfigError("", f"{path} holds no key that signs: all are marked {_WAITING}")
    return max(signing)


def _write(path: Path, lines: Collection[_Line], status: os.stat_result | None) -> None:
    """Replace the file atomically: after a crash there is the old one or the new one.

    :param status: the status of the file that is replaced; ``None`` to create a file.
    :raise FileExistsError: when there is a file already, and ``status`` is ``None``.
    """
    path = path.resolve()  # so that a symbolic link stays one
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.writelines(f"{line.text}\n" for line in lines)
            file.flush()
            if status is not None:
                _copy_metadata(path, file.fileno(), status)
            os.fsync(file.fileno())
        if status is None:
            os.link(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Write the directory entry of a new file to the disk too.

    Tokens are made with its key next, and the store remembers the key. So a key that a crash lost
    could not be replaced.
    """
    with suppress(OSError):  # some file systems cannot, and some folders may not be read
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _copy_metadata(path: Path, descriptor: int, status: os.stat_result) -> None:
    """Give the new file the owner, the group, the mode and the extended attributes of the old one.

    :param path: the old file.
    :param descriptor: the new file.
    :param status: the status of the old file.
    :raise ConfigError: when this user may not change the owner, since the server might be unable to
        read the file then.
    """
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
        try:
            os.fchown(descriptor, status.st_uid, status.st_gid)
        except PermissionError:
            raise ConfigError(
                "",
                f"{path} belongs to user {status.st_uid} and group {status.st_gid}:"
                " do this as that user, or as root",
            ) from None
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    with suppress(OSError, AttributeError):  # some systems have no extended attributes
        for name in os.listxattr(path):
            with suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(path, name))
