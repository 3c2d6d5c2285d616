"""Looks at the account of a session that is used: at each refresh, and once an interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from synapse_login_module.accounts.listing import all_sessions
from synapse_login_module.common.coalescing import shield
from synapse_login_module.common.lru import Recent
from synapse_login_module.common.repeats import Omitted, Repeats
from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    LoginNotPermitted,
    PasswordExpired,
    ProviderUnavailable,
    UnknownToken,
)
from synapse_login_module.interfaces import IAccounts, ITokenStore
from synapse_login_module.model import AccountStatus, Link, SessionInfo, require_active

T = TypeVar("T")

_REMEMBERED = 20_000
_LONGEST_RETRY = 60.0

_log = Logger()


class _Look(NamedTuple):
    """The result of the last look at an account.

    :param good_until: when the next look is due, on the reactor's clock, in seconds.
    :param is_locked: whether the account was locked.
    :param seen: the link and the version of its provider's accounts that the account was active in.
    """

    good_until: float
    is_locked: bool
    seen: tuple[Link, object] | None = None


def no_version(provider: str) -> None:
    """Return that the accounts of a provider have no version."""


class AccountLooks:
    """Looks at the accounts of sessions that are used, and revokes those of accounts that are gone.

    A look goes on after the timeout of its request, and after the client has disconnected.
    Concurrent looks at one account share one request to its provider; see
    :class:`~synapse_login_module.providers.wrappers.guard.GuardedProvider`.

    :param accounts: the accounts, which know their status.
    :param store: the token store of the sessions.
    :param timeout: how many seconds a request waits for its look.
    :param interval: how many seconds a look is good for. A refresh needs a new look, unless
        ``version_of`` tells that it would see the same.
    :param clock: a monotonic clock, which also schedules timeouts and the summaries in the log.
    :param end_all: ends all sessions of a user whose account is gone; by default the store does.
    :param version_of: returns the version of a provider's accounts, by the provider's name; see
        :class:`~synapse_login_module.interfaces.IWatchedAccounts`. While it stays the same, an
        active account is looked at once an interval. ``None``: a provider has to be asked each
        time.
    """

    def __init__(
        self,
        accounts: IAccounts,
        store: ITokenStore,
        timeout: float,
        interval: float,
        clock: IReactorTime,
        end_all: Callable[[str], Deferred[int]] | None = None,
        version_of: Callable[[str], object] = no_version,
    ) -> None:
        self._accounts = accounts
        self._store = store
        self._end_all = end_all or store.revoke_all
        self._version_of = version_of
        self._timeout = timeout
        self._interval = interval
        self._clock = clock
        self._looks: Recent[str, _Look] = Recent(_REMEMBERED)
        self._unchecked: Repeats[str] = Repeats(clock.seconds, _tell_unchecked, clock.callLater)

    def saw_active(self, user_id: str) -> None:
        """Remember that an account is active, as a login or a look has just shown."""
        self._remember(user_id, self._interval)

    def saw_lock(self, user_id: str, locked: bool) -> None:
        """Note that an account was locked or unlocked, and look at it when it is next used."""
        self._remember(user_id, 0.0, is_locked=locked)

    async def look_if_due(self, session: SessionInfo) -> None:
        """Look at the account again if the last look is too old or found the account locked.

        While the provider is unavailable, an account that was locked stays locked, and any other
        session goes on. Fails as :meth:`look_again` does.
        """
        last = self._looks.get(session.user_id)
        if last is not None and not last.is_locked and self._clock.seconds() < last.good_until:
            return
        if not await self.look_again(session) and last is not None and last.is_locked:
            raise AccountLocked

    async def look_again(self, session: SessionInfo) -> bool:
        """Look whether the session's account is still active.

        While the provider is unavailable, or does not answer in time, the session goes on: an
        outage of the provider must not end sessions. The look goes on too, because a provider may
        need longer to fail over to another server. Its result counts when it comes.

        :return: whether the provider answered in time.
        :raise UnknownToken: when the account is gone and its sessions are revoked, or when the
            session had ended before.
        :raise AccountLocked: when the account is locked.
        :raise StoreUnavailable: when the token store is unavailable.
        """
        seen = self._seen_now(session.link)
        if seen is not None:
            last = self._looks.get(session.user_id)
            if last and last.seen == seen and self._clock.seconds() < last.good_until:
                return True
        asked = self._accounts.account_status(session.user_id, session.link)
        try:
            if asked.called and not asked.paused:  # as from a file: nothing is waited for
                status = await asked
                if status is AccountStatus.ACTIVE:
                    self._remember(session.user_id, self._interval, seen=seen)
                    return True
                asked = succeed(status)
            await self._wait_for(asked, session)
        except ProviderUnavailable as error:
            if self._unchecked.is_written("", session.user_id):
                _log.warn(
                    "{user_id} goes on unchecked: {problem}",
                    user_id=session.user_id,
                    problem=str(error),
                )
            # During an outage, not every request should wait for the timeout.
            last = self._looks.get(session.user_id)
            retry = min(_LONGEST_RETRY, self._interval)
            self._remember(session.user_id, retry, is_locked=last is not None and last.is_locked)
            return False
        return True

    async def _wait_for(self, asked: Deferred[AccountStatus | None], session: SessionInfo) -> None:
        """Wait for a status until the timeout, and act on it whenever it comes."""
        is_answered = False

        async def act() -> None:
            # A coroutine keeps the context variables of the request, by which Synapse's log knows
            # it; a callback would run in those of what answers.
            nonlocal is_answered
            status = await asked
            is_answered = True
            await self._enforce(session, status)

        def time_out() -> None:
            # A status counts once it is known, however long the store takes to act on it.
            if not is_answered:
                problem = f"no account status within {self._timeout:g} seconds"
                look.errback(ProviderUnavailable(problem))

        look = shield(Deferred.fromCoroutine(act()))
        look.addBoth(_stop, self._clock.callLater(self._timeout, time_out))
        await look

    def _seen_now(self, link: Link | None) -> tuple[Link, object] | None:
        """Return what an active account is seen in now; ``None`` if only its provider can tell."""
        if link is None:
            return None
        version = self._version_of(link.provider)
        return None if version is None else (link, version)

    def _remember(
        self,
        user_id: str,
        seconds: float,
        *,
        is_locked: bool = False,
        seen: tuple[Link, object] | None = None,
    ) -> None:
        self._looks.remember(user_id, _Look(self._clock.seconds() + seconds, is_locked, seen))

    async def _enforce(self, session: SessionInfo, status: AccountStatus | None) -> None:
        """Raise unless the account's sessions go on. Revoke them all if it is gone."""
        try:
            require_active(status)
        except (AccountDeactivated, AccountLocked) as error:
            # The session may come from a cache and have ended since. Then the user ID may be linked
            # to another account by now, whose sessions are not to be revoked.
            living = await all_sessions(self._store, session.user_id)
            if session.handle not in [each.handle for each in living]:
                if isinstance(error, AccountLocked):
                    return  # the store rejects a refresh of a session that has ended
                raise UnknownToken from None
            if isinstance(error, AccountLocked):
                self._remember(session.user_id, self._interval, is_locked=True)
                raise
            await self._end_all(session.user_id)
            raise UnknownToken from None
        except (PasswordExpired, LoginNotPermitted):
            pass  # no session may begin now, and those that have begun go on
        self.saw_active(session.user_id)


def _stop(result: T, timer: IDelayedCall) -> T:
    if timer.active():
        timer.cancel()
    return result


def _tell_unchecked(omitted: Omitted[str]) -> None:
    _log.warn(
        "more: {user_id} went on unchecked {count} times",
        user_id=omitted.source or "*",
        count=omitted.lines,
    )
