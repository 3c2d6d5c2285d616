"""Work inside Synapse's main process that is done again and again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import StoreUnavailable

Work = Coroutine[Deferred[Any], Any, float]


class Rounds(Service):
    """A service that does work in rounds while it runs. A round that fails is not the last one.

    :param what: what the work looks at, for the log, such as ``at administrators``.
    :param work: does one round; returns the seconds until the next one.
    :param after_failure: the seconds until the next round after one that has failed. An outage of
        the database has its own line in the log.
    :param clock: starts the rounds.
    """

    log = Logger()

    def __init__(
        self, what: str, work: Callable[[], Work], after_failure: float, clock: IReactorTime
    ) -> None:
        self._what = what
        self._work = work
        self._after_failure = after_failure
        self._clock = clock
        self._next: IDelayedCall | None = None

    def startService(self) -> None:
        """Start the rounds."""
        super().startService()
        self._begin()

    def stopService(self) -> None:
        """Start no more rounds. A round that has begun is not cancelled."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _begin(self) -> None:
        def failed(failure: Failure) -> float:
            if not failure.check(StoreUnavailable):
                self.log.failure("cannot look {what}; trying again", failure, what=self._what)
            return self._after_failure

        def again(delay: float) -> None:
            if self.running:
                self._next = self._clock.callLater(delay, self._begin)

        Deferred.fromCoroutine(self._work()).addErrback(failed).addCallback(again)
