"""Being another user for a while, as files see it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from twisted.python.util import initgroups

from synapse_login_module.errors import ConfigError


@contextmanager
def effective(uid: int | None, gid: int | None) -> Iterator[None]:
    """Have files made and opened as by the user whom ``twistd --uid`` changes to later on.

    Whoever is not root stays who they are.

    :param uid: the user; ``None`` for the same.
    :param gid: the group; ``None`` for the user's own.
    :raise ConfigError: when there is no such user, or this one may not become it.
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
        with suppress(PermissionError):  # then nothing has changed
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
    except OSError as error:  # root without the capabilities, as in a container
        whom = f"uid {uid}" if uid is not None else f"gid {gid}"
        raise ConfigError("", f"cannot become {whom}: {error.strerror}") from None


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        raise ConfigError("", f"there is no user of the uid {uid} to run as") from None
