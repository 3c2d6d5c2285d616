"""The priority of a thread: how much of the processor it gets, and how soon it gives way.

Since Linux 6.6, a thread that runs may finish its slice before one that wakes gets the processor,
whatever their priorities are. A slice is some milliseconds, and what is left of it when the next
thread wakes is seen to only at the next tick of the clock. Since Linux 6.12, a program may choose
shorter slices for a thread. Sources: ``sched(7)``, ``sched_setattr(2)`` and
``include/uapi/linux/sched/types.h`` of Linux.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from contextlib import suppress

LOW_PRIORITY = 10
"""The niceness of a thread that gets a tenth of what one of the usual priority gets."""

LOWEST_PRIORITY = 19
"""The niceness of a thread that gets a seventieth of that."""

SHORTEST_SLICE = 100_000
"""Nanoseconds; the least that Linux accepts."""

_KEEP_POLICY = 0x08
"""``SCHED_FLAG_KEEP_POLICY``, since Linux 5.3: a thread in ``SCHED_BATCH`` or ``SCHED_IDLE``, as an
administrator may start a program, stays there."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""The number of the system call, by machine. C libraries have no function for it until late."""


class _Attributes(ctypes.Structure):
    """``struct sched_attr``. ``runtime`` is the slice of an ordinary thread."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def lower_priority(niceness: int = LOW_PRIORITY) -> None:
    """Lower the priority of the current thread, so that it gives way to the reactor's, and does so
    at once where the system can. Only Linux has a priority for each thread, and does not let every
    program raise it again. A thread that has a lower one already keeps it.

    :raise OSError: when that is not allowed.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = max(niceness, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
        with suppress(OSError, AttributeError):  # a C library may have no function for it
            _shorten_slice(thread, niceness)


def _shorten_slice(thread: int, niceness: int) -> None:
    """Give a thread the shortest slices. An older Linux sets the niceness, and no slice.

    :raise OSError: when the system refuses.
    """
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is None or sys.maxsize < 2**32:  # a program of 32 bits has other numbers
        return
    attributes = _Attributes(
        size=ctypes.sizeof(_Attributes),
        flags=_KEEP_POLICY,
        nice=niceness,
        runtime=SHORTEST_SLICE,
    )
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_long(number), ctypes.c_int(thread), ctypes.byref(attributes))
    if libc.syscall(*arguments, ctypes.c_uint(0)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
