"""Looking whether the account of a session is still welcome, at each refresh and now and then."""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    ProviderUnavailable,
    UnknownToken,
)
from synapse_login_module.interfaces import IAccounts, ITokenStore
from synapse_login_module.lru import Recent
from synapse_login_module.model import AccountStatus, SessionInfo, require_active
from synapse_login_module.providers.wrappers.coalescing import shield
from synapse_login_module.repeats import Omitted, Repeats

_REMEMBERED = 20_000
_LONGEST_RETRY = 60.0

_log = Logger()


class _Look(NamedTuple):
    """What the last look at an account has shown.

    :param good_until: when the next one is due, in seconds.
    """

    good_until: float
    is_locked: bool


class AccountLooks:
    """Looks at the accounts of sessions that are used.

    No request owns its look, which goes on after the request's timeout, and after its client has
    gone away. Looks at one account at once share one question to its provider; see
    :class:`~synapse_login_module.providers.wrappers.guard.GuardedProvider`.

    :param accounts: who knows them.
    :param store: where their sessions end.
    :param timeout: how many seconds a request waits for an answer.
    :param interval: how many seconds a look is good for, but for a refresh.
    :param clock: a clock that never steps, and who wakes us.
    """

    def __init__(
        self,
        accounts: IAccounts,
        store: ITokenStore,
        timeout: float,
        interval: float,
        clock: IReactorTime,
    ) -> None:
        self._accounts = accounts
        self._store = store
        self._timeout = timeout
        self._interval = interval
        self._clock = clock
        self._looks: Recent[str, _Look] = Recent(_REMEMBERED)
        self._unchecked: Repeats[str] = Repeats(clock.seconds, _tell_unchecked, clock.callLater)

    def saw_active(self, user_id: str) -> None:
        """Count a login, which has just looked at the account."""
        self._remember(user_id, self._interval, is_locked=False)

    async def look_if_due(self, session: SessionInfo) -> None:
        """Look again if the last look is older than the interval, or said that it is locked.

        An account that was locked stays so while no provider can say; all else goes on. Fails as
        :meth:`look_again` does.
        """
        last = self._looks.get(session.user_id)
        if last is not None and not last.is_locked and self._clock.seconds() < last.good_until:
            return
        if not await self.look_again(session) and last is not None and last.is_locked:
            raise AccountLocked

    async def look_again(self, session: SessionInfo) -> bool:
        """Look whether the session's account is still welcome.

        While no provider can say, or none in time, the session goes on: an outage of the directory
        must not end what it once allowed. The look itself goes on, since a provider may need longer
        to learn that a server is down, and to turn to the next. What it shows then counts.

        :return: whether a provider could say. Fails with ``UnknownToken`` when the sessions of the
            account have ended, with ``AccountLocked`` or with ``StoreUnavailable``.
        """
        looking = shield(Deferred.fromCoroutine(self._look(session)))
        try:
            if not looking.called:  # else no timer is needed
                looking.addTimeout(self._timeout, self._clock, _timed_out)
            await looking
        except ProviderUnavailable as error:
            if self._unchecked.is_written("", session.user_id):
                _log.warn(
                    "{user_id} goes on unchecked: {problem}",
                    user_id=session.user_id,
                    problem=str(error),
                )
            # Nobody is to wait for it at each request while it lasts.
            last = self._looks.get(session.user_id)
            retry = min(_LONGEST_RETRY, self._interval)
            self._remember(session.user_id, retry, last is not None and last.is_locked)
            return False
        return True

    async def _look(self, session: SessionInfo) -> None:
        """Look at the account and act on the answer, however long it takes."""
        status = await self._accounts.account_status(session.user_id, session.link)
        await self._require_welcome(session, status)

    def _remember(self, user_id: str, seconds: float, is_locked: bool) -> None:
        self._looks.remember(user_id, _Look(self._clock.seconds() + seconds, is_locked))

    async def _require_welcome(self, session: SessionInfo, status: AccountStatus | None) -> None:
        """Fail unless the account is active; end all its sessions if there is none any more."""
        try:
            require_active(status)
        except (AccountDeactivated, AccountLocked) as error:
            # Whose session it is may be remembered from before it ended, and the user ID may be
            # linked to somebody else by now.
            living = await self._store.sessions(session.user_id)
            if session.handle not in [each.handle for each in living]:
                if isinstance(error, AccountLocked):
                    return  # what has ended is refused as that
                raise UnknownToken from None
            if isinstance(error, AccountLocked):
                self._remember(session.user_id, self._interval, is_locked=True)
                raise
            await self._store.revoke_all(session.user_id)
            raise UnknownToken from None
        self.saw_active(session.user_id)


def _timed_out(_: object, seconds: float) -> Failure:
    return Failure(ProviderUnavailable(f"no account status within {seconds:g} seconds"))


def _tell_unchecked(omitted: Omitted[str]) -> None:
    _log.warn(
        "more: {user_id} went on unchecked {count} times",
        user_id=omitted.source or "*",
        count=omitted.lines,
    )
