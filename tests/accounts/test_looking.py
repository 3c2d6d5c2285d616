"""Tests for looking at the accounts of sessions that are used."""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.accounts.looking import AccountLooks
from synapse_login_module.errors import (
    AccountLocked,
    ExpiredToken,
    ProviderUnavailable,
    ReusedToken,
    UnknownToken,
)
from synapse_login_module.interfaces import IAccounts
from synapse_login_module.model import AccountStatus, Link, SessionInfo, TokenPolicy
from synapse_login_module.stores import MemoryTokenStore

ALICE = "@alice:example.com"
TIMEOUT, INTERVAL = 3.0, 900.0


class Statuses:
    """Accounts of which nothing but the status is asked."""

    def __init__(self) -> None:
        self.answer: AccountStatus | ProviderUnavailable | Deferred[AccountStatus | None] | None
        self.answer = AccountStatus.ACTIVE
        self.asked = 0

    def account_status(self, user_id: str, link: Link | None) -> Deferred[AccountStatus | None]:
        self.asked += 1
        if isinstance(self.answer, Deferred):
            return self.answer
        if isinstance(self.answer, ProviderUnavailable):
            return fail(self.answer)
        answer: Deferred[AccountStatus | None] = Deferred()
        answer.callback(self.answer)
        return answer


class LookIfDueTests(SynchronousTestCase):
    """A session is used, other than by a refresh."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.statuses = Statuses()
        self.store = MemoryTokenStore(
            None, testing.environment(clock=self.clock, policy=TokenPolicy(reuse_interval=0))
        )
        accounts: IAccounts = self.statuses  # type: ignore[assignment]
        self.looks = AccountLooks(accounts, self.store, TIMEOUT, INTERVAL, self.clock)
        self.login = self.successResultOf(self.store.issue(ALICE, "PHONE", None, True, True))
        self.session = self.session_for_access_token()

    def session_for_access_token(self) -> SessionInfo:
        return self.successResultOf(
            self.store.session_for_access_token(self.login.tokens.access_token, False)
        )

    def use(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.looks.look_if_due(self.session))

    def refresh(self) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.looks.look_again(self.session))

    def test_interval(self) -> None:
        """It is looked at when the last look is older than the interval, and not before."""
        for asked in (1, 2):
            self.successResultOf(self.use())
            self.clock.advance(INTERVAL - 1)
            self.successResultOf(self.use())
            self.assertEqual(self.statuses.asked, asked)
            self.clock.advance(1)

    def test_login_and_refresh(self) -> None:
        """A login and a refresh are looks too; a refresh always looks."""
        self.looks.saw_active(ALICE)
        self.successResultOf(self.use())
        self.assertEqual(self.statuses.asked, 0)
        self.clock.advance(INTERVAL)
        self.successResultOf(self.refresh())
        self.successResultOf(self.refresh())
        self.successResultOf(self.use())
        self.assertEqual(self.statuses.asked, 2)

    def test_lock_that_is_seen_elsewhere(self) -> None:
        """A lock that the sweep saw counts at the next use, and the end of the lock too."""
        self.looks.saw_active(ALICE)
        self.statuses.answer = AccountStatus.LOCKED
        self.looks.saw_lock(ALICE, True)
        self.failureResultOf(self.use(), AccountLocked)
        self.statuses.answer = AccountStatus.ACTIVE
        self.looks.saw_lock(ALICE, False)
        self.successResultOf(self.use())

    def watch(self) -> None:
        """Give the accounts a version, and the session a link to one of them."""
        self.version: object = 1
        accounts: IAccounts = self.statuses  # type: ignore[assignment]
        self.looks = AccountLooks(
            *(accounts, self.store, TIMEOUT, INTERVAL, self.clock), version_of=self.version_of
        )
        self.session = self.session._replace(link=Link(ALICE, "file", "alice"))

    def version_of(self, provider: str) -> object:
        self.assertEqual(provider, "file")
        return self.version

    def test_same_version(self) -> None:
        """An active account is asked about again when the version of the accounts has changed."""
        self.watch()
        for version in (1, 2, 1):
            self.version = version
            for _ in range(3):
                self.successResultOf(self.refresh())
        self.assertEqual(self.statuses.asked, 3)

    def test_same_version_for_long(self) -> None:
        """Whatever the version, an account is asked about again once the interval is over."""
        self.watch()
        self.successResultOf(self.refresh())
        self.clock.advance(INTERVAL - 1)
        self.successResultOf(self.refresh())
        self.assertEqual(self.statuses.asked, 1)
        self.statuses.answer = AccountStatus.LOCKED
        self.clock.advance(1)
        self.failureResultOf(self.refresh(), AccountLocked)

    def test_no_version(self) -> None:
        """Without a version, as of a file that is missing, each refresh asks."""
        self.watch()
        self.version = None
        self.successResultOf(self.refresh())
        self.successResultOf(self.refresh())
        self.assertEqual(self.statuses.asked, 2)

    def test_other_link(self) -> None:
        """What was seen of one account does not count for another that the user is linked to."""
        self.watch()
        self.successResultOf(self.refresh())
        self.session = self.session._replace(link=Link(ALICE, "file", "bob"))
        self.successResultOf(self.refresh())
        self.assertEqual(self.statuses.asked, 2)

    def test_version_of_a_lock(self) -> None:
        """A lock is looked at again each time, whatever the version, as one that was told."""
        self.watch()
        self.successResultOf(self.refresh())
        self.statuses.answer = AccountStatus.LOCKED
        self.looks.saw_lock(ALICE, True)
        for _ in range(2):
            self.failureResultOf(self.refresh(), AccountLocked)
        self.assertEqual(self.statuses.asked, 3)

    def test_version_before_the_question(self) -> None:
        """A version that comes while an account is asked about is not the one that was seen."""
        self.watch()
        answer = self.statuses.answer

        def asked(user_id: str, link: Link | None) -> Deferred[Any]:
            self.version = 2
            return succeed(answer)

        self.patch(self.statuses, "account_status", asked)
        self.successResultOf(self.refresh())
        self.patch(self.statuses, "account_status", lambda *_: succeed(AccountStatus.LOCKED))
        self.failureResultOf(self.refresh(), AccountLocked)

    def test_no_new_sessions(self) -> None:
        """Where an account may only begin no session now, those that it has go on."""
        for answer in (AccountStatus.PASSWORD_EXPIRED, AccountStatus.NOT_PERMITTED):
            self.statuses.answer = answer
            self.assertTrue(self.successResultOf(self.refresh()))
            self.successResultOf(self.use())

    def test_context(self) -> None:
        """What follows an answer runs in the context of the request, by which its log is known."""
        request: ContextVar[str] = ContextVar("request", default="none")
        seen: list[str] = []
        sessions = self.store.sessions

        def watched(*given: Any) -> Deferred[list[SessionInfo]]:
            seen.append(request.get())
            return sessions(*given)

        self.patch(self.store, "sessions", watched)
        answer: Deferred[AccountStatus | None] = Deferred()
        self.statuses.answer = answer
        context = copy_context()
        context.run(request.set, "of a client")
        looking = context.run(self.refresh)
        answer.callback(None)
        self.failureResultOf(looking, UnknownToken)
        self.assertEqual(seen, ["of a client"])

    def test_gone(self) -> None:
        """Who is gone or deactivated loses all sessions, those of other devices too."""
        token = self.login.tokens.refresh_token
        assert token is not None
        for answer in (None, AccountStatus.DEACTIVATED):
            self.statuses.answer = answer
            other = self.successResultOf(self.store.issue(ALICE, "TABLET", None, True, True))
            self.successResultOf(testing.refresh(self.store, token, None, True))
            self.failureResultOf(self.use(), UnknownToken)
            for each in (self.login, other):
                looked = self.store.session_for_access_token(each.tokens.access_token, True)
                self.failureResultOf(looked, UnknownToken)
            self.setUp()
            token = self.login.tokens.refresh_token
            assert token is not None

    def test_locked(self) -> None:
        """Who is locked is told so at each use, until that is over, and keeps the session."""
        self.statuses.answer = AccountStatus.LOCKED
        for _ in range(3):
            self.failureResultOf(self.use(), AccountLocked)
        self.statuses.answer = AccountStatus.ACTIVE
        self.successResultOf(self.use())
        self.successResultOf(self.use())
        self.assertEqual(self.statuses.asked, 4)
        self.session_for_access_token()

    def test_locked_session_that_is_over(self) -> None:
        """What has ended is refused as that, so that its client is not told to wait."""
        token = self.login.tokens.refresh_token
        assert token is not None
        self.successResultOf(testing.refresh(self.store, token, None, True))
        self.failureResultOf(testing.refresh(self.store, token, None, True), ReusedToken)
        self.statuses.answer = AccountStatus.LOCKED
        self.successResultOf(self.refresh())
        looked = self.store.session_for_access_token(self.login.tokens.access_token, True)
        self.failureResultOf(looked, ExpiredToken)

    def test_outage(self) -> None:
        """A provider that cannot say ends nothing, and is not asked at each use meanwhile."""
        self.statuses.answer = ProviderUnavailable("away")
        for _ in range(3):
            self.successResultOf(self.use())
        self.assertEqual(self.statuses.asked, 1)
        self.clock.advance(60)
        self.statuses.answer = None
        self.failureResultOf(self.use(), UnknownToken)

    def test_lines_of_an_outage(self) -> None:
        """Endless refreshes during an outage write few lines to the log."""
        self.statuses.answer = ProviderUnavailable("away")
        with capturedLogs() as events:
            for _ in range(100):
                self.assertFalse(self.successResultOf(self.refresh()))
            self.clock.advance(60)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(lines[:10], [f"{ALICE} goes on unchecked: away"] * 10)
        self.assertEqual(lines[10:], [f"more: {ALICE} went on unchecked 90 times"])

    def test_outage_while_locked(self) -> None:
        """Who was locked stays so while the provider cannot say."""
        self.statuses.answer = AccountStatus.LOCKED
        self.failureResultOf(self.use(), AccountLocked)
        self.statuses.answer = ProviderUnavailable("away")
        for _ in range(2):
            self.failureResultOf(self.use(), AccountLocked)
        self.statuses.answer = AccountStatus.ACTIVE
        self.successResultOf(self.use())

    def test_slow(self) -> None:
        """It is waited for no longer than the timeout; an answer that comes later still counts."""
        slow: Deferred[AccountStatus | None] = Deferred()
        self.statuses.answer = slow
        used = self.use()
        self.clock.advance(TIMEOUT - 0.1)
        self.assertNoResult(used)
        self.clock.advance(0.1)
        self.successResultOf(used)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        slow.callback(None)
        looked = self.store.session_for_access_token(self.login.tokens.access_token, True)
        self.failureResultOf(looked, UnknownToken)

    def test_client_goes_away(self) -> None:
        """So does an answer for a client that has gone away meanwhile."""
        slow: Deferred[AccountStatus | None] = Deferred()
        self.statuses.answer = slow
        used = self.use()
        used.cancel()
        self.failureResultOf(used, CancelledError)
        slow.callback(None)
        looked = self.store.session_for_access_token(self.login.tokens.access_token, True)
        self.failureResultOf(looked, UnknownToken)

    def hold_sessions(self) -> Deferred[None]:
        """Have the store list sessions only when this fires."""
        held: Deferred[None] = Deferred()
        listed = self.store.sessions
        self.patch(
            self.store, "sessions", lambda *given: held.addCallback(lambda _: listed(*given))
        )
        return held

    def test_slow_store(self) -> None:
        """An account that is gone or locked gets no tokens because the store is slow to act."""
        for answer, error in (
            (None, UnknownToken),
            (AccountStatus.DEACTIVATED, UnknownToken),
            (AccountStatus.LOCKED, AccountLocked),
        ):
            for late in (False, True):
                held = self.hold_sessions()
                status: Deferred[AccountStatus | None] = Deferred()
                self.statuses.answer = status if late else answer
                used = self.refresh()
                if late:
                    self.clock.advance(TIMEOUT / 2)
                    status.callback(answer)
                self.clock.advance(TIMEOUT)
                self.assertNoResult(used)
                held.callback(None)
                self.failureResultOf(used, error)
                self.assertEqual(self.clock.getDelayedCalls(), [])
                self.setUp()

    def test_client_of_a_slow_store_goes_away(self) -> None:
        """The sessions of an account that is gone end though the client does not wait for it."""
        held = self.hold_sessions()
        self.statuses.answer = None
        used = self.refresh()
        used.cancel()
        self.failureResultOf(used, CancelledError)
        held.callback(None)
        looked = self.store.session_for_access_token(self.login.tokens.access_token, True)
        self.failureResultOf(looked, UnknownToken)
