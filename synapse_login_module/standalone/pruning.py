"""Removing the rows of sessions and login tokens that have long been over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.model import Pruned

SCAN = 1000
MOST = 20
"""How many rows a batch in the background looks at and removes: a few milliseconds' worth."""

PAUSE = 0.1
STROLL = 1.0
REST = 600.0
RETRY = 30.0
"""Seconds until the next batch: while there is more to be removed, while there is more to be looked
at, once all has been, and when the store cannot be reached."""

_SHORTEST_REST = 5.0
_SCAN_AT_ONCE = 10_000
_MOST_AT_ONCE = 250


class Pruner(Service):
    """Walks over all sessions in small batches, again and again, while it runs.

    :param store: an ``IHousekeeping``.
    :param keep_ended: seconds for which it keeps what is over.
    :param clock: wakes us.
    """

    log = Logger()

    def __init__(self, store: Any, keep_ended: float, clock: IReactorTime) -> None:
        self._store = store
        self._rest = min(REST, max(_SHORTEST_REST, keep_ended / 20))
        self._clock = clock
        self._after: int | None = None
        self._sessions = 0
        self._login_tokens = 0
        self._next: IDelayedCall | None = None
        self._is_away = False

    def startService(self) -> None:
        """Begin from the beginning."""
        super().startService()
        self._after = None
        self._sessions = self._login_tokens = 0
        self._next = self._clock.callLater(STROLL, self._beat)

    def stopService(self) -> None:
        """Begin no further batch."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _beat(self) -> None:
        mine = self._next

        def failed(failure: Failure) -> float:
            if not failure.check(StoreUnavailable):
                self.log.failure("pruning failed; it goes on", failure)
            elif not self._is_away:
                self.log.warn("cannot prune: {problem}", problem=failure.getErrorMessage())
            self._is_away = True
            return RETRY

        def again(delay: float) -> None:
            # It may have been stopped meanwhile, and started again.
            if self.running and self._next is mine:
                self._next = self._clock.callLater(delay, self._beat)

        asked: Deferred[Pruned] = self._store.prune(self._after, SCAN, MOST)
        asked.addCallback(self._pruned).addErrback(failed).addCallback(again)

    def _pruned(self, batch: Pruned) -> float:
        """Note a batch, and say when the next is due."""
        self._is_away = False
        self._after = batch.after
        self._sessions += batch.sessions
        self._login_tokens += batch.login_tokens
        if batch.after is not None:
            return PAUSE if MOST in (batch.sessions, batch.login_tokens) else STROLL
        if self._sessions or self._login_tokens:
            self.log.info(
                "pruned {sessions} sessions and {tokens} login tokens that were long over",
                sessions=self._sessions,
                tokens=self._login_tokens,
            )
        self._sessions = self._login_tokens = 0
        return self._rest


async def prune_all(store: Any, tell: Callable[[Pruned], object] = lambda _: None) -> Pruned:
    """Remove all that has long been over, at once.

    :param store: an ``IHousekeeping``.
    :param tell: called with each batch.
    :return: how much was removed.
    """
    sessions = login_tokens = 0
    after: int | None = None
    while True:
        batch: Pruned = await store.prune(after, _SCAN_AT_ONCE, _MOST_AT_ONCE)
        tell(batch)
        sessions += batch.sessions
        login_tokens += batch.login_tokens
        after = batch.after
        if after is None:
            return Pruned(sessions, login_tokens, None)
