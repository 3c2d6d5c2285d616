"""The reactor as the standalone server wants it: steady timers, and what is done on a signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning


def keep_steady_time(reactor: Any) -> None:
    """Have timers follow the monotonic clock.

    Twisted's follow the wall clock: its steps back hold all of them up, its steps forward fire all
    of them at once (https://github.com/twisted/twisted/issues/2424). This must come before the
    first timer is set.
    """
    reactor.seconds = time.monotonic


def act_on(number: signal.Signals, reactor: Any, act: Callable[[], object]) -> None:
    """Have the reactor do something on a signal, once it runs."""
    signal.signal(number, lambda *_: reactor.callFromThread(act))


def stop(reactor: Any) -> None:
    """Stop the reactor, unless it stops already."""
    with suppress(ReactorNotRunning):
        reactor.stop()
