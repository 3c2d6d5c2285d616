"""How long a directory takes to reject a password, so that other refusals can take as long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

_KEPT = 64


class BindTimes:
    """Remembers how long the last wrong passwords took, and delays other refusals by such a time.

    A directory hashes a password, and counts a failure, only for an entry that exists. 389
    Directory Server and Samba take some ten milliseconds longer for that. The delay is drawn from
    the times that were seen, so that it has the same distribution. Until one was seen there is no
    delay.

    :param reactor: measures the time and waits.
    :param random: returns a given number of random bytes.
    """

    def __init__(self, reactor: Any, random: Callable[[int], bytes]) -> None:
        self._reactor = reactor
        self._random = random
        self._seen: deque[float] = deque(maxlen=_KEPT)

    def now(self) -> float:
        """Return the reactor's time in seconds, which never goes back."""
        seconds: float = self._reactor.seconds()
        return seconds

    def saw(self, began: float) -> None:
        """Remember the time of a wrong password that was sent at ``began`` and is rejected now."""
        self._seen.append(self.now() - began)

    def wait(self, began: float) -> Deferred[None]:
        """Fire when a wrong password that was sent at ``began`` would be rejected."""
        if not self._seen:
            return succeed(None)
        drawn = self._seen[int.from_bytes(self._random(4), "big") % len(self._seen)]
        rest = began + drawn - self.now()
        waited: Deferred[None] = deferLater(self._reactor, rest) if rest > 0 else succeed(None)
        return waited
