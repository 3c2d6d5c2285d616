"""The priority of the thread that asks."""

from __future__ import annotations

import os
import threading


def niceness() -> int:
    """Return the niceness of the current thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
