"""Waits for conditions, and for several coroutines."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

T = TypeVar("T")

reactor = cast(Any, global_reactor)

TIMEOUT = 600.0
"""Seconds after which a program counts as hanging. It is long enough for a busy machine."""

_PAUSE = 0.01


class TimedOut(AssertionError):
    """A condition did not hold in time."""


async def until(condition: Callable[[], object], what: str = "", *, timeout: float = 120.0) -> None:
    """Wait until a condition holds, while the reactor runs.

    :param what: the name of the condition, for the error.
    :raise TimedOut: when it does not hold in time.
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
    """Block until a condition holds; see :func:`until`."""
    deadline = time.monotonic() + timeout
    while not condition():
        _check(deadline, what or repr(condition))
        time.sleep(pause)


async def together(*coroutines: Coroutine[Any, Any, T]) -> list[T]:
    """Run coroutines concurrently; return their results in order."""
    deferreds = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    results: list[T] = []
    for succeeded, result in await DeferredList(deferreds, consumeErrors=True):
        if not succeeded:
            cast(Failure, result).raiseException()
        results.append(result)
    return results


def _check(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise TimedOut(f"waited in vain: {what}")
