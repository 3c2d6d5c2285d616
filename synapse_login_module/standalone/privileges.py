"""Switches the effective user for a while, so that files belong to that user."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from twisted.python.util import initgroups

from synapse_login_module.errors import ConfigError


@contextmanager
def effective(uid: int | None, gid: int | None) -> Iterator[None]:
    """Make and open files as the user that ``twistd --uid`` changes to later.

    Does nothing when the process is not root.

    :param uid: the user id; ``None`` to keep the current user.
    :param gid: the group id; ``None`` for the user's own group.
    :raise ConfigError: when there is no such user, or the process is not allowed to switch.
    """
    if os.geteuid() != 0 or uid is gid is None:
        yield
        return
    if uid is not None and gid is None:
        gid = _group_of(uid)
    own_gid, own_groups = os.getegid(), os.getgroups()
    try:
        _become(uid, gid)
        yield
    finally:
        with suppress(PermissionError):  # the switch failed, so there is nothing to undo
            os.seteuid(0)
            os.setegid(own_gid)
            os.setgroups(own_groups)


def _become(uid: int | None, gid: int | None) -> None:
    try:
        if uid is not None:
            initgroups(uid, gid)
        assert gid is not None
        os.setegid(gid)
        if uid is not None:
            os.seteuid(uid)
    except OSError as error:  # root without capabilities, for instance in a container
        whom = f"uid {uid}" if uid is not None else f"gid {gid}"
        raise ConfigError("", f"cannot become {whom}: {error.strerror}") from None


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        raise ConfigError("", f"there is no user with uid {uid}") from None
