"""The file of token keys: read, made on first start, rotated.

A line a key: its id, a space, and 32 bytes in base64. The highest id is the newest. To retire a
key, delete its line: the tokens made under it end with it, at the next login or start.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

from synapse_login_module.errors import ConfigError
from synapse_login_module.tokens.format import KEY_SIZE, MAX_KEY_ID, KeyRing


def load(path: Path) -> KeyRing:
    """Read the keys; the ring follows the file.

    :raise ConfigError: when the file is missing, open to others, or not a file of keys.
    """
    news = _News(path)
    return KeyRing(_read(path), news.read)


class _News:
    """Reads the file again when it is another than before, a broken one too: made-up tokens of
    unknown keys do not keep the disk busy. Each costs a ``stat``, on the reactor's thread where the
    store has no other: a few µs, where handing it to a thread costs 50.

    While it cannot be read, the keys of before stay good.
    """

    log = Logger()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _stamp(path)
        self._problem = ""

    def read(self) -> Mapping[int, bytes] | None:
        stamp = _stamp(self._path)
        if stamp is not None and stamp == self._known:
            return None
        try:
            content = _content(self._path)
            self._known = stamp
            keys = _parse(self._path, content)
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
    if _stamp(path) is None:
        try:
            _write(path, {1: random(KEY_SIZE)}, replace=False)
        except FileExistsError:
            pass  # another process made it a moment ago: use that one
        except OSError as error:
            raise ConfigError("", f"cannot make {path}: {error.strerror}") from None
    return load(path)


def rotate(path: Path, random: Callable[[int], bytes]) -> int:
    """Add a new newest key; the old ones stay good. Returns its id."""
    keys = _read(path)
    newest = max(keys) + 1
    if newest > MAX_KEY_ID:
        raise ConfigError("", f"{path} has no key id left; remove old keys and renumber")
    keys[newest] = random(KEY_SIZE)
    _write(path, keys, replace=True)
    return newest


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What tells one version of the file, and its mode, from another; ``None`` if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns, found.st_size


def _read(path: Path) -> dict[int, bytes]:
    return _parse(path, _content(path))


def _content(path: Path) -> tuple[int, bytes]:
    """The mode of the file, and what is in it."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mode, file.read(1 << 20)
    except OSError as error:
        raise ConfigError("", f"cannot read {path}: {error.strerror}") from None


def _parse(path: Path, content: tuple[int, bytes]) -> dict[int, bytes]:
    mode, text = content
    try:
        lines = text.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise ConfigError("", f"{path} is not a file of keys") from None
    if mode & 0o007:
        raise ConfigError("", f"{path} can be read by everybody: chmod 600 it")
    keys: dict[int, bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, _, encoded = line.strip().partition(" ")
            key_id, key = int(name), base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise ConfigError("", f"{path}, line {number}: not a key") from None
        if not 0 <= key_id <= MAX_KEY_ID or len(key) != KEY_SIZE or key_id in keys:
            raise ConfigError("", f"{path}, line {number}: not a new key of {KEY_SIZE} bytes")
        keys[key_id] = key
    if not keys:
        raise ConfigError("", f"{path} holds no key")
    return keys


def _write(path: Path, keys: dict[int, bytes], *, replace: bool) -> None:
    """Put the file in place whole: a crash leaves the old one or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            for key_id, key in sorted(keys.items()):
                file.write(f"{key_id} {base64.b64encode(key).decode('ascii')}\n")
            if replace:
                owner = path.stat()
                with suppress(PermissionError):  # the server must still be able to read it
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
