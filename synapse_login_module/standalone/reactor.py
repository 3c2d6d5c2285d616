"""Sets up the reactor of the standalone server: steady timers and signal handlers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


def keep_steady_time(reactor: Any) -> None:
    """Make the reactor's timers follow the monotonic clock. Call this before setting any timer.

    By default they follow the wall clock. A step back delays all of them, and a step forward fires
    all of them at once (https://github.com/twisted/twisted/issues/2424).
    """
    reactor.seconds = time.monotonic


@implementer(IReactorTime)
class WallClock:
    """A clock which tells the time of day, for times that are stored, but has steady timers.

    :param reactor: the reactor that sets the timers; see :func:`keep_steady_time`.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def seconds(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """Call a function after a delay by the steady clock."""
        set_timer: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return set_timer

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """List the pending calls."""
        return list(self._reactor.getDelayedCalls())


def act_on(number: signal.Signals, reactor: Any, act: Callable[[], object]) -> None:
    """Call a function in the reactor on each signal of a kind, once the reactor runs."""
    signal.signal(number, lambda *_: reactor.callFromThread(act))


def stop(reactor: Any) -> None:
    """Stop the reactor, unless it is stopping or has stopped."""
    with suppress(ReactorNotRunning):
        reactor.stop()
