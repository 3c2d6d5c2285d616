"""Tests for asking about one account once at a time."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import AccountStatus, UserId, UserIdentifier
from synapse_login_module.testing import FakeProvider
from tests.providers.wrappers.case import guarded

ALICE, BOB = "@alice:example.com", "@bob:example.com"


class _Slow(FakeProvider):
    """Looks at accounts when it is told to."""

    def __init__(self) -> None:
        super().__init__({ALICE: "wonderland", BOB: "builder"})
        self.asked: list[tuple[str, Deferred[AccountStatus | None]]] = []

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Wait."""
        self.asked.append((user_id, Deferred()))
        return self.asked[-1][1]


class CoalescingTests(SynchronousTestCase):
    """Questions that are under way at once."""

    def setUp(self) -> None:
        self.slow = _Slow()
        self.provider = guarded(self.slow)

    def test_interface(self) -> None:
        """It is a provider, of the same name."""
        verifyObject(IPasswordProvider, self.provider)
        self.assertEqual(self.provider.name, self.slow.name)

    def test_one_place(self) -> None:
        """However many ask for an account, it is asked for once, and all are told."""
        answers = [self.provider.account_status(ALICE) for _ in range(100)]
        other = self.provider.account_status(BOB)
        self.assertEqual([user_id for user_id, _ in self.slow.asked], [ALICE, BOB])
        self.slow.asked[0][1].callback(AccountStatus.LOCKED)
        told = {self.successResultOf(answer) for answer in answers}
        self.assertEqual(told, {AccountStatus.LOCKED})
        self.assertNoResult(other)

    def test_asked_again(self) -> None:
        """Nothing is remembered: who comes after the answer asks anew."""
        for status in (AccountStatus.ACTIVE, None):
            answer = self.provider.account_status(ALICE)
            self.slow.asked.pop()[1].callback(status)
            self.assertIs(self.successResultOf(answer), status)

    def test_failed(self) -> None:
        """An outage is told to all, and the next one asks anew."""
        answers = [self.provider.account_status(ALICE) for _ in range(3)]
        self.slow.asked.pop()[1].errback(ProviderUnavailable("down"))
        for answer in answers:
            self.failureResultOf(answer, ProviderUnavailable)
        self.provider.account_status(ALICE)
        self.assertEqual(len(self.slow.asked), 1)

    def test_gone(self) -> None:
        """Whoever goes away takes nobody's answer along."""
        first, second = (self.provider.account_status(ALICE) for _ in range(2))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.slow.asked[0][1].callback(AccountStatus.ACTIVE)
        self.assertIs(self.successResultOf(second), AccountStatus.ACTIVE)

    def test_at_once(self) -> None:
        """What is known at once is told at once."""
        fake = FakeProvider({ALICE: "wonderland"})
        answer = guarded(fake).account_status(ALICE)
        self.assertIs(self.successResultOf(answer), AccountStatus.ACTIVE)

    def test_passwords(self) -> None:
        """Passwords are asked for each by itself."""
        account = self.successResultOf(
            self.provider.authenticate(UserIdentifier(UserId("alice", "example.com")), "wonderland")
        )
        assert account is not None
        self.assertEqual(account.user_id, ALICE)

    def test_mistake(self) -> None:
        """A mistake of the provider that nobody waits for any more is logged; an outage is not."""
        for error in (ProviderUnavailable("down"), ZeroDivisionError()):
            answer = self.provider.account_status(ALICE)
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
            self.slow.asked.pop()[1].errback(error)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.flushLoggedErrors(), [])
