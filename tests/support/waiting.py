"""Waiting until something holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

reactor = cast(Any, global_reactor)

TIMEOUT = 600.0
"""Seconds until a program counts as hanging: not for how long one takes on a machine that has much
else to do.
"""

_PAUSE = 0.01


class TimedOut(AssertionError):
    """A condition did not come to hold."""


async def until(condition: Callable[[], object], what: str = "", *, timeout: float = 120.0) -> None:
    """Wait until a condition holds; the reactor runs meanwhile.

    :param what: what is waited for, for the error.
    :raise TimedOut: when it does not come to hold.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        _check(deadline, what or repr(condition))
        await deferLater(reactor, _PAUSE)


def block_until(
    condition: Callable[[], object],
    what: str = "",
    *,
    timeout: float = TIMEOUT,
    pause: float = _PAUSE,
) -> None:
    """Wait until a condition holds; nothing else happens meanwhile. Else like :func:`until`."""
    deadline = time.monotonic() + timeout
    while not condition():
        _check(deadline, what or repr(condition))
        time.sleep(pause)


def _check(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise TimedOut(f"waited in vain: {what}")
