"""What one of the servers that share a store does for all of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.accounts.judge import Judge
from synapse_login_module.errors import StoreUnavailable

LEASE = "upkeep"
LASTS = 60.0
"""Seconds that a lease lasts: so long nobody does the work when who did it has died."""

_RENEW_EVERY = 20.0


class Upkeep(Service):
    """Runs services while it holds the lease for them, which one server has at a time.

    :param store: an ``IHousekeeping``.
    :param services: what is started and stopped, perhaps more than once.
    :param clock: a clock that never steps, and who wakes us.
    :param holder: what no other server is called.
    """

    log = Logger()

    def __init__(
        self, store: Any, services: Sequence[IService], clock: IReactorTime, holder: str
    ) -> None:
        self._store = store
        self._services = services
        self._clock = clock
        self._holder = holder
        self._held_until: float | None = None
        self._next: IDelayedCall | None = None

    @property
    def is_working(self) -> bool:
        """Whether the services run here."""
        return self._held_until is not None

    def startService(self) -> None:
        """Try to get the lease, now and from time to time."""
        super().startService()
        self._beat()

    def stopService(self) -> Deferred[None]:
        """Stop the services, and let another server have them."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()
            if not self.is_working:
                return succeed(None)
        # Else it may be about to learn that it has the lease.
        if self.is_working:
            self._stop()
        released: Deferred[None] = self._store.release(LEASE, self._holder)
        return released.addErrback(lambda failure: failure.trap(StoreUnavailable) and None)

    def _beat(self) -> None:
        begun = self._clock.seconds()

        def held(is_held: bool) -> None:
            if not self.running:
                return
            was_working = self.is_working
            if not is_held:
                self._yield()
                return
            self._held_until = begun + LASTS
            if not was_working:
                self.log.info("this server does the upkeep of the store")
                self._start()

        def failed(failure: Failure) -> None:
            if not failure.check(StoreUnavailable):
                self.log.failure("taking the lease for the upkeep failed", failure)
            if self._held_until is not None and self._clock.seconds() >= self._held_until:
                self._yield()

        def again(_: object) -> None:
            if self.running:
                self._next = self._clock.callLater(_RENEW_EVERY, self._beat)

        holding: Deferred[bool] = maybeDeferred(self._store.hold, LEASE, self._holder, LASTS)
        holding.addCallback(held).addErrback(failed).addCallback(again)

    def _start(self) -> None:
        for service in self._services:
            try:
                service.startService()
            except Exception:  # the others and the lease do without it
                self.log.failure("upkeep: {service} cannot start", service=service)

    def _yield(self) -> None:
        """Leave it to another server, if it was done here."""
        if self.is_working:
            self.log.info("another server does the upkeep of the store from now on")
            self._stop()

    def _stop(self) -> None:
        self._held_until = None
        for service in self._services:
            service.stopService()


class JudgeService(Service):
    """Has a judge know of whom anything is written down, on each of the servers.

    :param judge: which.
    """

    log = Logger()

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def startService(self) -> None:
        """Find out; while the store cannot be reached the judge does without, if more slowly."""
        super().startService()

        def failed(failure: Failure) -> None:
            failure.trap(StoreUnavailable)
            problem = failure.getErrorMessage()
            self.log.warn("cannot list linked accounts: {problem}", problem=problem)

        Deferred.fromCoroutine(self._judge.start()).addErrback(failed)


def new_holder() -> str:
    """A name that no other process has, and that says whose it is to who looks into the table."""
    return f"{socket.gethostname()} {os.getpid()} {os.urandom(8).hex()}"
