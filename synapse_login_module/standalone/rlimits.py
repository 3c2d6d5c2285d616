"""Raises the limit of open files for the number of connections."""

from __future__ import annotations

import resource

from twisted.logger import Logger

_OTHER_FILES = 256
"""Descriptors for the store, the providers and the log."""

_log = Logger()


def fitting(connections: int) -> int:
    """Return how many of the connections fit under the hard limit of open files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or connections + _OTHER_FILES <= hard:
        return connections
    return max(1, hard - _OTHER_FILES)


def room_for(connections: int) -> int:
    """Raise the soft limit of open files so that the connections fit, as far as the hard limit.

    The usual soft limit of 1024 is for programs that use select(2).

    :param connections: the number of connections wanted.
    :return: the number of connections that fit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == wanted:
        return connections
    room = fitting(connections)
    _log.warn(
        "the process may have {allowed} files open: {room} connections, not {connections}",
        allowed=allowed,
        room=room,
        connections=connections,
    )
    return room
