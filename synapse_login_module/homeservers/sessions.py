"""Begins and ends sessions together with their accounts and devices at the homeserver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.accounts.watch import EndReason
from synapse_login_module.common.locks import Locks
from synapse_login_module.common.repeats import Omitted, Repeats
from synapse_login_module.errors import (
    DeviceBusy,
    HomeserverUnavailable,
    NotReserved,
)
from synapse_login_module.homeservers.admission import Admission
from synapse_login_module.interfaces import IDelegatedStore, IHomeserver, ITokenStore
from synapse_login_module.model import Account, Login, SessionInfo

FORGET_TIMEOUT = 1.0
"""Seconds that a request waits for the homeserver to forget tokens."""

_ATTEMPTS = 10
"""The most attempts to begin a session on a device while other servers begin sessions on it."""


class HomeserverSessions:
    """The :class:`~synapse_login_module.homeservers.host.SessionHost` of a delegating homeserver,
    and the :class:`~synapse_login_module.accounts.watch.Endings` of its accounts.

    A device is made before its session begins, so no session is ever without a device. The store
    notes beforehand that the device is to be deleted unless a session begins on it. So a server
    that dies in between leaves no device behind.

    :param homeserver: the homeserver.
    :param admission: finds, links or makes the account of a login.
    :param store: the token store, which provides ``ITokenStore`` and ``IDelegatedStore``.
    :param new_device_id: generates the identifier of a device.
    :param wake: has the notes carried out that are due.
    :param settle: does the same, and fires when it was tried, or after some seconds.
    :param clock: schedules timeouts.
    :ivar lock_changed: called with a user whose account was locked or unlocked, and whether it is
        locked, before the homeserver asks about the user's tokens again.
    """

    log = Logger()

    def __init__(
        self,
        homeserver: IHomeserver,
        admission: Admission,
        store: ITokenStore,
        new_device_id: Callable[[], str],
        wake: Callable[[], None],
        settle: Callable[[], Deferred[None]],
        clock: IReactorTime,
    ) -> None:
        self._homeserver = homeserver
        self._admission = admission
        self._store = store
        self._notes = IDelegatedStore(store)
        self._new_device_id = new_device_id
        self._clock = clock
        self._outages: Repeats[str] = Repeats(clock.seconds, self._tell_omitted, clock.callLater)
        self.ended = wake
        self._settle = settle
        self._devices: Locks[tuple[str, str]] = Locks()
        self.lock_changed: Callable[[str, bool], None] = lambda user_id, locked: None

    async def begin(
        self,
        account: Account,
        device_id: str | None,
        display_name: str | None,
        issue: Callable[[str, str | None], Deferred[Login]],
    ) -> Login:
        """Prepare account and device, and begin the session."""
        user_id = await self._admission.admit(account)
        device = device_id or self._new_device_id()
        begin = partial(self._begin, user_id, device, device_id is None, display_name, issue)
        # Each session that begins uses up the reservation of its device.
        async with self._devices.held((user_id, device)):
            for _ in range(_ATTEMPTS - 1):
                # Another server's session may use up the reservation.
                with suppress(NotReserved):
                    return await begin()
            return await begin()

    async def owns_user(self, as_token: str, user_id: str) -> bool:
        """Check an application service's token; see :meth:`IHomeserver.owns_user`.

        A server administrator is no user of theirs: their own token does not administer.
        """
        if user_id in self._homeserver.policy.admins:
            return False
        return await self._homeserver.owns_user(as_token, user_id)

    async def _begin(
        self,
        user_id: str,
        device: str,
        is_new: bool,
        display_name: str | None,
        issue: Callable[[str, str | None], Deferred[Login]],
    ) -> Login:
        """Make a device, and begin a session on it. Raises what :meth:`begin` raises, and
        ``NotReserved``.

        :param is_new: whether the identifier of the device has just been generated.
        """
        if not await self._notes.reserve_device(user_id, device, owed=is_new):
            # Its deletion takes some milliseconds, or half a minute if an answer was lost.
            await self._settle()
            if not await self._notes.reserve_device(user_id, device, owed=is_new):
                raise DeviceBusy("the device of an earlier session is being deleted")
        made = False
        try:
            made = await self._homeserver.make_device(user_id, device, display_name)
            login = await issue(user_id, device)
        except NotReserved:
            raise
        except BaseException:
            # Also of a client that has gone: the device must not stay either.
            self._withdraw(user_id, device, made)
            raise
        if not made:
            # The tokens of the device's earlier session, which this one has ended.
            await self._forget(user_id, device)
        return login

    def _withdraw(self, user_id: str, device_id: str, made: bool) -> None:
        """End the reservation of a device, without waiting for it."""

        def failed(failure: object) -> None:
            # The reservation ends by itself after a minute.
            self.log.warn(
                "the device {device_id} of {user_id} cannot be withdrawn: {problem}",
                device_id=device_id,
                user_id=user_id,
                problem=str(getattr(failure, "value", failure)),
            )

        withdrawn = maybeDeferred(self._notes.withdraw_device, user_id, device_id, made)
        withdrawn.addCallbacks(lambda _: self.ended(), failed)

    async def settle(self) -> None:
        """Have the devices deleted of sessions that have ended, and wait for it for a while."""
        await self._settle()

    async def forget(self, session: SessionInfo, wait: bool) -> None:
        """Have the homeserver forget the access tokens of a session; a failure is logged."""
        forgotten = self._forget(session.user_id, session.device_id)
        if wait:
            await forgotten

    def end_all(self, user_id: str) -> Deferred[int]:
        """End all sessions of a user whose account is gone; see ``ITokenStore.revoke_all``.

        The homeserver forgets the tokens now. It keeps the devices for the ``device_grace``.
        """
        return Deferred.fromCoroutine(self._end_all(user_id))

    def end(self, user_id: str, reason: EndReason) -> Deferred[int]:
        """End all sessions of a user, whatever the reason."""
        return self.end_all(user_id)

    def lock(self, user_id: str, locked: bool) -> Deferred[None]:
        """Have the homeserver ask again about the user's tokens, so that the lock counts at once.

        The homeserver itself is not told: its own lock does not stop tokens.
        """
        self.lock_changed(user_id, locked)
        return self._forget(user_id, None)

    async def _end_all(self, user_id: str) -> int:
        grace = self._homeserver.policy.device_grace
        number = await self._store.revoke_all(user_id, device_grace=grace)
        self.ended()
        await self._forget(user_id, None)
        return number

    def _forget(self, user_id: str, device_id: str | None) -> Deferred[None]:
        """Have the homeserver forget tokens; fires when it has, or after a second.

        It goes on after that second, and when the client has gone. So a homeserver that hangs is
        known to be down by the next calls, which then cost no time.
        """
        waiting: Deferred[None] = Deferred()

        def forgotten(_: object) -> None:
            if not waiting.called:
                waiting.callback(None)

        forgetting = maybeDeferred(self._homeserver.forget_tokens, user_id, device_id)
        forgetting.addErrback(self._not_forgotten, user_id).addCallback(forgotten)
        return waiting.addTimeout(FORGET_TIMEOUT, self._clock, lambda _, __: None)

    def _not_forgotten(self, failure: Failure, user_id: str) -> None:
        """Log why tokens are not forgotten, in a bounded number of lines."""
        if not failure.check(HomeserverUnavailable):
            self.log.failure("tokens of {user_id} are not forgotten", failure, user_id=user_id)
            return
        problem = failure.getErrorMessage()
        if self._outages.is_written("", problem):
            self.log.warn(
                "the homeserver may accept old access tokens of {user_id} for two minutes:"
                " {problem}",
                user_id=user_id,
                problem=problem,
            )

    def _tell_omitted(self, omitted: Omitted[str]) -> None:
        self.log.warn(
            "more: the homeserver may accept old access tokens, {count} times: {problem}",
            count=omitted.lines,
            problem=omitted.source or "it is not available",
        )
