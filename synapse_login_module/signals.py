"""What is done on a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning


def act_on(number: signal.Signals, reactor: Any, act: Callable[[], object]) -> None:
    """Have the reactor do something on a signal, once it runs."""
    signal.signal(number, lambda *_: reactor.callFromThread(act))


def stop(reactor: Any) -> None:
    """Stop the reactor, unless it stops already."""
    with suppress(ReactorNotRunning):
        reactor.stop()
