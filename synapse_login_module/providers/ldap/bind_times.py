"""How long a directory takes to refuse a password, so that other refusals take as long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

_KEPT = 64


class BindTimes:
    """Remembers how long the last wrong passwords took, and has other refusals take one of them.

    A directory hashes, and counts, only for an entry that it has: 389 Directory Server and Samba
    take some ten milliseconds longer for it. A time that is drawn from those that were seen spreads
    as they do. Until the first was seen there is none to wait for.

    :param reactor: measures and waits.
    :param random: makes that many random bytes.
    """

    def __init__(self, reactor: Any, random: Callable[[int], bytes]) -> None:
        self._reactor = reactor
        self._random = random
        self._seen: deque[float] = deque(maxlen=_KEPT)

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        seconds: float = self._reactor.seconds()
        return seconds

    def saw(self, began: float) -> None:
        """Remember a wrong password that was sent at ``began`` and has just been refused."""
        self._seen.append(self.now() - began)

    def wait(self, began: float) -> Deferred[None]:
        """Fire when a wrong password that was sent at ``began`` might have been refused."""
        if not self._seen:
            return succeed(None)
        drawn = self._seen[int.from_bytes(self._random(4), "big") % len(self._seen)]
        rest = began + drawn - self.now()
        waited: Deferred[None] = deferLater(self._reactor, rest) if rest > 0 else succeed(None)
        return waited
