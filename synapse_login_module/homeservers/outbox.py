"""Deletes at the homeserver the devices whose sessions have ended for good."""

from __future__ import annotations

from contextlib import suppress

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from synapse_login_module.common.repeats import OncePerPeriod
from synapse_login_module.errors import (
    HomeserverUnavailable,
    HomeserverUnreachable,
    StoreUnavailable,
)
from synapse_login_module.interfaces import IDelegatedStore, IHomeserver
from synapse_login_module.model import DeviceDeletion

POLL = 5.0
"""Seconds between two looks at the store, for notes of other servers and of commands."""

LONGEST_WAIT = 2.0
"""Seconds for which :meth:`Outbox.settle` waits for the homeserver at most."""

_BATCH = 20
_LONGEST_PAUSE = 60.0


class Outbox(Service):
    """Carries out the notes of the store; every server that shares the store runs one.

    A note is leased, carried out and removed. A server that dies in between leaves the lease,
    which ends by itself; then another server carries it out again, which changes nothing.

    A deletion that failed is tried again without an end: after a pause that doubles up to a minute
    if the homeserver has received nothing, and otherwise when its lease has ended.

    :param store: the token store.
    :param homeserver: the homeserver.
    :param clock: schedules the looks at the store.
    """

    log = Logger()

    def __init__(
        self, store: IDelegatedStore, homeserver: IHomeserver, clock: IReactorTime
    ) -> None:
        self._store = store
        self._homeserver = homeserver
        self._clock = clock
        self._next: IDelayedCall | None = None
        self._round: Deferred[None] = succeed(None)
        self._is_working = self._is_woken = False
        self._problem: str | None = None
        self._lines = OncePerPeriod(clock.seconds)

    def startService(self) -> None:
        """Begin with what is due."""
        super().startService()
        self.wake()

    def stopService(self) -> Deferred[None]:
        """Stop; fires once what is under way is done."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()
        return self._round

    def wake(self) -> None:
        """Carry out now what is due."""
        if not self.running:
            return
        self._is_woken = True
        if not self._is_working:
            self._is_working = True
            self._round = Deferred.fromCoroutine(self._run())

    def settle(self) -> Deferred[None]:
        """Carry out now what is due; fires when that was tried, or after :data:`LONGEST_WAIT`."""
        self.wake()
        waiting: Deferred[None] = Deferred()

        def tried(result: None) -> None:
            waiting.callback(None)

        self._round.addCallback(tried)
        waiting.addTimeout(LONGEST_WAIT, self._clock, lambda result, timeout: None)
        return waiting

    async def _run(self) -> None:
        """Carry out notes until none is due or all fail, and schedule the next look."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        try:
            while self.running and self._is_woken:
                self._is_woken = False
                leased = await self._store.lease_deletions(_BATCH)
                deleting = [Deferred.fromCoroutine(self._carry_out(each)) for each in leased]
                results = await gatherResults(deleting)
                self._is_woken |= len(leased) == _BATCH
                if not any(results):
                    break  # none is due, or the homeserver or the store is away
            if self._problem is not None:
                await self._tell(self._problem)
        except StoreUnavailable as error:
            if self._lines.is_written():
                self.log.warn("devices wait to be deleted: {problem}", problem=str(error))
        except Exception:
            self.log.failure("devices wait to be deleted")
        self._is_working = False
        if self.running:
            self._next = self._clock.callLater(POLL, self.wake)

    async def _carry_out(self, deletion: DeviceDeletion) -> bool:
        """Delete a device; return whether that is done. Raise nothing."""
        try:
            await self._homeserver.delete_device(deletion.user_id, deletion.device_id)
            await self._store.finish_deletion(deletion)
        except HomeserverUnreachable as error:
            self._problem = str(error)
            await self._postpone(deletion, min(_LONGEST_PAUSE, 2 ** min(deletion.attempts, 10)))
        except (HomeserverUnavailable, StoreUnavailable) as error:
            # The homeserver may carry it out yet, and no session must begin on the device before
            # that. So the lease stays until it ends by itself.
            self._problem = str(error)
        except Exception:
            self.log.failure("{device_id} cannot be deleted", device_id=deletion.device_id)
            await self._postpone(deletion, _LONGEST_PAUSE)
        else:
            if self._problem is not None:
                self._problem = None
                self.log.info("devices are deleted at the homeserver again")
            return True
        return False

    async def _tell(self, problem: str) -> None:
        """Log how many deletions wait, and why, at most once a minute."""
        if self._lines.is_written():
            owed = await self._store.owed_deletions()
            self.log.warn(
                "devices wait to be deleted, {number} in all: {problem}",
                number=owed.number,
                problem=problem,
            )

    async def _postpone(self, deletion: DeviceDeletion, pause: float) -> None:
        with suppress(StoreUnavailable):  # the lease ends by itself
            await self._store.postpone_deletion(deletion, pause)
