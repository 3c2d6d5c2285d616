"""Tests for logging in, refreshing and logging out."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from synapse_login_module import testing
from synapse_login_module.accounts.linked import LinkedAccounts
from synapse_login_module.accounts.looking import AccountLooks
from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import (
    AccountDeactivated,
    AccountLocked,
    AccountNotLinked,
    AccountRefused,
    ExpiredToken,
    HomeserverUnavailable,
    InvalidCredentials,
    LoginNotPermitted,
    Overloaded,
    PasswordExpired,
    ProviderUnavailable,
    RateLimited,
    RefreshRefused,
    ReusedToken,
    ServiceRefused,
    SessionMismatch,
    StoreUnavailable,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.login import LoginService
from synapse_login_module.model import (
    APPLICATION_SERVICE,
    Account,
    AccountStatus,
    Bucket,
    Claim,
    Client,
    EmailIdentifier,
    Identifier,
    Link,
    Login,
    LoginRequest,
    LoginToken,
    PasswordLogin,
    PhoneIdentifier,
    PresentedToken,
    Rate,
    ServiceLogin,
    SessionInfo,
    TokenLogin,
    TokenPair,
    TokenPolicy,
    UserId,
    UserIdentifier,
)
from synapse_login_module.passwords import hash_password
from synapse_login_module.providers.files.bcrypt import BcryptProvider
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.stores import MemoryTokenStore
from tests.support.delegation import DelegatedStore, FakeHost

ALICE, BOB = "@alice:example.com", "@bob:example.com"
PUPPET = "@_irc_alice:example.com"
RATE = Rate(0.001, 10)
HOME = Client("192.0.2.1", "192.0.2.1")
AWAY = Client("198.51.100.7", "198.51.100.7")


class WatchedProvider(testing.FakeProvider):
    """A fake provider that records its calls, and can delay its results.

    :ivar waiting: if set, the Deferred that every password check returns.
    :ivar tells_status: whether accounts come with their status.
    """

    def __init__(self, journal: list[str], passwords: dict[str, str]) -> None:
        super().__init__(passwords)
        self.journal = journal
        self.waiting: Deferred[Account | None] | None = None
        self.status_failure: Exception | None = None
        self.tells_status = True

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Record the call, and check the password or wait."""
        self.journal.append("authenticate")
        if self.waiting is not None:
            return self.waiting
        asked = super().authenticate(identifier, password)
        if self.tells_status:
            return asked
        return asked.addCallback(lambda account: account and replace(account, status=None))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Record the call, and look at the account."""
        self.journal.append("account_status")
        if self.status_failure is not None:
            return fail(self.status_failure)
        return super().account_status(subject)


class WatchedStore(MemoryTokenStore):
    """A store that records its calls, and can fail.

    :ivar failures: the errors to fail with, by the name of the method.
    """

    def __init__(self, journal: list[str], clock: Clock, policy: TokenPolicy) -> None:
        super().__init__(None, testing.environment(clock=clock, policy=policy))
        self.journal = journal
        self.failures: dict[str, Exception] = {}

    def note(self, name: str) -> Deferred[Any] | None:
        """Record a call; returns a failure if the method is to fail."""
        self.journal.append(name)
        return fail(self.failures[name]) if name in self.failures else None

    def issue(self, *arguments: Any, **keywords: Any) -> Deferred[Login]:
        """Begin a session."""
        return self.note("issue") or super().issue(*arguments, **keywords)

    def present(self, refresh_token: str) -> Deferred[PresentedToken]:
        """Find the session of a refresh token."""
        return self.note("present") or super().present(refresh_token)

    def refresh(
        self, presented: PresentedToken, access_token: str | None, strict: bool
    ) -> Deferred[TokenPair]:
        """Exchange a refresh token."""
        return self.note("refresh") or super().refresh(presented, access_token, strict)

    def revoke(self, session: SessionInfo) -> Deferred[None]:
        """End a session."""
        return self.note("revoke") or super().revoke(session)

    def revoke_all(self, user_id: str, device_grace: int = 0) -> Deferred[int]:
        """End all sessions of a user."""
        return self.note("revoke_all") or super().revoke_all(user_id)

    def login_token_owner(self, token: str) -> Deferred[str]:
        """Find the user of a login token."""
        return self.note("login_token_owner") or super().login_token_owner(token)

    def make_login_token(self, user_id: str) -> Deferred[LoginToken]:
        """Make a login token."""
        return self.note("make_login_token") or super().make_login_token(user_id)

    def ping(self) -> Deferred[None]:
        """Do nothing."""
        return self.note("ping") or super().ping()


class WatchedHashing(testing.FakeHashing):
    """Hashing that records its calls."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__()
        self.journal = journal

    def check(
        self, password: str, password_hash: str, pepper: str, normalize: bool | None = None
    ) -> Deferred[bool]:
        """Record the call, and check."""
        self.journal.append("check")
        return super().check(password, password_hash, pepper, normalize)

    def decoy(self, password: str) -> Deferred[None]:
        """Record the call, and hash a decoy."""
        self.journal.append("decoy")
        return super().decoy(password)


@implementer(IRateLimits)
class WatchedCounts:
    """Rate limits that record their calls, and never reject."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal

    def consume(
        self,
        wanted: Sequence[Bucket],
        required: Sequence[Bucket] = (),
        refunded: Sequence[Bucket] = (),
    ) -> Deferred[None]:
        """Record the call."""
        self.journal.append(f"consume {len(wanted)}, {len(required)} required")
        return succeed(None)

    def waits(self, buckets: Sequence[Bucket]) -> Deferred[list[float]]:
        """Tell that no bucket refuses."""
        return succeed([0.0 for _ in buckets])

    def refund(self, consumed: Sequence[Bucket]) -> Deferred[None]:
        """Record the call."""
        if consumed:
            self.journal.append(f"refund {len(consumed)}")
        return succeed(None)


def password_request(
    user: str = "alice", password: str = "wonderland", server: str = "example.com", **more: Any
) -> LoginRequest:
    """A login with a password."""
    identifier = UserIdentifier(UserId(user, server))
    return LoginRequest(PasswordLogin(identifier, password), **more)


def token_request(token: str) -> LoginRequest:
    """A login with a login token."""
    return LoginRequest(TokenLogin(token))


class LoginServiceTestCase(SynchronousTestCase):
    """A login service on fakes, with the accounts alice and bob."""

    def setUp(self) -> None:
        self.journal: list[str] = []
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.hashing = WatchedHashing(self.journal)
        self.fake = WatchedProvider(self.journal, {ALICE: "wonderland", BOB: "builder"})
        self.provider = ProviderChain([self.fake], self.hashing)
        self.store = WatchedStore(self.journal, self.clock, TokenPolicy(refresh_token=3_600_000))
        self.audit = AuditLog()
        self.service = self.make_service()

    def make_service(
        self,
        address: int | None = None,
        account: int | None = None,
        failures: int | None = None,
        always_refresh_token: bool = True,
    ) -> LoginService:
        """Make a service with these bursts. Each bucket refills by one in a thousand seconds."""

        def rate(burst: int | None) -> Rate | None:
            return None if burst is None else Rate(0.001, burst)

        self.audit.counts.clear()
        accounts = LinkedAccounts(self.provider, self.store)
        return LoginService(
            accounts=accounts,
            store=self.store,
            hashing=self.hashing,
            limits=LoginLimits(rate(address), rate(account), rate(failures), self.clock.seconds),
            audit=self.audit,
            always_refresh_token=always_refresh_token,
            looks=AccountLooks(accounts, self.store, 3.0, 900.0, self.clock),
        )

    def logging_in(
        self, request: LoginRequest | None = None, client: Client = HOME
    ) -> Deferred[Login]:
        """Start a login."""
        return Deferred.fromCoroutine(self.service.login(request or password_request(), client))

    def log_in(self, request: LoginRequest | None = None, client: Client = HOME) -> Login:
        """Log in, successfully."""
        return self.successResultOf(self.logging_in(request, client))

    def fail_login(
        self, error: type[Exception], request: LoginRequest | None = None, client: Client = HOME
    ) -> Exception:
        """Log in; the login has to fail with this error."""
        return self.failure(self.logging_in(request, client), error)

    def failure(
        self, asked: Deferred[Any] | Coroutine[Any, Any, Any], error: type[Exception]
    ) -> Exception:
        """Return the error that this has failed with, which has to be of this very class."""
        value = self.failureResultOf(asked, error).value
        assert isinstance(value, Exception)
        self.assertIs(type(value), error)
        return value

    def refresh(
        self, pair: TokenPair, strict: bool = False, accompanied: bool = True, client: Client = HOME
    ) -> Deferred[TokenPair]:
        """Refresh with the refresh token of a pair."""
        assert pair.refresh_token is not None
        access_token = pair.access_token if accompanied and strict else None
        return Deferred.fromCoroutine(
            self.service.refresh(pair.refresh_token, access_token, strict, client)
        )

    def login_token(self, user_id: str = ALICE) -> str:
        """Make a valid login token."""
        return self.successResultOf(self.store.make_login_token(user_id)).token

    def sessions(self) -> int:
        """Count the sessions."""
        return len(self.successResultOf(self.store.sessions(None)))

    def counted(self) -> dict[tuple[str, str, str], int]:
        """Return the counts of the audit log since the service was made."""
        return dict(self.audit.counts)


class LoginTests(LoginServiceTestCase):
    """Logins that succeed."""

    def test_password(self) -> None:
        """The right password begins a session on a new device."""
        login = self.log_in()
        self.assertEqual(login.user_id, ALICE)
        session = self.successResultOf(self.service.whoami(login.tokens.access_token))
        self.assertEqual((session.user_id, session.device_id), (ALICE, login.device_id))

    def test_order(self) -> None:
        """The password is checked first, then the session begins. In between, the status is asked
        for if it did not come with the account.
        """
        self.log_in()
        self.assertEqual(self.journal, ["authenticate", "issue"])
        self.fake.tells_status = False
        self.journal.clear()
        self.log_in()
        self.assertEqual(self.journal, ["authenticate", "account_status", "issue"])

    def test_status_known(self) -> None:
        """If the status came with the account, it is not asked for again."""
        for status, error in (
            (AccountStatus.ACTIVE, None),
            (AccountStatus.LOCKED, AccountLocked),
            (AccountStatus.DEACTIVATED, AccountDeactivated),
            (AccountStatus.PASSWORD_EXPIRED, PasswordExpired),
            (AccountStatus.NOT_PERMITTED, LoginNotPermitted),
        ):
            self.journal.clear()
            self.fake.waiting = succeed(Account(ALICE, status=status))
            if error is None:
                self.log_in()
                self.assertEqual(self.journal, ["authenticate", "issue"])
            else:
                self.fail_login(error)
                self.assertEqual(self.journal, ["authenticate"])

    def test_device(self) -> None:
        """The client can choose the device ID and the display name."""
        login = self.log_in(password_request(device_id="PHONE", display_name="my phone"))
        self.assertEqual(login.device_id, "PHONE")
        (session,) = self.successResultOf(self.store.sessions(ALICE))
        self.assertEqual((session.device_id, session.display_name), ("PHONE", "my phone"))

    def test_token(self) -> None:
        """A login token logs in its user once, without a password."""
        token = self.login_token()
        self.journal.clear()
        self.assertEqual(self.log_in(token_request(token)).user_id, ALICE)
        self.assertEqual(self.journal, ["login_token_owner", "account_status", "issue"])
        self.fail_login(InvalidCredentials, token_request(token))

    def test_refresh_token_always(self) -> None:
        """By default every login gets a refresh token. Access tokens expire only for clients that
        asked for a refresh token.
        """
        silent = self.log_in().tokens
        asked = self.log_in(password_request(wants_refresh_token=True)).tokens
        self.assertIsNotNone(silent.refresh_token)
        self.assertIsNone(silent.expires_in_ms)
        self.assertIsNotNone(asked.refresh_token)
        self.assertEqual(asked.expires_in_ms, 300_000)

    def test_refresh_token_on_request(self) -> None:
        """With the other policy, only clients that ask get a refresh token."""
        self.service = self.make_service(always_refresh_token=False)
        self.assertIsNone(self.log_in().tokens.refresh_token)
        asked = self.log_in(password_request(wants_refresh_token=True)).tokens
        self.assertIsNotNone(asked.refresh_token)
        self.assertEqual(asked.expires_in_ms, 300_000)

    def test_recorded(self) -> None:
        """A login is logged with its user, device and provider."""
        with capturedLogs() as events:
            login = self.log_in()
        (event,) = events
        self.assertEqual(
            (event["user"], event["device"], event["provider"], event["address"]),
            (ALICE, login.device_id, "fake", HOME.address),
        )
        self.log_in(token_request(self.login_token()))
        self.assertEqual(
            self.counted(), {("login", "ok", "password"): 1, ("login", "ok", "token"): 1}
        )


class RefusedLoginTests(LoginServiceTestCase):
    """Logins that fail because of the client."""

    def test_one_answer(self) -> None:
        """A wrong password, an unknown user, a user of another server and a bad login token raise
        the same error, and no session begins.
        """
        used = self.login_token()
        self.log_in(token_request(used))
        for request, reason in (
            (password_request(password="looking-glass"), "wrong_password"),
            (password_request("nobody"), "unknown_user"),
            (password_request(server="elsewhere.example"), "unknown_user"),
            (token_request("nonsense"), "login_token"),
            (token_request(used), "login_token"),
        ):
            self.service = self.make_service()
            error = self.fail_login(InvalidCredentials, request)
            assert isinstance(error, InvalidCredentials)
            self.assertEqual(error.reason, reason)
            self.assertEqual(self.counted(), {("login", "refused", reason): 1})
        self.assertEqual(self.sessions(), 1)

    def test_one_time(self) -> None:
        """Each of these four hashes exactly one password."""
        config = BcryptProvider.parse_config(
            {"users": {"alice": {"password_hash": hash_password("wonderland", "", 4)}}}, Path()
        )
        environment = replace(testing.environment(clock=self.clock), hashing=self.hashing)
        self.provider = ProviderChain(
            [BcryptProvider(config, environment), self.fake], self.hashing
        )
        self.service = self.make_service()
        for request in (
            password_request(password="looking-glass"),
            password_request("nobody"),
            password_request("alice", server="elsewhere.example"),
            token_request("nonsense"),
        ):
            self.journal.clear()
            self.fail_login(InvalidCredentials, request)
            hashed = [each for each in self.journal if each in ("check", "decoy")]
            self.assertEqual(len(hashed), 1, request)

    def test_counted_alike(self) -> None:
        """The calls to shared rate limits do not depend on whether the account exists, because
        their duration could show it.
        """
        self.service = replace(
            self.service,
            limits=LoginLimits(
                RATE, RATE, RATE, self.clock.seconds, shared=WatchedCounts(self.journal)
            ),
        )
        asked = []
        for request in (
            password_request(password="looking-glass"),
            password_request("nobody"),
            password_request(server="elsewhere.example"),
        ):
            self.journal.clear()
            self.fail_login(InvalidCredentials, request)
            asked.append([each for each in self.journal if each.startswith(("consume", "refund"))])
        self.assertEqual(asked, [["consume 5, 0 required", "consume 3, 0 required"]] * 3)

    def test_expired_login_token(self) -> None:
        """An expired login token is rejected."""
        token = self.login_token()
        self.clock.advance(120)
        self.fail_login(InvalidCredentials, token_request(token))
        self.assertEqual(self.hashing.decoys, [""])

    def test_deactivated(self) -> None:
        """Only the right password shows that an account is deactivated."""
        self.fake.statuses[ALICE] = AccountStatus.DEACTIVATED
        self.fail_login(AccountDeactivated)
        self.assertEqual(self.counted(), {("login", "refused", "deactivated"): 1})
        self.fail_login(InvalidCredentials, password_request(password="looking-glass"))
        self.assertEqual(self.sessions(), 0)

    def test_locked(self) -> None:
        """Only the right password shows that an account is locked. Its sessions are kept."""
        self.log_in()
        self.fake.statuses[ALICE] = AccountStatus.LOCKED
        self.service = self.make_service()
        self.fail_login(AccountLocked)
        self.assertEqual(self.counted(), {("login", "refused", "locked"): 1})
        self.fail_login(InvalidCredentials, password_request(password="looking-glass"))
        self.assertEqual(self.sessions(), 1)

    def test_status_of_a_login_tokens_user(self) -> None:
        """A login token does not work for an account that is locked, deactivated or gone."""
        for status, error in (
            (AccountStatus.LOCKED, AccountLocked),
            (AccountStatus.DEACTIVATED, AccountDeactivated),
        ):
            self.fake.statuses[ALICE] = status
            self.fail_login(error, token_request(self.login_token()))
        token = self.login_token()
        del self.fake.passwords[ALICE]
        self.fail_login(AccountDeactivated, token_request(token))
        self.assertEqual(self.sessions(), 0)

    def test_recorded_as_given(self) -> None:
        """A rejected login is logged with the name that the client sent."""
        with capturedLogs() as events:
            self.fail_login(InvalidCredentials, password_request("NoBody"))
        (event,) = events
        self.assertEqual(event["user"], "@nobody:example.com")
        self.assertEqual(event["log_level"], LogLevel.info)


class LoginTokenTests(LoginServiceTestCase):
    """Login tokens, and logins with them that fail."""

    def test_kept(self) -> None:
        """A login that fails for another reason than its token leaves the token valid."""
        token = self.login_token()
        self.service = self.make_service(account=1)
        self.log_in()
        self.fail_login(RateLimited, token_request(token))
        self.service = self.make_service()
        self.fake.status_failure = ProviderUnavailable("down")
        self.fail_login(ProviderUnavailable, token_request(token))
        self.fake.status_failure = None
        self.fake.statuses[ALICE] = AccountStatus.LOCKED
        self.fail_login(AccountLocked, token_request(token))
        del self.fake.statuses[ALICE]
        self.store.failures["issue"] = StoreUnavailable("down")
        self.fail_login(StoreUnavailable, token_request(token))
        self.store.failures.clear()
        self.log_in(token_request(token))
        self.fail_login(InvalidCredentials, token_request(token))
        self.assertEqual(self.sessions(), 2)

    def test_race(self) -> None:
        """Of two concurrent logins with one token, one begins a session. The other is rejected
        after the usual time.
        """
        token = self.login_token()
        held: list[Deferred[AccountStatus | None]] = [Deferred(), Deferred()]
        waiting = iter(held)
        self.patch(self.fake, "account_status", lambda _: next(waiting))
        racing = [self.logging_in(token_request(token)) for _ in range(2)]
        for each in held:
            each.callback(AccountStatus.ACTIVE)
        self.successResultOf(racing[0])
        self.failure(racing[1], InvalidCredentials)
        self.assertEqual((self.sessions(), self.hashing.decoys), (1, [""]))


class ManyNamesTests(LoginServiceTestCase):
    """Wrong passwords for an account that has an e-mail address and a telephone number."""

    NAMES: tuple[Identifier, ...] = (
        UserIdentifier(UserId("alice", "example.com")),
        UserIdentifier(UserId("ALICE", "example.com")),
        EmailIdentifier("alice@example.com"),
        PhoneIdentifier("447700900123"),
    )

    def setUp(self) -> None:
        super().setUp()
        self.open(locked=False)

    def open(self, locked: bool) -> None:
        """Make the account, locked or not, and a service with a burst of three failures."""
        alice = {
            "password_hash": hash_password("wonderland", "", 4),
            "emails": ["alice@example.com"],
            "phones": ["447700900123"],
            "locked": locked,
        }
        environment = replace(testing.environment(clock=self.clock), hashing=self.hashing)
        config = BcryptProvider.parse_config({"users": {"alice": alice}}, Path())
        self.provider = ProviderChain([BcryptProvider(config, environment)], self.hashing)
        self.service = self.make_service(failures=3)

    def by(
        self, identifier: Identifier, password: str = "looking-glass", client: Client = HOME
    ) -> Deferred[Login]:
        """Start a login by an identifier."""
        return self.logging_in(LoginRequest(PasswordLogin(identifier, password)), client)

    def test_one_burst(self) -> None:
        """All names of the account share one burst. When it is used up, the right password is
        rejected as a wrong one, by any name that has not used up its own burst.
        """
        for identifier in self.NAMES[:3]:
            self.failure(self.by(identifier), InvalidCredentials)
        for identifier in self.NAMES[1:]:
            self.failure(self.by(identifier, "wonderland"), InvalidCredentials)
        self.assertEqual(
            self.counted(),
            {
                ("login", "refused", "wrong_password"): 3,
                ("login", "refused", "too_many_failures"): 3,
            },
        )
        self.successResultOf(self.by(self.NAMES[3], "wonderland", AWAY))

    def test_not_linked(self) -> None:
        """This also holds for an account that may not log in because it is not linked."""
        authenticate = self.provider.authenticate

        def refuse(account: Account | None) -> Account | None:
            assert account is not None
            raise AccountNotLinked(account.user_id, "it is somebody else's", "links relink")

        def not_linked(identifier: Identifier, password: str) -> Deferred[Account | None]:
            return authenticate(identifier, password).addCallback(refuse)

        self.patch(self.provider, "authenticate", not_linked)
        self.failure(self.by(self.NAMES[0], "wonderland"), AccountNotLinked)
        for identifier in self.NAMES[:3]:
            self.failure(self.by(identifier), InvalidCredentials)
        self.failure(self.by(self.NAMES[3], "wonderland"), InvalidCredentials)

    def test_as_an_unknown_user(self) -> None:
        """Wrong passwords for an account get the same errors as for an unknown user, and hash as
        often.
        """

        def told(names: list[Identifier]) -> list[tuple[type[Exception], int]]:
            answers = []
            for identifier in names * 2:
                self.journal.clear()
                failure = self.failureResultOf(self.by(identifier))
                hashed = sum(each in ("check", "decoy") for each in self.journal)
                answers.append((failure.type, hashed))
            return answers

        unknown: list[Identifier] = [
            UserIdentifier(UserId("nobody", "example.com")),
            UserIdentifier(UserId("NOBODY", "example.com")),
            EmailIdentifier("nobody@example.com"),
            PhoneIdentifier("447700900999"),
        ]
        self.assertEqual(told(list(self.NAMES)), told(unknown))

    def test_status_is_not_told(self) -> None:
        """Then the right password does not show that the account is locked either."""
        self.open(locked=True)
        for identifier in self.NAMES[:3]:
            self.failure(self.by(identifier), InvalidCredentials)
        self.failure(self.by(self.NAMES[3], "wonderland"), InvalidCredentials)

    def test_empty(self) -> None:
        """An empty password is wrong, whatever a provider says; it counts and takes as long."""
        for password in ("", "\0", "\0\0"):
            self.service = self.make_service(failures=1)
            self.fake.passwords[ALICE] = password
            self.journal.clear()
            self.hashing.decoys.clear()
            self.failure(self.by(self.NAMES[0], password), InvalidCredentials)
            self.assertNotIn("authenticate", self.journal)
            self.assertEqual(len(self.hashing.decoys), 1)
            self.failure(self.by(self.NAMES[0], password), RateLimited)
            self.assertEqual(self.audit.counts["login", "refused", "wrong_password"], 1)

    def test_third_partys_provider(self) -> None:
        """If a provider does not name the account of a failure, each name has its own burst."""
        self.provider = ProviderChain([self.fake], self.hashing)
        self.service = self.make_service(failures=1)
        self.fake.failure = InvalidCredentials()
        for identifier in (self.NAMES[0], self.NAMES[2]):
            self.failure(self.by(identifier), InvalidCredentials)
            self.failure(self.by(identifier), RateLimited)

    def test_login_token(self) -> None:
        """Earlier failures do not limit a login token, nor the right password by any name."""
        for _ in range(2):
            self.failure(self.by(self.NAMES[2]), InvalidCredentials)
            self.log_in(token_request(self.login_token()))
            self.successResultOf(self.by(self.NAMES[0], "wonderland"))
        self.failure(self.by(self.NAMES[2]), InvalidCredentials)
        self.failure(self.by(self.NAMES[0], "wonderland"), InvalidCredentials)


class LimitedLoginTests(LoginServiceTestCase):
    """Which logins count against the rate limits."""

    def used_up(self, request: LoginRequest, error: type[Exception], **bursts: Any) -> bool:
        """Return whether a login that fails like this uses up limits of one."""
        self.service = self.make_service(**bursts)
        self.fail_login(error, request)
        self.fake.failure = self.fake.status_failure = self.hashing.failure = None
        self.store.failures.clear()
        deferred = self.logging_in()
        refused: list[bool] = []
        deferred.addCallbacks(
            lambda _: refused.append(False),
            lambda failure: refused.append(bool(failure.check(RateLimited))),
        )
        return refused[0]

    def test_failures_count(self) -> None:
        """A wrong password counts against the account and the address."""
        wrong = password_request(password="looking-glass")
        self.assertTrue(self.used_up(wrong, InvalidCredentials, failures=1))
        self.assertTrue(self.used_up(wrong, InvalidCredentials, address=1))

    def test_unknown_users_count(self) -> None:
        """Unknown users and bad login tokens count against the address."""
        for request in (password_request("nobody"), token_request("nonsense")):
            self.assertTrue(self.used_up(request, InvalidCredentials, address=1))

    def test_however_spelled(self) -> None:
        """A failure counts against the account in any spelling of its name."""
        wrong = password_request("ALICE", "looking-glass")
        self.assertTrue(self.used_up(wrong, InvalidCredentials, failures=1))

    def test_status_is_no_failure(self) -> None:
        """The right password of an account that may not log in is no failed attempt, but an
        attempt from the address.
        """
        self.fake.passwords["@carol:example.com"] = "x"
        for status, error in (
            (AccountStatus.LOCKED, AccountLocked),
            (AccountStatus.DEACTIVATED, AccountDeactivated),
            (AccountStatus.PASSWORD_EXPIRED, PasswordExpired),
            (AccountStatus.NOT_PERMITTED, LoginNotPermitted),
        ):
            self.fake.statuses["@carol:example.com"] = status
            self.service = self.make_service(failures=1)
            for _ in range(20):
                self.fail_login(error, password_request("carol", "x"))
            self.assertTrue(self.used_up(password_request("carol", "x"), error, address=1))

    def test_a_providers_own_status_is_no_failure(self) -> None:
        """The same holds if the provider itself rejects the account after the right password."""
        for error, reason in (
            (AccountLocked(), "locked"),
            (AccountDeactivated(), "deactivated"),
            (AccountRefused(403, "M_CONSENT_NOT_GIVEN", "read the terms"), "homeserver"),
        ):
            self.service = self.make_service(failures=1)
            self.fake.failure = error
            for _ in range(3):
                self.fail_login(type(error))
            self.assertEqual(self.counted(), {("login", "refused", reason): 3})
            self.assertTrue(self.used_up(password_request(), type(error), address=1))

    def test_outages_do_not_count(self) -> None:
        """Errors that are not the client's fault do not count, wherever they occur."""
        for error in (ProviderUnavailable("down"), Overloaded(1.0), ZeroDivisionError()):
            self.fake.failure = error
            self.assertFalse(
                self.used_up(password_request(), type(error), address=1, failures=1, account=1)
            )
        self.fake.failure, self.fake.tells_status = None, False
        self.fake.status_failure = ProviderUnavailable("down")
        self.assertFalse(
            self.used_up(password_request(), ProviderUnavailable, address=1, failures=1, account=1)
        )
        self.fake.status_failure = None
        self.store.failures["issue"] = StoreUnavailable("down")
        self.assertFalse(
            self.used_up(password_request(), StoreUnavailable, address=1, failures=1, account=1)
        )
        self.store.failures["login_token_owner"] = StoreUnavailable("down")
        self.assertFalse(self.used_up(token_request("x"), StoreUnavailable, address=1))
        self.hashing.failure = Overloaded(1.0)
        self.assertFalse(self.used_up(token_request("x"), Overloaded, address=1))

    def test_cancelled_counts(self) -> None:
        """A login whose client disconnects during the password check counts as an attempt."""
        for failures, address in ((1, None), (None, 1)):
            self.service = self.make_service(failures=failures, address=address)
            self.fake.waiting = Deferred()
            hashing = self.logging_in()
            self.assertNoResult(hashing)
            hashing.cancel()
            self.failureResultOf(hashing, CancelledError)
            self.assertEqual(self.counted(), {("login", "failed", "disconnected"): 1})
            self.fake.waiting = None
            self.fail_login(RateLimited)

    def test_attempts_under_way(self) -> None:
        """Attempts under way count as failures until they succeed, so concurrent attempts gain
        nothing.
        """
        self.service = self.make_service(failures=2)
        waiting: Deferred[Account | None] = Deferred()
        self.fake.waiting = waiting
        under_way = [self.logging_in()]
        self.fake.waiting = Deferred()
        under_way.append(self.logging_in())
        self.fail_login(RateLimited)
        waiting.callback(Account(ALICE))
        self.successResultOf(under_way[0])
        self.fake.waiting = None
        self.log_in()

    def test_limited_before_anything_is_asked(self) -> None:
        """A limited attempt hashes nothing, and asks no provider and no store."""
        self.service = self.make_service(failures=1)
        self.fail_login(InvalidCredentials, password_request(password="looking-glass"))
        self.journal.clear()
        self.fail_login(RateLimited)
        self.assertEqual(self.journal, [])
        self.assertEqual(self.counted()["login", "limited", "rate"], 1)

    def test_stranger_elsewhere(self) -> None:
        """Guesses from another address do not keep the user out."""
        self.service = self.make_service(address=5, account=5, failures=3)
        for _ in range(50):
            self.logging_in(password_request(password="looking-glass"), AWAY).addErrback(
                lambda failure: failure.trap(InvalidCredentials, RateLimited)
            )
        self.log_in()

    def test_right_password_too_often(self) -> None:
        """The limit of an account holds for right passwords too, from all addresses together."""
        self.service = self.make_service(account=2)
        self.log_in()
        self.log_in(client=AWAY)
        for client in (HOME, AWAY):
            self.fail_login(RateLimited, client=client)
        self.log_in(password_request("bob", "builder"))
        self.assertEqual(self.sessions(), 3)

    def test_too_often_is_told_to_no_stranger(self) -> None:
        """Without the password, the limit of an account does not show."""
        self.service = self.make_service(account=1)
        self.log_in()
        self.fail_login(RateLimited)
        for name in ("alice", "nobody"):
            wrong = password_request(name, "looking-glass")
            self.fail_login(InvalidCredentials, wrong, client=AWAY)

    def test_too_often_is_no_failure(self) -> None:
        """A right password that is limited does not count as a failure."""
        self.service = self.make_service(account=1, failures=1)
        for _ in range(3):
            self.logging_in().addErrback(lambda failure: failure.trap(RateLimited))
        self.fail_login(InvalidCredentials, password_request(password="looking-glass"))

    def test_by_another_name(self) -> None:
        """Logins by all names of an account count against its limit."""
        email = EmailIdentifier("alice@example.com")
        self.service = self.make_service(account=2)
        for _ in range(2):
            self.fake.waiting = Deferred()
            login = self.logging_in(LoginRequest(PasswordLogin(email, "wonderland")))
            self.fake.waiting.callback(Account(ALICE))
            self.successResultOf(login)
        self.fake.waiting = None
        self.fail_login(RateLimited)
        self.fake.waiting = Deferred()
        login = self.logging_in(LoginRequest(PasswordLogin(email, "wonderland")))
        self.fake.waiting.callback(Account(ALICE))
        self.failure(login, RateLimited)
        self.assertEqual(self.sessions(), 2)

    def test_outages_are_recorded(self) -> None:
        """An error is logged as an outcome and a reason."""
        for error, outcome, reason in (
            (ProviderUnavailable("down"), "unavailable", "provider"),
            (StoreUnavailable("down"), "unavailable", "store"),
            (Overloaded(1.0), "limited", "overloaded"),
            (ZeroDivisionError(), "failed", "error"),
        ):
            self.service = self.make_service()
            self.fake.failure = error
            self.fail_login(type(error))
            self.assertEqual(self.counted(), {("login", outcome, reason): 1})


class RefreshTests(LoginServiceTestCase):
    """Refreshes that succeed."""

    def test_order(self) -> None:
        """The account is looked at after its session is found, and before the refresh."""
        pair = self.log_in().tokens
        self.journal.clear()
        self.successResultOf(self.refresh(pair))
        self.assertEqual(self.journal, ["present", "account_status", "refresh"])

    def test_strict(self) -> None:
        """A strict refresh returns a new pair and ends the old one."""
        pair = self.log_in().tokens
        new = self.successResultOf(self.refresh(pair, strict=True))
        self.failure(self.service.whoami(pair.access_token), ExpiredToken)
        self.successResultOf(self.service.whoami(new.access_token))

    def test_lenient(self) -> None:
        """A repeated lenient refresh returns the same pair."""
        pair = self.log_in().tokens
        new = self.successResultOf(self.refresh(pair))
        again = self.successResultOf(self.refresh(pair))
        self.assertEqual(new, again)
        self.successResultOf(self.service.whoami(pair.access_token))

    def test_recorded(self) -> None:
        """A refresh is logged with its user and device."""
        login = self.log_in()
        self.service = self.make_service()
        with capturedLogs() as events:
            self.successResultOf(self.refresh(login.tokens))
        (event,) = events
        self.assertEqual((event["user"], event["device"]), (ALICE, login.device_id))
        self.assertEqual(self.counted(), {("refresh", "ok", "lenient"): 1})

    def test_never_limited(self) -> None:
        """A valid refresh is never limited, even after many failures from its address."""
        self.service = self.make_service(address=1, account=1, failures=1)
        pair = self.log_in().tokens
        self.failure(self.service.refresh("nonsense", None, False, HOME), UnknownToken)
        self.failure(self.service.refresh("nonsense", None, False, HOME), RateLimited)
        for strict in (True, False) * 20:
            pair = self.successResultOf(self.refresh(pair, strict))


class RefusedRefreshTests(LoginServiceTestCase):
    """Refreshes that fail because of the client. Where strict, the error is ``RefreshRefused``."""

    def test_unknown(self) -> None:
        """An unknown token raises ``UnknownToken``, and no provider is asked."""
        self.failure(self.service.refresh("nonsense", None, False, HOME), UnknownToken)
        self.failure(self.service.refresh("nonsense", None, True, HOME), RefreshRefused)
        self.assertEqual(self.journal, ["present"] * 2)
        self.assertEqual(self.counted(), {("refresh", "refused", "unknown_token"): 2})

    def test_expired(self) -> None:
        """A session that was idle too long raises ``ExpiredToken``."""
        pair = self.log_in().tokens
        self.clock.advance(3600)
        self.service = self.make_service()
        self.failure(self.refresh(pair), ExpiredToken)
        self.failure(self.refresh(pair, strict=True), RefreshRefused)
        self.assertEqual(self.counted(), {("refresh", "refused", "expired_token"): 2})

    def test_raced(self) -> None:
        """The loser of a race gets ``SupersededToken``, and the session goes on."""
        pair = self.log_in().tokens
        new = self.successResultOf(self.refresh(pair, strict=True))
        self.failure(self.refresh(pair), SupersededToken)
        self.failure(self.refresh(pair, strict=True), RefreshRefused)
        self.successResultOf(self.refresh(new, strict=True))

    def test_reused(self) -> None:
        """Reuse ends the session. It is logged as a warning with user and device, and counted
        apart.
        """
        for strict, error in ((True, RefreshRefused), (False, ReusedToken)):
            login = self.log_in(password_request(device_id="PHONE"))
            new = self.successResultOf(self.refresh(login.tokens, strict=True))
            self.clock.advance(10)
            self.service = self.make_service()
            with capturedLogs() as events:
                self.failure(self.refresh(login.tokens, strict), error)
            (event,) = events
            self.assertEqual(event["log_level"], LogLevel.warn)
            self.assertEqual(
                (event["reason"], event["user"], event["device"]),
                ("reused_token", ALICE, "PHONE"),
            )
            self.assertEqual(self.counted(), {("refresh", "refused", "reused_token"): 1})
            self.failure(self.service.whoami(new.access_token), ExpiredToken)
            self.assertEqual(self.sessions(), 0)

    def test_only_reuse_is_a_warning(self) -> None:
        """Other rejected refreshes are not logged as warnings."""
        with capturedLogs() as events:
            self.failure(self.service.refresh("nonsense", None, True, HOME), RefreshRefused)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.info])

    def test_other_session(self) -> None:
        """An access token of another session fails the refresh, and consumes nothing."""
        pair, other = self.log_in().tokens, self.log_in().tokens
        self.service = self.make_service()
        assert pair.refresh_token is not None
        asked = self.service.refresh(pair.refresh_token, other.access_token, True, HOME)
        self.failure(asked, RefreshRefused)
        self.assertEqual(self.counted(), {("refresh", "refused", "other_session"): 1})
        for each in (pair, other):
            self.successResultOf(self.refresh(each, strict=True))

    def test_other_session_expired(self) -> None:
        """An expired access token of another session fails it in the same way."""
        pair = self.log_in().tokens
        other = self.log_in(password_request(wants_refresh_token=True)).tokens
        newer = self.successResultOf(self.refresh(other, strict=True))
        self.clock.advance(301)
        assert pair.refresh_token is not None
        for access_token in (other.access_token, newer.access_token):
            asked = self.service.refresh(pair.refresh_token, access_token, True, HOME)
            self.failure(asked, RefreshRefused)

    def test_unknown_access_token(self) -> None:
        """Where strict, an unknown access token raises ``UnknownToken`` all the same; otherwise
        ``SessionMismatch``.
        """
        pair = self.log_in().tokens
        assert pair.refresh_token is not None
        for access_token in ("nonsense", pair.refresh_token):
            asked = self.service.refresh(pair.refresh_token, access_token, True, HOME)
            self.failure(asked, UnknownToken)
        asked = self.service.refresh(pair.refresh_token, "nonsense", False, HOME)
        self.failure(asked, SessionMismatch)
        self.successResultOf(self.refresh(pair, strict=True))

    def test_limited(self) -> None:
        """Failing refreshes are limited by address."""
        self.service = self.make_service(address=2)
        for _ in range(2):
            self.failure(self.service.refresh("nonsense", None, True, HOME), RefreshRefused)
        for strict in (True, False):
            self.failure(self.service.refresh("nonsense", None, strict, HOME), RateLimited)
        self.failure(self.service.refresh("nonsense", None, True, AWAY), RefreshRefused)
        self.log_in()

    def test_lost_race_is_not_limited(self) -> None:
        """The loser of a race is never rate-limited. If it were, it would retry the same token
        later, and that would end the session of the winner.
        """
        self.service = self.make_service(address=1)
        self.failure(self.service.refresh("nonsense", None, False, HOME), UnknownToken)
        pair = self.log_in().tokens
        self.successResultOf(self.refresh(pair, strict=True))
        for strict, told in ((False, SupersededToken), (True, RefreshRefused)):
            for _ in range(2):
                self.failure(self.refresh(pair, strict=strict), told)
        self.failure(self.service.refresh("nonsense", None, False, HOME), RateLimited)

    def test_store_down(self) -> None:
        """An outage of the store raises ``StoreUnavailable``, and does not count as a failure."""
        pair = self.log_in().tokens
        self.service = self.make_service(address=1)
        for method in ("present", "refresh"):
            self.store.failures = {method: StoreUnavailable("down")}
            for strict in (True, False):
                self.failure(self.refresh(pair, strict), StoreUnavailable)
        self.store.failures = {}
        self.assertEqual(self.counted(), {("refresh", "unavailable", "store"): 4})
        self.failure(self.service.refresh("nonsense", None, False, HOME), UnknownToken)
        self.successResultOf(self.refresh(pair))


class LookAgainTests(LoginServiceTestCase):
    """The look at the account at a refresh."""

    def test_deactivated(self) -> None:
        """A deactivated account gets no new tokens and loses all its sessions, on both paths."""
        for strict, error in ((True, RefreshRefused), (False, UnknownToken)):
            pair = self.log_in().tokens
            self.log_in()
            self.fake.statuses[ALICE] = AccountStatus.DEACTIVATED
            self.journal.clear()
            self.failure(self.refresh(pair, strict), error)
            self.assertEqual(self.journal, ["present", "account_status", "revoke_all"])
            self.failure(self.service.whoami(pair.access_token), UnknownToken)
            self.assertEqual(self.sessions(), 0)
            self.fake.statuses.clear()

    def test_vanished(self) -> None:
        """An account that its provider no longer knows loses all its sessions, those that are never
        refreshed included. Other accounts keep theirs.
        """
        for strict, error in ((True, RefreshRefused), (False, UnknownToken)):
            pair = self.log_in(password_request("bob", "builder")).tokens
            lasting = self.log_in(password_request("bob", "builder")).tokens
            other = self.log_in().tokens
            del self.fake.passwords[BOB]
            self.failure(self.refresh(pair, strict), error)
            for each in (pair, lasting):
                self.failure(self.service.whoami(each.access_token), UnknownToken)
            self.successResultOf(self.service.whoami(other.access_token))
            self.fake.passwords[BOB] = "builder"

    def test_vanished_before_a_relink(self) -> None:
        """If a user ID was linked to another account, an old token of the former account does not
        end the sessions of the present one, although the store remembers the owner of the token.
        """
        old = self.successResultOf(self.refresh(self.log_in().tokens))
        self.successResultOf(self.store.link(Link(ALICE, "fake", BOB), True))
        self.successResultOf(self.store.revoke_all(ALICE))
        claim = Claim(("fake",), BOB)
        self.successResultOf(self.store.issue(ALICE, None, None, True, True, claim=claim))
        del self.fake.passwords[ALICE]
        for strict, error in ((True, RefreshRefused), (False, UnknownToken)):
            self.failure(self.refresh(old, strict), error)
        self.assertEqual(self.sessions(), 1)

    def test_locked(self) -> None:
        """A locked account gets no new tokens. It keeps the session for when it is unlocked."""
        pair = self.log_in().tokens
        self.fake.statuses[ALICE] = AccountStatus.LOCKED
        self.service = self.make_service(address=1)
        for strict in (True, False, True, False):
            self.failure(self.refresh(pair, strict), AccountLocked)
        self.assertEqual(self.counted(), {("refresh", "refused", "locked"): 4})
        self.fake.statuses.clear()
        self.successResultOf(self.refresh(pair))

    def test_locked_after_the_end(self) -> None:
        """The token of an ended session does not show that the account is locked."""
        pair = self.successResultOf(self.refresh(self.log_in().tokens))
        pair = self.successResultOf(self.refresh(pair))
        self.successResultOf(self.service.logout(pair.access_token, False, HOME))
        self.fake.statuses[ALICE] = AccountStatus.LOCKED
        self.failure(self.refresh(pair), UnknownToken)
        self.failure(self.refresh(pair, strict=True), RefreshRefused)

    def test_provider_down(self) -> None:
        """While the provider is unavailable, the refresh goes on, with a warning in the log."""
        pair = self.log_in().tokens
        self.fake.failure = ProviderUnavailable("ldap is down")
        for strict in (True, False):
            with capturedLogs() as events:
                pair = self.successResultOf(self.refresh(pair, strict))
            warnings = [each for each in events if each["log_level"] is LogLevel.warn]
            self.assertEqual({each["problem"] for each in warnings}, {"ldap is down"})

    def test_provider_hangs(self) -> None:
        """If the provider does not answer in time, the refresh goes on, and so does the look."""
        pair = self.log_in().tokens
        given_up: list[object] = []
        for late in (AccountStatus.LOCKED, ProviderUnavailable("down"), AccountStatus.UNVERIFIABLE):
            looking: Deferred[AccountStatus | None] = Deferred(given_up.append)
            self.patch(self.fake, "account_status", lambda _, looking=looking: looking)
            refreshing = self.refresh(pair)
            self.clock.advance(2.9)
            self.assertNoResult(refreshing)
            self.clock.advance(0.2)
            pair = self.successResultOf(refreshing)
            looking.callback(Failure(late) if isinstance(late, Exception) else late)
        self.assertEqual(given_up, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.sessions(), 1)

    def test_deactivated_late(self) -> None:
        """A look that ends after its refresh still ends the sessions of a deactivated account."""
        for late in (AccountStatus.DEACTIVATED, None):
            pair = self.log_in().tokens
            looking: Deferred[AccountStatus | None] = Deferred()
            patched = self.patch(self.fake, "account_status", lambda _, looking=looking: looking)
            refreshing = self.refresh(pair)
            self.clock.advance(3)
            pair = self.successResultOf(refreshing)
            looking.callback(late)
            self.failure(self.service.whoami(pair.access_token), UnknownToken)
            self.assertEqual(self.sessions(), 0)
            patched.restore()

    def test_cannot_revoke_late(self) -> None:
        """If the store fails to end the sessions then, the next refresh looks again."""
        pair = self.log_in().tokens
        looking: Deferred[AccountStatus | None] = Deferred()
        patched = self.patch(self.fake, "account_status", lambda _: looking)
        refreshing = self.refresh(pair)
        self.clock.advance(3)
        pair = self.successResultOf(refreshing)
        self.store.failures["revoke_all"] = StoreUnavailable("down")
        looking.callback(AccountStatus.DEACTIVATED)
        self.store.failures.clear()
        patched.restore()
        self.successResultOf(self.refresh(pair))

    def test_provider_slow(self) -> None:
        """An answer just before the timeout counts."""
        pair = self.log_in().tokens
        looking: Deferred[AccountStatus | None] = Deferred()
        self.patch(self.fake, "account_status", lambda _: looking)
        refreshing = self.refresh(pair)
        self.clock.advance(2.9)
        looking.callback(AccountStatus.LOCKED)
        self.failure(refreshing, AccountLocked)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client_gone(self) -> None:
        """If the client disconnects during the look, its refresh token stays valid."""
        pair = self.log_in().tokens
        looking: Deferred[AccountStatus | None] = Deferred()
        patched = self.patch(self.fake, "account_status", lambda _: looking)
        refreshing = self.refresh(pair)
        refreshing.cancel()
        self.failure(refreshing, CancelledError)
        patched.restore()
        looking.callback(AccountStatus.ACTIVE)
        self.successResultOf(self.refresh(pair))

    def test_broken_late(self) -> None:
        """An unexpected error of a provider after the refresh is logged."""
        pair = self.log_in().tokens
        looking: Deferred[AccountStatus | None] = Deferred()
        self.patch(self.fake, "account_status", lambda _: looking)
        refreshing = self.refresh(pair)
        self.clock.advance(3)
        self.successResultOf(refreshing)
        looking.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cannot_be_checked(self) -> None:
        """An account with the status ``UNVERIFIABLE`` logs in and refreshes as an active one."""
        self.fake.statuses[ALICE] = AccountStatus.UNVERIFIABLE
        pair = self.log_in().tokens
        for strict in (True, False):
            pair = self.successResultOf(self.refresh(pair, strict))

    def test_provider_broken(self) -> None:
        """An unexpected error of a provider is no outage: no tokens are issued or revoked."""
        pair = self.log_in().tokens
        self.fake.failure = ZeroDivisionError()
        self.service = self.make_service()
        self.failure(self.refresh(pair), ZeroDivisionError)
        self.assertEqual(self.counted(), {("refresh", "failed", "error"): 1})
        self.fake.failure = None
        self.successResultOf(self.refresh(pair))

    def test_cannot_revoke(self) -> None:
        """If the store fails to end the sessions of a deactivated account, no tokens are issued."""
        pair = self.log_in().tokens
        self.fake.statuses[ALICE] = AccountStatus.DEACTIVATED
        self.store.failures["revoke_all"] = StoreUnavailable("down")
        self.failure(self.refresh(pair, strict=True), StoreUnavailable)
        self.store.failures.clear()
        self.failure(self.refresh(pair, strict=True), RefreshRefused)
        self.assertEqual(self.sessions(), 0)


class LinkTests(LoginServiceTestCase):
    """Which account logs in as which user."""

    def vouch(self, user_id: str, subject: str, password: str = "wonderland") -> None:
        """Have the provider accept every password, for an account with this name and ID."""
        account = Account(user_id, status=AccountStatus.ACTIVE, subject=subject)
        self.fake.passwords[subject] = password
        self.patch(self.fake, "authenticate", lambda *_: succeed(account))

    def links(self) -> list[Link]:
        """List the links."""
        return self.successResultOf(self.store.links())

    def test_first_login(self) -> None:
        """The first login links the account to the user ID, by the names of the provider and the
        subject.
        """
        self.vouch(ALICE, "id-1")
        self.log_in()
        self.assertEqual(self.links(), [Link(ALICE, "fake", "id-1")])

    def test_another_of_the_name(self) -> None:
        """Another account of that name is rejected with the right password. The log says which
        command would link it, and it counts as no failure.
        """
        self.vouch(ALICE, "id-1")
        self.log_in()
        self.vouch(ALICE, "id-2")
        self.service = self.make_service(failures=1)
        for _ in range(3):
            with capturedLogs() as events:
                error = self.fail_login(AccountNotLinked)
            assert isinstance(error, AccountNotLinked)
            self.assertEqual(error.user_id, ALICE)
            (warning,) = [each for each in events if each["log_level"] is LogLevel.warn]
            self.assertIn("links relink", formatEvent(warning))
            self.assertIn(ALICE, formatEvent(warning))
        self.assertEqual(self.counted(), {("login", "refused", "not_linked"): 3})
        self.assertEqual(self.sessions(), 1)

    def test_renamed(self) -> None:
        """An account that was renamed logs in as the user that it is linked to, and is logged as
        that.
        """
        self.vouch(ALICE, "id-1")
        self.log_in()
        self.vouch("@alice-smith:example.com", "id-1")
        with capturedLogs() as events:
            login = self.log_in(password_request("alice-smith"))
        self.assertEqual(login.user_id, ALICE)
        self.assertEqual([each["user"] for each in events if "outcome" in each], [ALICE])
        token = Deferred.fromCoroutine(
            self.service.get_token(
                self.successResultOf(self.service.whoami(login.tokens.access_token)),
                PasswordLogin(UserIdentifier(UserId("alice-smith", "example.com")), "wonderland"),
                HOME,
            )
        )
        again = self.log_in(token_request(self.successResultOf(token).token))
        self.assertEqual(again.user_id, ALICE)

    def test_looked_at_by_subject(self) -> None:
        """At a refresh, the account is looked at by the subject of its link, not by its name."""
        self.vouch(ALICE, "id-1")
        pair = self.log_in().tokens
        self.fake.statuses["id-1"] = AccountStatus.LOCKED
        self.failure(self.refresh(pair), AccountLocked)
        self.fake.statuses["id-1"] = AccountStatus.ACTIVE
        pair = self.successResultOf(self.refresh(pair))
        del self.fake.passwords["id-1"]
        self.failure(self.refresh(pair), UnknownToken)

    def test_login_token(self) -> None:
        """A login token links nothing. Its user is looked at by the link, if there is one."""
        self.log_in(token_request(self.login_token()))
        self.assertEqual(self.links(), [])
        self.vouch(ALICE, "id-1")
        self.log_in()
        self.fake.statuses["id-1"] = AccountStatus.LOCKED
        self.fail_login(AccountLocked, token_request(self.login_token()))

    def test_session_from_before(self) -> None:
        """A session from before links existed is looked at by its user ID, or by the link that its
        user has got since.
        """
        login = self.successResultOf(self.store.issue(ALICE, None, None, True, True))
        pair = self.successResultOf(self.refresh(login.tokens))
        self.fake.statuses[ALICE] = AccountStatus.LOCKED
        self.failure(self.refresh(pair), AccountLocked)
        self.vouch(ALICE, "id-1")
        self.log_in()
        pair = self.successResultOf(self.refresh(pair))
        del self.fake.passwords["id-1"]
        self.failure(self.refresh(pair), UnknownToken)
        self.assertEqual(self.sessions(), 0)

    def test_token_before_the_first_link(self) -> None:
        """The user of a session from before links existed gets a login token for the password,
        which links nothing.
        """
        login = self.successResultOf(self.store.issue(ALICE, None, None, True, True))
        session = self.successResultOf(self.service.whoami(login.tokens.access_token))
        self.vouch(ALICE, "id-1")
        asked = self.service.get_token(session, password_request().credentials, HOME)  # type: ignore[arg-type]
        self.successResultOf(Deferred.fromCoroutine(asked))
        self.assertEqual(self.links(), [])
        self.vouch(BOB, "id-2")
        asked = self.service.get_token(session, password_request().credentials, HOME)  # type: ignore[arg-type]
        self.failure(asked, InvalidCredentials)

    def test_other_user_gets_no_token(self) -> None:
        """A login token needs the password of the linked account. Another account of the same name
        does not get one.
        """
        self.vouch(ALICE, "id-1")
        login = self.log_in()
        session = self.successResultOf(self.service.whoami(login.tokens.access_token))
        self.vouch(ALICE, "id-2")
        asked = self.service.get_token(session, password_request().credentials, HOME)  # type: ignore[arg-type]
        self.failure(asked, InvalidCredentials)
        self.assertEqual(self.links(), [Link(ALICE, "fake", "id-1")])


class LogoutTests(LoginServiceTestCase):
    """Logging out."""

    def log_out(self, pair: TokenPair, everywhere: bool = False) -> Deferred[None]:
        """Log out with the access token of a pair."""
        return Deferred.fromCoroutine(self.service.logout(pair.access_token, everywhere, HOME))

    def test_session(self) -> None:
        """A logout ends the session of its access token, and no other."""
        pair, other = self.log_in().tokens, self.log_in().tokens
        self.service = self.make_service()
        self.successResultOf(self.log_out(pair))
        self.failure(self.service.whoami(pair.access_token), UnknownToken)
        self.failure(self.refresh(pair), UnknownToken)
        self.successResultOf(self.service.whoami(other.access_token))
        self.assertEqual(self.counted()["logout", "ok", "session"], 1)

    def test_everywhere(self) -> None:
        """A logout everywhere ends every session of the user, and none of other users."""
        mine = [self.log_in().tokens for _ in range(3)]
        other = self.log_in(password_request("bob", "builder")).tokens
        self.successResultOf(self.log_out(mine[1], everywhere=True))
        for pair in mine:
            self.failure(self.service.whoami(pair.access_token), UnknownToken)
        self.successResultOf(self.service.whoami(other.access_token))
        self.assertEqual(self.counted()["logout", "ok", "everywhere"], 1)

    def test_expired(self) -> None:
        """An expired access token can log out. A superseded one cannot."""
        pair = self.log_in(password_request(wants_refresh_token=True)).tokens
        new = self.successResultOf(self.refresh(pair, strict=True))
        self.clock.advance(301)
        self.failure(self.service.whoami(new.access_token), ExpiredToken)
        self.failure(self.log_out(pair), ExpiredToken)
        self.successResultOf(self.log_out(new))
        self.assertEqual(self.sessions(), 0)

    def test_unknown(self) -> None:
        """An unknown access token cannot log out."""
        pair = self.log_in().tokens
        self.successResultOf(self.log_out(pair))
        self.failure(self.log_out(pair), UnknownToken)
        self.failure(self.service.logout("nonsense", True, HOME), UnknownToken)


class GetTokenTests(LoginServiceTestCase):
    """Login tokens for users who are logged in."""

    def setUp(self) -> None:
        super().setUp()
        tokens = self.log_in().tokens
        self.session = self.successResultOf(self.service.whoami(tokens.access_token))
        self.journal.clear()
        self.service = self.make_service()

    def get_token(self, user: str = "alice", password: str = "wonderland") -> Deferred[LoginToken]:
        """Ask for a login token."""
        credentials = password_request(user, password).credentials
        assert isinstance(credentials, PasswordLogin)
        return Deferred.fromCoroutine(self.service.get_token(self.session, credentials, HOME))

    def test_made(self) -> None:
        """The right password gets a token that logs in its user."""
        made = self.successResultOf(self.get_token())
        self.assertEqual(made.expires_in_ms, 120_000)
        self.assertEqual(self.journal, ["authenticate", "make_login_token"])
        self.assertEqual(self.log_in(token_request(made.token)).user_id, ALICE)
        self.assertEqual(self.counted()["get_token", "ok", "password"], 1)

    def test_refused(self) -> None:
        """A wrong password, or the password of another user, gets no token."""
        for user, password, reason in (
            ("alice", "looking-glass", "wrong_password"),
            ("nobody", "x", "unknown_user"),
            ("bob", "builder", "other_user"),
        ):
            self.service = self.make_service()
            self.failure(self.get_token(user, password), InvalidCredentials)
            self.assertEqual(self.counted(), {("get_token", "refused", reason): 1})
        self.assertNotIn("make_login_token", self.journal)

    def test_status(self) -> None:
        """A locked or deactivated account gets no token."""
        for status, error in (
            (AccountStatus.LOCKED, AccountLocked),
            (AccountStatus.DEACTIVATED, AccountDeactivated),
        ):
            self.fake.statuses[ALICE] = status
            self.failure(self.get_token(), error)
        self.assertNotIn("make_login_token", self.journal)

    def test_limited(self) -> None:
        """Wrong passwords here and at logins count together."""
        self.service = self.make_service(failures=2)
        self.failure(self.get_token(password="looking-glass"), InvalidCredentials)
        self.fail_login(InvalidCredentials, password_request(password="looking-glass"))
        self.failure(self.get_token(), RateLimited)

    def test_outage(self) -> None:
        """An outage does not count as a failure."""
        self.service = self.make_service(address=1, failures=1)
        self.store.failures["make_login_token"] = StoreUnavailable("down")
        for _ in range(5):
            self.failure(self.get_token(), StoreUnavailable)
        self.store.failures.clear()
        self.successResultOf(self.get_token())


class DeleteDevicesTests(LoginServiceTestCase):
    """The deletion of devices by users who are logged in."""

    def setUp(self) -> None:
        super().setUp()
        self.host = FakeHost()
        self.devices = DelegatedStore(None, testing.environment(clock=self.clock))
        self.service = self.make_delegated()
        tokens = self.log_in(password_request(device_id="HERE")).tokens
        self.session = self.successResultOf(
            Deferred.fromCoroutine(self.service.whoami(tokens.access_token))
        )
        self.audit.counts.clear()

    def make_delegated(self, **limits: Any) -> LoginService:
        """Make a service that a homeserver delegates to."""
        service = self.make_service(**limits)
        accounts = LinkedAccounts(self.provider, self.devices)
        return replace(service, store=self.devices, accounts=accounts, host=self.host)

    def delete(
        self, *devices: str, user: str = "alice", password: str = "wonderland"
    ) -> Deferred[None]:
        """Delete devices."""
        credentials = password_request(user, password).credentials
        assert isinstance(credentials, PasswordLogin)
        return Deferred.fromCoroutine(
            self.service.delete_devices(self.session, devices, credentials, HOME)
        )

    def test_deleted(self) -> None:
        """The right password deletes the devices, and the homeserver is told at once."""
        self.successResultOf(self.delete("HERE", "A", "A"))
        self.assertEqual(self.devices.deleted, [(ALICE, "A"), (ALICE, "HERE")])
        self.assertEqual(self.host.endings, 1)
        self.assertEqual(self.counted(), {("delete_devices", "ok", "password"): 1})

    def test_refused(self) -> None:
        """A wrong password, or the password of another user, deletes nothing."""
        for user, password, reason in (
            ("alice", "looking-glass", "wrong_password"),
            ("nobody", "x", "unknown_user"),
            ("bob", "builder", "other_user"),
        ):
            self.audit.counts.clear()
            self.failure(self.delete("A", user=user, password=password), InvalidCredentials)
            self.assertEqual(self.counted(), {("delete_devices", "refused", reason): 1})
        self.assertEqual((self.devices.deleted, self.host.endings), ([], 0))

    def test_status(self) -> None:
        """A locked or deactivated account deletes nothing."""
        for status, error in (
            (AccountStatus.LOCKED, AccountLocked),
            (AccountStatus.DEACTIVATED, AccountDeactivated),
        ):
            self.fake.statuses[ALICE] = status
            self.failure(self.delete("A"), error)
        self.assertEqual(self.devices.deleted, [])

    def test_limited(self) -> None:
        """Wrong passwords here and at logins count together, and right ones not at all."""
        self.service = self.make_delegated(failures=2)
        for _ in range(5):
            self.successResultOf(self.delete("A"))
        self.failure(self.delete("A", password="looking-glass"), InvalidCredentials)
        self.fail_login(InvalidCredentials, password_request(password="looking-glass"))
        self.failure(self.delete("A"), RateLimited)


class ServiceLoginTests(LoginServiceTestCase):
    """Logins of application services."""

    def setUp(self) -> None:
        super().setUp()
        self.host = FakeHost()
        self.host.owned["as-token"] = {PUPPET, ALICE}
        self.service = self.make_delegated()

    def make_delegated(self, **limits: Any) -> LoginService:
        """Make a service that a homeserver delegates to."""
        return replace(self.make_service(**limits), host=self.host)

    def request(self, user: str = "_irc_alice", token: str = "as-token") -> LoginRequest:
        """Make the request of an application service."""
        return LoginRequest(ServiceLogin(UserId(user, "example.com"), token))

    def test_claim(self) -> None:
        """The session begins for the user of the application service, whom it links."""
        login = self.log_in(self.request())
        self.assertEqual(login.user_id, PUPPET)
        [account] = self.host.begun
        self.assertEqual(account.claim, Claim((APPLICATION_SERVICE,), PUPPET))
        self.log_in(self.request())
        self.assertEqual(self.host.begun, [account, account])
        self.assertEqual(self.counted(), {("login", "ok", "application_service"): 2})

    def test_linked_user(self) -> None:
        """The session of a user whom a provider knows hangs on that link, and ends with it."""
        self.log_in()
        login = self.log_in(self.request("alice"))
        self.assertIsNone(self.host.begun[-1].claim)
        link = self.successResultOf(self.store.link_of(ALICE))
        self.assertEqual(link, Link(ALICE, "fake", ALICE))
        del self.fake.passwords[ALICE]
        self.clock.advance(901)
        whoami = self.service.whoami(login.tokens.access_token)
        self.failure(Deferred.fromCoroutine(whoami), UnknownToken)

    def test_linked_user_gone(self) -> None:
        """A user whose account at the provider is gone or locked gets no session."""
        self.log_in()
        for status, error in (
            (AccountStatus.LOCKED, AccountLocked),
            (AccountStatus.DEACTIVATED, AccountDeactivated),
        ):
            self.fake.statuses[ALICE] = status
            self.fail_login(error, self.request("alice"))
        self.assertEqual(self.sessions(), 1)

    def test_refused(self) -> None:
        """A token that is not the user's application service's begins no session."""
        for request in (self.request(token="wrong"), self.request("bob")):
            self.fail_login(ServiceRefused, request)
        self.assertEqual(self.sessions(), 0)
        self.assertEqual(self.counted(), {("login", "refused", "application_service"): 2})

    def test_alone(self) -> None:
        """Without a homeserver there are no application services."""
        self.service = self.make_service()
        self.fail_login(ServiceRefused, self.request())

    def test_not_counted(self) -> None:
        """Valid logins are not counted. After too many failed ones no token is checked."""
        self.service = self.make_delegated(address=1, account=1, failures=1)
        for _ in range(3):
            self.log_in(self.request("alice"))
        self.fail_login(ServiceRefused, self.request(token="wrong"))
        self.fail_login(RateLimited, self.request(token="wrong"))
        asked = len(self.host.asked)
        self.fail_login(RateLimited, self.request(token="wrong"))
        self.assertEqual(len(self.host.asked), asked)
        self.log_in(password_request("bob", "builder"))

    def test_failures_by_address(self) -> None:
        """Failed logins are limited by address."""
        self.service = self.make_delegated(address=2)
        for _ in range(2):
            self.fail_login(ServiceRefused, self.request(token="wrong"))
        self.fail_login(RateLimited, self.request(token="wrong"))
        self.fail_login(ServiceRefused, self.request(token="wrong"), AWAY)

    def test_outage(self) -> None:
        """While the homeserver cannot be asked, nothing is counted as a failure."""
        self.service = self.make_delegated(address=1)
        self.host.failure = HomeserverUnavailable("gone")
        for _ in range(3):
            self.fail_login(HomeserverUnavailable, self.request())
        self.host.failure = None
        self.fail_login(ServiceRefused, self.request(token="wrong"))


class ReachableTests(LoginServiceTestCase):
    """Whether the service is reachable."""

    def test_reachable(self) -> None:
        """It is while its store is."""
        self.successResultOf(self.service.reachable())
        self.store.failures["ping"] = StoreUnavailable("down")
        self.failure(self.service.reachable(), StoreUnavailable)
