"""The file of token keys: read, made on first start, rotated.

A line a key: its id, a space, and 32 bytes in base64; behind them may stand ``new``. Of the keys
without that mark the highest id signs. A key that is marked is known, so that tokens that another
machine makes under it are good, but signs nothing here yet. All else that stands in the file, and
its mode, owner and group, stay as they are when a key is added, activated or removed.
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

from synapse_login_module.errors import ConfigError
from synapse_login_module.filewatch import FileWatcher, read_file, stamp_of
from synapse_login_module.tokens.format import KEY_SIZE, MAX_KEY_ID, KeyRing, KeySet

_WAITING = "new"


def load(path: Path) -> KeyRing:
    """Read the keys; the ring follows the file.

    :raise ConfigError: when the file is missing, open to others, or not a file of keys.
    """
    watcher = KeyFileWatcher(path)
    keys = _read(path)
    return KeyRing(keys.keys, watcher.read, keys.waiting)


class KeyFileWatcher:
    """Reads the file again when it is another than before, a broken one too: made-up tokens of
    unknown keys do not keep the disk busy. Each costs a ``stat``, on the reactor's thread where the
    store has no other.

    While it cannot be read, the keys of before stay good.
    """

    log = Logger()

    def __init__(self, path: Path) -> None:
        self._file = FileWatcher(path, _read, stamp_of(path))
        self._problem = ""

    def read(self) -> KeySet | None:
        """Return the keys of a file that has changed, or ``None``: the keys of before are good."""
        if self._file.is_current():
            return None
        try:
            keys = self._file.read()
        except ConfigError as error:
            self._tell(str(error))
            return None
        self._problem = ""
        return keys

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self.log.error("the token keys stay as they were: {problem}", problem=problem)


def load_or_make(path: Path, random: Callable[[int], bytes]) -> KeyRing:
    """Read the keys, or make the file with one new key when there is none yet."""
    if stamp_of(path) is None:
        try:
            _put(path, [_Line.of(1, random(KEY_SIZE))], None)
        except FileExistsError:
            pass  # another process made it a moment ago: use that one
        except OSError as error:
            raise ConfigError("", f"cannot make {path}: {error.strerror}") from None
    return load(path)


def rotate(
    path: Path,
    random: Callable[[int], bytes],
    taken: Collection[int] = (),
    now: bool = False,
) -> int:
    """Add a key; the old ones stay good.

    :param taken: ids that it must not have, beside those in the file.
    :param now: whether it signs at once.
    :return: its id, which is higher than all others.
    """
    status, lines = _open(path)
    newest = max(*(line.key_id for line in lines), *taken, -1) + 1
    if newest > MAX_KEY_ID:
        raise ConfigError("", f"{path} has no key id left; remove old keys and renumber")
    lines.append(_Line.of(newest, random(KEY_SIZE), waiting=not now))
    _put(path, lines, status)
    return newest


def activate(path: Path) -> int:
    """Have the newest key sign; return its id.

    :raise ConfigError: when that signs already.
    """
    status, lines = _open(path)
    newest = max(lines, key=lambda line: line.key_id)
    if not newest.waiting:
        raise ConfigError(
            "", f"{path} has no new key: key {newest.key_id}, its newest, signs already"
        )
    lines[lines.index(newest)] = newest.signing()
    _put(path, lines, status)
    return newest.key_id


def remove(path: Path, key_id: int) -> bool:
    """Remove a key; say whether it was there.

    :raise ConfigError: when it is the key that signs.
    """
    status, lines = _open(path)
    if key_id == _signing(path, lines):
        raise ConfigError(
            "", f"{path}: key {key_id} signs new tokens: have another sign before it is retired"
        )
    kept = [line for line in lines if line.key_id != key_id or not line.key]
    if len(kept) < len(lines):
        _put(path, kept, status)
    return len(kept) < len(lines)


class _Line(NamedTuple):
    """A line of the file, which may hold a key.

    :param text: as it stands there.
    :param key_id: ``-1`` where there is no key.
    """

    text: str
    key_id: int = -1
    key: bytes = b""
    waiting: bool = False

    @classmethod
    def of(cls, key_id: int, key: bytes, waiting: bool = False) -> _Line:
        """The line of a key."""
        encoded = base64.b64encode(key).decode("ascii")
        return cls(f"{key_id} {encoded}{f' {_WAITING}' * waiting}", key_id, key, waiting)

    def signing(self) -> _Line:
        """The line without its mark."""
        return self._replace(text=self.text.rstrip()[: -len(_WAITING)].rstrip(), waiting=False)


def _read(path: Path) -> KeySet:
    keys = [line for line in _open(path)[1] if line.key_id >= 0]
    return KeySet(
        {line.key_id: line.key for line in keys},
        frozenset(line.key_id for line in keys if line.waiting),
    )


def _open(path: Path) -> tuple[os.stat_result, list[_Line]]:
    """The status of the file, and its lines."""
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
            raise ConfigError("", f"{path}, line {number}: not a new key of {KEY_SIZE} bytes")
        known.add(line.key_id)
        lines.append(line)
    _signing(path, lines)
    return status, lines


def _parse_key(where: str, text: str) -> _Line:
    try:
        name, _, encoded = text.strip().partition(" ")
        encoded, separator, mark = encoded.partition(" ")
        key_id, key = int(name), base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise ConfigError("", f"{where}: not a key") from None
    if separator and mark.strip() != _WAITING:
        raise ConfigError("", f"{where}: behind the key nothing may stand but {_WAITING}")
    if not 0 <= key_id <= MAX_KEY_ID or len(key) != KEY_SIZE:
        raise ConfigError("", f"{where}: not a new key of {KEY_SIZE} bytes")
    return _Line(text, key_id, key, bool(separator))


def _signing(path: Path, lines: Collection[_Line]) -> int:
    keys = [line for line in lines if line.key_id >= 0]
    if not keys:
        raise ConfigError("", f"{path} holds no key")
    signing = [line.key_id for line in keys if not line.waiting]
    if not signing:
        raise ConfigError("", f"{path} holds no key that signs: all are marked {_WAITING}")
    return max(signing)


def _put(path: Path, lines: Collection[_Line], status: os.stat_result | None) -> None:
    """Put the file in place whole: a crash leaves the old one or the new one.

    :param status: of the file whose place it takes; ``None`` where there may be none.
    """
    path = path.resolve()  # lest a link be replaced
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.writelines(f"{line.text}\n" for line in lines)
            file.flush()
            if status is not None:
                _be_like(path, file.fileno(), status)
            os.fsync(file.fileno())
        if status is None:
            os.link(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Have the name of a new file on the disk too: tokens of its key are made next, and the store
    knows the key, so that one which was lost could not be replaced.
    """
    with suppress(OSError):  # not every file system can, and not every folder may be read
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _be_like(path: Path, descriptor: int, status: os.stat_result) -> None:
    """Give the new file the owner, the group, the mode and the access list of the old one.

    :raise ConfigError: when this user may not: the server could perhaps not read it then.
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
    with suppress(OSError, AttributeError):  # not everywhere are there such
        for name in os.listxattr(path):
            with suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(path, name))
