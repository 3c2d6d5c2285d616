"""Tests for the priority of a thread."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
import threading
from collections.abc import Callable
from typing import TypeVar
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.common import priority
from synapse_login_module.common.priority import (
    LOW_PRIORITY,
    LOWEST_PRIORITY,
    SHORTEST_SLICE,
    lower_priority,
)
from tests.support.niceness import niceness

T = TypeVar("T")

_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275, "riscv64": 275}
_HAS_SLICES = sys.platform == "linux" and tuple(
    int(part) for part in re.findall(r"\d+", platform.release())[:2]
) >= (6, 12)


def on_thread(function: Callable[[], T]) -> T:
    """Call a function on a new thread, whose priority ends with it."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def kept() -> tuple[int, int]:
    """Return the niceness of the current thread and the nanoseconds of its slices, as Linux has
    them.
    """
    attributes = priority._Attributes()
    size = ctypes.sizeof(attributes)
    arguments = (ctypes.c_long(_SCHED_GETATTR[platform.machine()]), ctypes.c_int(0))
    libc = ctypes.CDLL(None)
    assert not libc.syscall(
        *arguments, ctypes.byref(attributes), ctypes.c_uint(size), ctypes.c_uint(0)
    )
    return attributes.nice, attributes.runtime


@skipUnless(sys.platform == "linux", "elsewhere threads have no priority of their own")
class PriorityTests(SynchronousTestCase):
    """A thread that gives way to others."""

    def lowered(self, wanted: int, look: Callable[[], T]) -> T:
        """Lower the priority of a new thread; return what is seen on it then."""
        if niceness() > wanted:
            self.skipTest("the tests run at too low a priority themselves")

        def work() -> T:
            lower_priority(wanted)
            return look()

        return on_thread(work)

    @skipUnless(_HAS_SLICES and platform.machine() in _SCHED_GETATTR, "it has no slices")
    def test_slice(self) -> None:
        """A thread of a low priority has the shortest slices, and other threads keep theirs."""
        before = on_thread(kept)
        for wanted in (LOW_PRIORITY, LOWEST_PRIORITY):
            self.assertEqual(self.lowered(wanted, kept), (wanted, SHORTEST_SLICE))
        self.assertEqual(on_thread(kept), before)
        self.assertGreater(before[1], SHORTEST_SLICE)

    @skipUnless(_HAS_SLICES and platform.machine() in _SCHED_GETATTR, "it has no slices")
    def test_policy(self) -> None:
        """A thread of a policy that gives way more keeps it."""

        def work() -> tuple[int, int]:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            lower_priority(LOWEST_PRIORITY)
            return os.sched_getscheduler(0), kept()[1]

        self.assertEqual(on_thread(work), (os.SCHED_BATCH, SHORTEST_SLICE))

    def test_lower_already(self) -> None:
        """A thread that has a lower priority keeps it."""

        def work() -> int:
            lower_priority(LOW_PRIORITY)
            return niceness()

        self.assertEqual(self.lowered(LOWEST_PRIORITY, work), LOWEST_PRIORITY)

    def test_no_such_thread(self) -> None:
        """What the system says is raised."""
        with self.assertRaises(ProcessLookupError):
            priority._shorten_slice(2**30, LOWEST_PRIORITY)

    def test_slice_refused(self) -> None:
        """Where the system refuses the slices, the priority is lower all the same."""

        def refuse(thread: int, niceness: int) -> None:
            raise PermissionError("not permitted")

        self.patch(priority, "_shorten_slice", refuse)
        self.assertEqual(self.lowered(LOWEST_PRIORITY, niceness), LOWEST_PRIORITY)

    def test_unknown_machine(self) -> None:
        """Where the number of the system call is not known, none is made."""
        self.patch(priority, "_SCHED_SETATTR", {})
        self.patch(ctypes, "CDLL", None)
        self.assertEqual(self.lowered(LOWEST_PRIORITY, niceness), LOWEST_PRIORITY)
