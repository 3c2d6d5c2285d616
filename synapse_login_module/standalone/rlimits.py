"""How many files and connections the process may have open."""

from __future__ import annotations

import resource

from twisted.logger import Logger

_OTHERS = 256
"""Room for the store, the providers and the log."""

_log = Logger()


def room_for(connections: int) -> int:
    """Let the process have that many connections beside its other files, or as many as it may.

    The usual soft limit of 1024 is for programs that use select(2).

    :return: how many it may have.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHERS
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == wanted:
        return connections
    room = max(1, allowed - _OTHERS)
    _log.warn(
        "the process may have {allowed} files open: {room} connections, not {connections}",
        allowed=allowed,
        room=room,
        connections=connections,
    )
    return room
