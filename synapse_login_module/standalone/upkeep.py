"""Runs the housekeeping of a store on one of the servers that share it."""

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
LEASE_SECONDS = 60.0
"""How long a lease lasts. When its holder dies, the work pauses for up to this time."""

_RENEW_EVERY = 20.0


class Upkeep(Service):
    """Runs services while it holds their lease, which one server holds at a time.

    :param store: an ``IHousekeeping``.
    :param services: the services; they may be started and stopped more than once.
    :param clock: a monotonic clock, which also schedules the renewals.
    :param holder: the name of this server, which no other has; see :func:`new_holder`.
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
        """Whether this server holds the lease and runs the services."""
        return self._held_until is not None

    def startService(self) -> None:
        """Try to take the lease now, and repeatedly from then on."""
        super().startService()
        self._hold()

    def stopService(self) -> Deferred[None]:
        """Stop the services and release the lease."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()
            if not self.is_working:
                return succeed(None)
        # Otherwise a request for the lease is in flight, and may have succeeded.
        if self.is_working:
            self._stop()
        released: Deferred[None] = self._store.release(LEASE, self._holder)
        return released.addErrback(lambda failure: failure.trap(StoreUnavailable) and None)

    def _hold(self) -> None:
        begun = self._clock.seconds()

        def held(is_held: bool) -> None:
            if not self.running:
                return
            was_working = self.is_working
            if not is_held:
                self._lose()
                return
            self._held_until = begun + LEASE_SECONDS
            if not was_working:
                self.log.info("this server does the upkeep of the store")
                self._start()

        def failed(failure: Failure) -> None:
            if not failure.check(StoreUnavailable):
                self.log.failure("taking the lease for the upkeep failed", failure)
            if self._held_until is not None and self._clock.seconds() >= self._held_until:
                self._lose()

        def again(_: object) -> None:
            if self.running:
                self._next = self._clock.callLater(_RENEW_EVERY, self._hold)

        holding: Deferred[bool] = maybeDeferred(
            self._store.hold, LEASE, self._holder, LEASE_SECONDS
        )
        holding.addCallback(held).addErrback(failed).addCallback(again)

    def _start(self) -> None:
        for service in self._services:
            try:
                service.startService()
            except Exception:  # the other services run without it
                self.log.failure("upkeep: {service} cannot start", service=service)

    def _lose(self) -> None:
        """Stop the services if they run here, since another server may take the lease."""
        if self.is_working:
            self.log.info("this server no longer does the upkeep of the store")
            self._stop()

    def _stop(self) -> None:
        self._held_until = None
        for service in self._services:
            service.stopService()


class JudgeService(Service):
    """Loads a judge's list of marked accounts; runs on each of the servers.

    :param judge: the judge that acts on the status of accounts.
    """

    log = Logger()

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def startService(self) -> None:
        """Begin to load the list. Without it, the judge looks up each account in the store."""
        super().startService()

        def failed(failure: Failure) -> None:
            failure.trap(StoreUnavailable)
            problem = failure.getErrorMessage()
            self.log.warn("cannot list linked accounts: {problem}", problem=problem)

        Deferred.fromCoroutine(self._judge.start()).addErrback(failed)


def new_holder() -> str:
    """Make a unique name for this process. An operator can read host and process id in it."""
    return f"{socket.gethostname()} {os.getpid()} {os.urandom(8).hex()}"
