"""The place of a worker, in which one process follows another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from synapse_login_module.standalone.workers.process import CannotStart, WorkerProcess

_SETTLED = 10.0
_LONGEST_PAUSE = 60.0


class WorkerSlot:
    """One of the places for workers: a worker that ends unasked is replaced.

    The replacement starts at once if the worker has run for some time, else after a pause that
    doubles.

    :param number: which worker it is, from 1 on.
    :param start: starts a worker's process.
    :param reactor: measures time and schedules starts.
    :ivar worker: the current process, or the last one during a pause.
    """

    log = Logger()

    def __init__(self, number: int, start: Callable[[], WorkerProcess], reactor: Any) -> None:
        self._number = number
        self._start = start
        self._reactor = reactor
        self._pause = 0.0
        self._next: IDelayedCall | None = None
        self._given_up = False
        self._start_worker()

    def watch(self) -> None:
        """Replace the worker when it ends, or at once if it has ended."""
        self.worker.ended.addCallback(self._worker_ended)

    def give_up(self) -> None:
        """Stop replacing the worker."""
        self._given_up = True
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _start_worker(self) -> None:
        self._since = self._reactor.seconds()
        self.worker = self._start()

    def _restart(self) -> None:
        try:
            self._start_worker()
        except Exception:  # whatever it is: a worker is missing until one starts
            self._lengthen_pause()
            self.log.failure(
                "worker {number} could not be started; again in {pause:g} seconds",
                number=self._number,
                pause=self._pause,
            )
            self._next = self._reactor.callLater(self._pause, self._restart)
            return
        self.worker.ready.addErrback(lambda failure: failure.trap(CannotStart) and None)
        self.watch()

    def _worker_ended(self, how: str) -> None:
        if self._given_up:
            return
        settled = self._reactor.seconds() - self._since >= _SETTLED
        if settled:
            self._pause = 0.0
        else:
            self._lengthen_pause()
        self.log.error(
            "worker {number}, process {process}, ended: {how}; another starts in {pause:g} seconds",
            number=self._number,
            process=self.worker.pid,
            how=how,
            pause=self._pause,
        )
        self._next = self._reactor.callLater(self._pause, self._restart)

    def _lengthen_pause(self) -> None:
        self._pause = min(max(1.0, 2 * self._pause), _LONGEST_PAUSE)
