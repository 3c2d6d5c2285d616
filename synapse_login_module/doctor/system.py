"""What the operating system gives the service: open files, and the time."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator

from synapse_login_module.model import Finding
from synapse_login_module.model.findings import good, warning
from synapse_login_module.standalone import rlimits

AREA = "system"

_TIMEX_BYTES = 1024
_TIME_ERROR = 5
"""What adjtimex(2) returns while the clock is not synchronised."""


def of_open_files(connections: int) -> Finding:
    """Compare the limit of open files with ``limits.connections``."""
    room = rlimits.fitting(connections)
    if room < connections:
        return warning(
            "open files",
            f"their hard limit leaves room for {room} connections, and limits.connections is"
            f" {connections}",
            "raise it for the server (LimitNOFILE= in its unit, or ulimit -Hn), or lower"
            " limits.connections",
            AREA,
        )
    return good("open files", f"their limit has room for {connections} connections", AREA)


def of_synchronisation() -> Iterator[Finding]:
    """Say whether the system keeps the clock right, where the system can tell."""
    state = _clock_state()
    if state is None:
        return
    if state == _TIME_ERROR:
        found = "the system says that the clock is not synchronised"
        advice = "run an NTP client, such as systemd-timesyncd or chrony"
        yield warning("NTP", found, advice, AREA)
    else:
        yield good("NTP", "the clock is synchronised", AREA)


def _clock_state() -> int | None:
    """Ask the kernel by adjtimex(2), with no mode set, which changes nothing."""
    if sys.platform != "linux":
        return None
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return state if state >= 0 else None
