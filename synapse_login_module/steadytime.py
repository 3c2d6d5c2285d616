"""Timers that a step of the wall clock does not move."""

from __future__ import annotations

import time
from typing import Any


def keep(reactor: Any) -> None:
    """Have timers follow the monotonic clock.

    Twisted's follow the wall clock: its steps back hold all of them up, its steps forward fire all
    of them at once (https://github.com/twisted/twisted/issues/2424). This must come before the
    first timer is set.
    """
    reactor.seconds = time.monotonic
