"""The system's name service (NSS): users, groups and locked passwords. All calls may block.

The modules ``pwd`` and ``grp`` of Python raise ``KeyError`` both for a user that does not exist and
while the name service is down, such as when sssd is restarted. That would end the sessions of all
users. The C library tells the two apart, so it is asked directly. Each call also releases the lock
of Python, which ``os.getgrouplist`` does not.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from ctypes import (
    CDLL,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_long,
    c_size_t,
    c_uint,
    create_string_buffer,
)
from typing import Any, NamedTuple, TypeVar

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.model.findings import NO_ACCOUNT

E = TypeVar("E", bound=Structure)

_SIZES = tuple(1024 * 16**power for power in range(5))
"""The sizes of the buffer that are tried: a group may have very many members."""

_GROUPS = (64, 1024, 65536)

_LIBC: Any = CDLL(None)


class _User(Structure):
    _fields_ = (
        ("name", c_char_p),
        ("password", c_char_p),
        ("uid", c_uint),
        ("gid", c_uint),
        ("gecos", c_char_p),
        ("folder", c_char_p),
        ("shell", c_char_p),
    )


class _Group(Structure):
    _fields_ = (
        ("name", c_char_p),
        ("password", c_char_p),
        ("gid", c_uint),
        ("members", POINTER(c_char_p)),
    )


class _Shadow(Structure):
    _fields_ = (
        ("name", c_char_p),
        ("password", c_char_p),
        ("days", c_long * 6),
        ("flag", c_long),
    )


class UnixUser(NamedTuple):
    """A user of the system.

    :param name: the name, as the name service spells it.
    :param uid: the number.
    :param gid: the number of the primary group.
    :param full_name: from the field ``gecos``; ``None`` if there is none.
    """

    name: str
    uid: int
    gid: int
    full_name: str | None = None


def user_named(name: str) -> UnixUser | None:
    """Find the user of a name.

    :raise ProviderUnavailable: when the name service cannot tell.
    """
    given = name.encode("utf-8", "surrogateescape")
    return _look_up(_LIBC.getpwnam_r, c_char_p(given), _User, _read_user)


def user_numbered(uid: int) -> UnixUser | None:
    """Find the user of a number.

    :raise ProviderUnavailable: when the name service cannot tell.
    """
    return _look_up(_LIBC.getpwuid_r, c_uint(uid), _User, _read_user)


def number_of_group(name: str) -> int | None:
    """Find the number of a group.

    :raise ProviderUnavailable: when the name service cannot tell.
    """
    return _look_up(_LIBC.getgrnam_r, c_char_p(name.encode()), _Group, lambda found: int(found.gid))


def groups_of(user: UnixUser) -> set[int]:
    """List the numbers of the groups that a user is in.

    While the name service is down, some are missing: the C library reports no error. So call
    :func:`require_groups` before anything follows from a group that is not there.
    """
    name = user.name.encode("utf-8", "surrogateescape")
    for size in _GROUPS:
        found, count = (c_uint * size)(), c_int(size)
        if _LIBC.getgrouplist(name, c_uint(user.gid), found, byref(count)) >= 0:
            return set(found[: count.value])
    raise ProviderUnavailable(f"the user {user.name} is in too many groups")


def require_groups() -> None:
    """Look for a group that no part of the name service has, so that each part is asked.

    :raise ProviderUnavailable: when the name service cannot tell.
    """
    number_of_group(NO_ACCOUNT)


def has_locked_password(user: UnixUser) -> bool:
    """Say whether the password was locked, as ``usermod --lock`` does it: with a ``!`` before it.

    A lone ``!`` is no lock: such a user never had a password here, and may have one elsewhere, such
    as in Kerberos. A password that this process may not read counts as not locked.
    """
    given = user.name.encode("utf-8", "surrogateescape")

    def read(found: _Shadow) -> bool:
        password = found.password or b""
        return password.startswith(b"!") and bool(password.strip(b"!*"))

    try:
        return bool(_look_up(_LIBC.getspnam_r, c_char_p(given), _Shadow, read))
    except ProviderUnavailable:
        return False


R = TypeVar("R")


def _look_up(function: Any, key: Any, kind: type[E], read: Callable[[E], R]) -> R | None:
    """Call one of the C library's functions that look up an entry.

    :param read: takes what is needed from the entry, whose memory is lost afterwards.
    """
    for size in _SIZES:
        entry, buffer, found = kind(), create_string_buffer(size), POINTER(kind)()
        code = function(key, byref(entry), buffer, c_size_t(size), byref(found))
        if code == errno.ERANGE:
            continue
        if code != 0:
            problem = f"the name service is down: {os.strerror(code)} (see /etc/nsswitch.conf)"
            raise ProviderUnavailable(problem)
        return read(entry) if found else None
    raise ProviderUnavailable("the name service has an entry that is too long")


def _read_user(found: Any) -> UnixUser:
    full_name = _text(found.gecos).partition(",")[0].strip()
    is_usable = bool(full_name) and full_name.isprintable()
    return UnixUser(_text(found.name), found.uid, found.gid, full_name if is_usable else None)


def _text(given: bytes | None) -> str:
    return (given or b"").decode("utf-8", "surrogateescape")
