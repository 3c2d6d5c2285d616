"""The reactor as the standalone server wants it: steady timers, and what is done on a signal."""

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
    """Have timers follow the monotonic clock.

    Twisted's follow the wall clock: its steps back hold all of them up, its steps forward fire all
    of them at once (https://github.com/twisted/twisted/issues/2424). This must come before the
    first timer is set.
    """
    reactor.seconds = time.monotonic


@implementer(IReactorTime)
class WallClock:
    """A clock for moments that are kept where others read them, beside steady timers.

    :param reactor: sets the timers.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def seconds(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """Call a function later, by the steady clock."""
        set_timer: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return set_timer

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """List what is to be called."""
        return list(self._reactor.getDelayedCalls())


def act_on(number: signal.Signals, reactor: Any, act: Callable[[], object]) -> None:
    """Have the reactor do something on a signal, once it runs."""
    signal.signal(number, lambda *_: reactor.callFromThread(act))


def stop(reactor: Any) -> None:
    """Stop the reactor, unless it stops already."""
    with suppress(ReactorNotRunning):
        reactor.stop()
