"""Tests for the fakes, and for the contracts: that they tell good from bad."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any
from unittest import TestResult

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from synapse_login_module import testing
from synapse_login_module.errors import InvalidCredentials, ReusedToken
from synapse_login_module.interfaces import IHashing, IPasswordProvider, ITokenStore
from synapse_login_module.model import (
    Account,
    AccountStatus,
    Claim,
    Identifier,
    Link,
    Login,
    PresentedToken,
    SessionInfo,
    TokenPair,
    TokenPolicy,
    UserId,
    UserIdentifier,
)
from synapse_login_module.passwords import hash_password
from synapse_login_module.stores import MemoryTokenStore
from synapse_login_module.tokens.format import TokenKind

ALICE = "@alice:example.com"


class FakeProviderContractTests(testing.PasswordProviderContract, TestCase):
    """The contract, kept by the fake."""

    def make_provider(self) -> IPasswordProvider:
        return testing.FakeProvider({ALICE: "wonderland"})


class LateProviderContractTests(testing.PasswordProviderContract, TestCase):
    """The contract, kept by a provider that is made by and by."""

    def make_provider(self) -> Deferred[IPasswordProvider]:
        provider: IPasswordProvider = testing.FakeProvider({ALICE: "wonderland"})
        return succeed(provider)


class LateStoreContractTests(testing.TokenStoreContract, testing.LinksContract, TestCase):
    """The contract, kept by a store that is made by and by."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> Deferred[ITokenStore]:
        store: ITokenStore = MemoryTokenStore(None, testing.environment(clock=clock, policy=policy))
        return succeed(store)


class FakeProviderTests(SynchronousTestCase):
    """The rest of what the fake provider does."""

    def setUp(self) -> None:
        self.provider = testing.FakeProvider({ALICE: "wonderland"})
        self.alice = UserIdentifier(UserId("alice", "example.com"))

    def test_statuses(self) -> None:
        """It says what a test says of an account."""
        for status in AccountStatus:
            self.provider.statuses[ALICE] = status
            self.assertIs(self.successResultOf(self.provider.account_status(ALICE)), status)

    def test_failure(self) -> None:
        """It fails while a test wants it to."""
        self.provider.failure = ZeroDivisionError()
        for answer in (
            self.provider.authenticate(self.alice, "wonderland"),
            self.provider.account_status(ALICE),
        ):
            self.failureResultOf(answer, ZeroDivisionError)
        self.provider.failure = None
        self.assertEqual(
            self.successResultOf(self.provider.authenticate(self.alice, "wonderland")),
            Account(ALICE, status=AccountStatus.ACTIVE, subject=ALICE),
        )


class FakeHashingTests(SynchronousTestCase):
    """What the fake hashing does."""

    def setUp(self) -> None:
        self.hashing = testing.FakeHashing()

    def test_interface(self) -> None:
        """It provides the interface."""
        verifyObject(IHashing, self.hashing)

    def test_check(self) -> None:
        """It tells right from wrong at once."""
        hashed = hash_password("wonderland", "pepper", 4)
        for password, pepper, right in (
            ("wonderland", "pepper", True),
            ("wonderland", "", False),
            ("looking-glass", "pepper", False),
        ):
            checked = self.hashing.check(password, hashed, pepper)
            self.assertIs(self.successResultOf(checked), right)

    def test_remembers(self) -> None:
        """It remembers decoys and kinds."""
        self.successResultOf(self.hashing.decoy("wonderland"))
        self.hashing.report_kind(self.hashing.kind)
        self.assertEqual(self.hashing.decoys, ["wonderland"])
        self.assertEqual([str(kind) for kind in self.hashing.kinds], ["bcrypt cost=4"])

    def test_failure(self) -> None:
        """It fails while a test wants it to."""
        self.hashing.failure = ZeroDivisionError()
        for answer in (self.hashing.check("", "", ""), self.hashing.decoy("")):
            self.failureResultOf(answer, ZeroDivisionError)
        self.assertEqual(self.hashing.decoys, [])


class EnvironmentTests(SynchronousTestCase):
    """The environment for providers and stores."""

    def test_defaults(self) -> None:
        """Everything is there that a provider or a store may want."""
        environment = testing.environment()
        verifyObject(IHashing, environment.hashing)
        self.assertEqual(environment.server_name, "example.com")
        self.assertEqual(environment.clock(), 0)
        self.assertEqual(len(environment.random(16)), 16)
        self.assertEqual(environment.policy, TokenPolicy())
        keys = environment.required_keys
        self.assertTrue(keys.holds(keys.newest))

    def test_given(self) -> None:
        """A test's own clock, reactor and policy are used."""
        clock, reactor, policy = Clock(), object(), TokenPolicy(session=1)
        environment = testing.environment(reactor, policy, clock)
        clock.advance(5)
        self.assertEqual(environment.clock(), 5)
        self.assertIs(environment.reactor, reactor)
        self.assertIs(environment.policy, policy)
        self.assertIs(testing.environment(clock=clock).reactor, clock)

    def test_keys_differ(self) -> None:
        """No two environments share a key by chance."""
        first, second = (testing.environment().required_keys for _ in range(2))
        salt = os.urandom(16)
        self.assertNotEqual(
            *(ring.derive(TokenKind.ACCESS, ring.newest, 1, 0, salt) for ring in (first, second))
        )


class ForgivingProvider(testing.FakeProvider):
    """Says "not mine" for a wrong password."""

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Never refuse."""
        return super().authenticate(identifier, password).addErrback(lambda failure: None)


class JealousProvider(testing.FakeProvider):
    """Refuses users that it does not know."""

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Never say "not mine"."""

        def refuse(account: Account | None) -> Account:
            if account is None:
                raise InvalidCredentials
            return account

        return super().authenticate(identifier, password).addCallback(refuse)


class HomelyProvider(testing.FakeProvider):
    """Looks at local parts alone."""

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Take any server for its own."""
        if isinstance(identifier, UserIdentifier):
            identifier = UserIdentifier(identifier.user_id._replace(server_name="example.com"))
        return super().authenticate(identifier, password)


class BareProvider(testing.FakeProvider):
    """Gives the local part in the place of the user ID."""

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Strip the account."""
        answer = super().authenticate(identifier, password)
        return answer.addCallback(lambda account: account and Account("alice"))


class FickleProvider(testing.FakeProvider):
    """Knows an account by another subject each time."""

    def __init__(self, passwords: dict[str, str]) -> None:
        super().__init__(passwords)
        self.times = 0

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Change the subject."""
        self.times += 1
        answer = super().authenticate(identifier, password)
        return answer.addCallback(
            lambda account: account and replace(account, subject=f"{self.times}")
        )

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Know every subject that was given."""
        if subject.isdigit():
            return succeed(AccountStatus.ACTIVE)
        return super().account_status(subject)


class ForgottenSubjectProvider(testing.FakeProvider):
    """Does not know an account by its subject."""

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Give a subject that says nothing."""
        answer = super().authenticate(identifier, password)
        return answer.addCallback(lambda account: account and replace(account, subject="u-17"))


class LyingProvider(testing.FakeProvider):
    """Says at a login what it does not say later."""

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Say that the account is locked."""
        answer = super().authenticate(identifier, password)
        return answer.addCallback(
            lambda account: account and replace(account, status=AccountStatus.LOCKED)
        )


class UnverifiableProvider(testing.FakeProvider):
    """Says statuses, and that it never can."""

    verifiable = False


class HastyProvider(testing.FakeProvider):
    """Answers in the place of a Deferred."""

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Be hasty."""
        return None  # type: ignore[return-value]


class WelcomingProvider(testing.FakeProvider):
    """Knows everybody."""

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Say active."""
        return succeed(AccountStatus.ACTIVE)


class ForgetfulStore(MemoryTokenStore):
    """Does not end a session for reuse."""

    def refresh(
        self, presented: PresentedToken, access_token: str | None, strict: bool
    ) -> Deferred[TokenPair]:
        """Refuse and do no more."""
        asked = super().refresh(presented, access_token, strict)

        def begin_again(failure: Any) -> Any:
            failure.trap(ReusedToken)
            return self.issue(ALICE, None, None, True, True).addCallback(lambda login: login.tokens)

        return asked.addErrback(begin_again)


class CarelessStore(MemoryTokenStore):
    """Does not look at the access token of a refresh."""

    def refresh(
        self, presented: PresentedToken, access_token: str | None, strict: bool
    ) -> Deferred[TokenPair]:
        """Leave it out."""
        return super().refresh(presented, None, strict)


class LaxStore(MemoryTokenStore):
    """Refreshes always leniently."""

    def refresh(
        self, presented: PresentedToken, access_token: str | None, strict: bool
    ) -> Deferred[TokenPair]:
        """Keep the old pair."""
        return super().refresh(presented, access_token, False)


class SternStore(MemoryTokenStore):
    """Refreshes always strictly."""

    def refresh(
        self, presented: PresentedToken, access_token: str | None, strict: bool
    ) -> Deferred[TokenPair]:
        """End the old pair."""
        return super().refresh(presented, access_token, True)


class HoardingStore(MemoryTokenStore):
    """Puts every login on a device of its own."""

    def issue(
        self,
        user_id: str,
        device_id: str | None,
        display_name: str | None,
        refreshable: bool,
        with_refresh_token: bool,
        login_token: str | None = None,
        claim: Claim | None = None,
    ) -> Deferred[Login]:
        """Forget the device."""
        return super().issue(
            user_id, None, display_name, refreshable, with_refresh_token, login_token, claim
        )


class GenerousStore(MemoryTokenStore):
    """Does not use up a login token."""

    def issue(
        self,
        user_id: str,
        device_id: str | None,
        display_name: str | None,
        refreshable: bool,
        with_refresh_token: bool,
        login_token: str | None = None,
        claim: Claim | None = None,
    ) -> Deferred[Login]:
        """Take no notice of it."""
        return super().issue(
            user_id, device_id, display_name, refreshable, with_refresh_token, None, claim
        )


class LinkingStore(MemoryTokenStore):
    """A store that links another account than it is told to."""

    @staticmethod
    def changed(claim: Claim | None) -> Claim | None:
        """Say what is linked."""
        return claim

    def issue(
        self,
        user_id: str,
        device_id: str | None,
        display_name: str | None,
        refreshable: bool,
        with_refresh_token: bool,
        login_token: str | None = None,
        claim: Claim | None = None,
    ) -> Deferred[Login]:
        """Link another."""
        return super().issue(
            user_id,
            device_id,
            display_name,
            refreshable,
            with_refresh_token,
            login_token,
            self.changed(claim),
        )


class TrustingStore(LinkingStore):
    """Links nothing, and lets everybody in who has the name."""

    @staticmethod
    def changed(claim: Claim | None) -> Claim | None:
        """Forget it."""
        return None


class FoldingStore(LinkingStore):
    """Holds accounts for one that differ in case."""

    @staticmethod
    def changed(claim: Claim | None) -> Claim | None:
        """Fold it."""
        return claim and claim._replace(subject=claim.subject.lower())


class SnobbishStore(LinkingStore):
    """Knows a provider by no name that it had before."""

    @staticmethod
    def changed(claim: Claim | None) -> Claim | None:
        """Forget the others."""
        return claim and claim._replace(providers=claim.providers[:1])


class SecretiveStore(MemoryTokenStore):
    """Does not say what the owner of a refresh token is linked to."""

    def present(self, refresh_token: str) -> Deferred[PresentedToken]:
        """Keep the link back."""
        asked = super().present(refresh_token)
        return asked.addCallback(
            lambda found: found._replace(session=found.session._replace(link=None))
        )


class StubbornStore(MemoryTokenStore):
    """Never lets a link give way."""

    def link(self, link: Link, replace: bool) -> Deferred[None]:
        """Do not replace."""
        return super().link(link, False)


class YieldingStore(MemoryTokenStore):
    """Lets a link give way to every other."""

    def link(self, link: Link, replace: bool) -> Deferred[None]:
        """Replace."""
        return super().link(link, True)


class TimelessStore(MemoryTokenStore):
    """Takes expired access tokens."""

    def session_for_access_token(
        self, access_token: str, allow_expired: bool
    ) -> Deferred[SessionInfo]:
        """Allow them."""
        return super().session_for_access_token(access_token, True)


class ContractTests(SynchronousTestCase):
    """The contracts find out who does not keep them."""

    def failed(self, contract: type[TestCase]) -> set[str]:
        """The tests of a contract that fail."""
        failed = set()
        for name in dir(contract):
            if name.startswith("test_"):
                result = TestResult()
                contract(name).run(result)
                self.flushLoggedErrors()
                if not result.wasSuccessful():
                    failed.add(name)
        return failed

    def provider(self, provider: type[testing.FakeProvider]) -> set[str]:
        """The tests that a provider fails."""

        class Contract(testing.PasswordProviderContract, TestCase):
            def make_provider(self) -> IPasswordProvider:
                return provider({ALICE: "wonderland"})

        return self.failed(Contract)

    def store(self, store: type[MemoryTokenStore]) -> set[str]:
        """The tests that a store fails."""

        class Contract(testing.TokenStoreContract, TestCase):
            def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
                return store(None, testing.environment(clock=clock, policy=policy))

        return self.failed(Contract)

    def links(self, store: type[MemoryTokenStore]) -> set[str]:
        """The tests of links that a store fails."""

        class Contract(testing.LinksContract, TestCase):
            def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
                return store(None, testing.environment(clock=clock, policy=policy))

        return self.failed(Contract)

    def test_good(self) -> None:
        """Who keeps them passes."""
        self.assertEqual(self.provider(testing.FakeProvider), set())
        self.assertEqual(self.store(MemoryTokenStore), set())
        self.assertEqual(self.links(MemoryTokenStore), set())

    def test_providers(self) -> None:
        """A provider that does not keep them fails the tests that say so."""
        for provider, expected in (
            (ForgivingProvider, {"test_wrong_password"}),
            (JealousProvider, {"test_unknown_user", "test_user_of_another_server"}),
            (HomelyProvider, {"test_user_of_another_server"}),
            (BareProvider, {"test_right_password"}),
            (HastyProvider, {"test_interface"}),
            (WelcomingProvider, {"test_account_status"}),
            (UnverifiableProvider, {"test_account_status"}),
            (FickleProvider, {"test_subject"}),
            (ForgottenSubjectProvider, {"test_subject"}),
            (LyingProvider, {"test_subject"}),
        ):
            failed = self.provider(provider)
            self.assertLessEqual(expected, failed, provider)
            self.assertNotIn("test_right_password", failed - expected, provider)

    def test_stores(self) -> None:
        """A store that does not keep them fails the tests that say so."""
        for store, expected in (
            (ForgetfulStore, {"test_reuse"}),
            (CarelessStore, {"test_other_session"}),
            (LaxStore, {"test_strict_refresh", "test_race"}),
            (SternStore, {"test_lenient_refresh"}),
            (HoardingStore, {"test_same_device", "test_owner", "test_sessions"}),
            (TimelessStore, {"test_lifetimes"}),
            (
                GenerousStore,
                {"test_login_token", "test_login_tokens_user", "test_login_token_race"},
            ),
        ):
            failed = self.store(store)
            self.assertLessEqual(expected, failed, store)
            self.assertNotIn("test_issue", failed, store)

    def test_links(self) -> None:
        """A store that keeps links otherwise fails the tests that say so, and no others."""
        for store, expected in (
            (
                TrustingStore,
                {
                    "test_first_login",
                    "test_former_names",
                    "test_linked_goes_before_its_new_name",
                    "test_linked_to_another_user_id",
                    "test_login_tokens_end_with_the_link",
                    "test_one_under_two_names_at_once",
                    "test_other_accounts",
                    "test_owners_link",
                    "test_replace",
                    "test_several_names",
                    "test_two_at_once",
                    "test_unlink",
                },
            ),
            (SnobbishStore, {"test_former_names"}),
            (SecretiveStore, {"test_owners_link"}),
            (StubbornStore, {"test_replace", "test_login_tokens_end_with_the_link"}),
            (YieldingStore, {"test_link"}),
        ):
            self.assertEqual(self.links(store), expected, store)
        self.assertIn("test_other_accounts", self.links(FoldingStore))
