"""Removes the rows of sessions and login tokens that have been over for ``keep_ended``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.common.pacing import rest
from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.model import Pruned

SCAN_ROWS = 1000
MAX_REMOVED = 5
"""How many rows a batch in the background reads and removes at most. Refreshes share the
transaction that removes them, and each is in two other places of the file: a millisecond of work.
"""

REMOVAL_PAUSE = 0.025
SCAN_PAUSE = 1.0
ROUND_PAUSE = 600.0
RETRY_PAUSE = 30.0
"""Seconds until the next batch: after one that removed the maximum, after one that removed less,
after the last batch of a round, and after an error of the store."""

_SHORTEST_ROUND_PAUSE = 5.0
_SCAN_ROWS_AT_ONCE = 2000
_MAX_REMOVED_AT_ONCE = 25
_REST = 3.0
"""The pause after a batch of the command, as a multiple of the time that the batch took."""

_LONGEST_REST = 5.0
"""Seconds."""


class Pruner(Service):
    """Walks over all sessions in rounds of small batches, for as long as it runs.

    :param store: an ``IHousekeeping``.
    :param keep_ended: seconds for which the store keeps a session or login token that is over.
    :param clock: schedules the batches.
    :param count: called with a kind of row, and how many of it each batch removed.
    """

    log = Logger()

    def __init__(
        self,
        store: Any,
        keep_ended: float,
        clock: IReactorTime,
        count: Callable[[str, int], None] = lambda kind, number: None,
    ) -> None:
        self._store = store
        self._count = count
        self._rest = min(ROUND_PAUSE, max(_SHORTEST_ROUND_PAUSE, keep_ended / 20))
        self._clock = clock
        self._after: int | None = None
        self._sessions = 0
        self._login_tokens = 0
        self._next: IDelayedCall | None = None
        self._is_failing = False

    def startService(self) -> None:
        """Schedule the first batch of a round."""
        super().startService()
        self._after = None
        self._sessions = self._login_tokens = 0
        self._next = self._clock.callLater(SCAN_PAUSE, self._remove_batch)

    def stopService(self) -> None:
        """Cancel the next batch."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _remove_batch(self) -> None:
        mine = self._next

        def failed(failure: Failure) -> float:
            if not failure.check(StoreUnavailable):
                self.log.failure("pruning failed; it will be retried", failure)
            elif not self._is_failing:
                self.log.warn("cannot prune: {problem}", problem=failure.getErrorMessage())
            self._is_failing = True
            return RETRY_PAUSE

        def again(delay: float) -> None:
            # The service may have been stopped in the meantime, and started again.
            if self.running and self._next is mine:
                self._next = self._clock.callLater(delay, self._remove_batch)

        asked: Deferred[Pruned] = self._store.prune(self._after, SCAN_ROWS, MAX_REMOVED)
        asked.addCallback(self._pruned).addErrback(failed).addCallback(again)

    def _pruned(self, batch: Pruned) -> float:
        """Add up a batch; return the seconds until the next."""
        self._is_failing = False
        self._after = batch.after
        self._sessions += batch.sessions
        self._login_tokens += batch.login_tokens
        self._count("session", batch.sessions)
        self._count("login_token", batch.login_tokens)
        self._count("imported_token", batch.imported_tokens)
        if batch.after is not None:
            removed = batch.sessions, batch.login_tokens, batch.imported_tokens
            return REMOVAL_PAUSE if MAX_REMOVED in removed else SCAN_PAUSE
        if self._sessions or self._login_tokens:
            self.log.info(
                "pruned {sessions} sessions and {tokens} login tokens",
                sessions=self._sessions,
                tokens=self._login_tokens,
            )
        self._sessions = self._login_tokens = 0
        return self._rest


async def prune_all(
    store: Any, clock: IReactorTime, tell: Callable[[Pruned], object] = lambda _: None
) -> Pruned:
    """Remove the rows of everything that has been over for ``keep_ended``.

    After each batch the store is left to the servers for three times as long as the batch took.

    :param store: an ``IHousekeeping``.
    :param clock: measures the batches, and ends the pauses. It may be set.
    :param tell: called with each batch.
    :return: how many sessions and login tokens were removed.
    """
    sessions = login_tokens = 0
    after: int | None = None
    while True:
        began = clock.seconds()
        batch: Pruned = await store.prune(after, _SCAN_ROWS_AT_ONCE, _MAX_REMOVED_AT_ONCE)
        tell(batch)
        sessions += batch.sessions
        login_tokens += batch.login_tokens
        after = batch.after
        if after is None:
            return Pruned(sessions, login_tokens, None)
        await rest(clock, began, _REST, _LONGEST_REST)
