"""Tests for the counting of what providers say."""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from synapse_login_module import testing
from synapse_login_module.errors import (
    InvalidCredentials,
    Overloaded,
    ProviderBusy,
    ProviderUnavailable,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus
from synapse_login_module.providers.wrappers.metrics import MeteredProvider
from tests.providers.case import PASSWORD, user
from tests.support.accounts import ALICE


class MeteredContractTests(testing.PasswordProviderContract, TestCase):
    """The contract, counted."""

    def make_provider(self) -> IPasswordProvider:
        return MeteredProvider(testing.FakeProvider({ALICE: PASSWORD}), lambda *_: None)


class MeteredProviderTests(SynchronousTestCase):
    """What is counted."""

    def setUp(self) -> None:
        self.fake = testing.FakeProvider({ALICE: PASSWORD})
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.provider = MeteredProvider(self.fake, self.count)

    def count(self, *what: str) -> None:
        """Count."""
        self.counts[what] += 1

    def counted(self, operation: str) -> dict[str, int]:
        """The outcomes of an operation; all are of this provider."""
        return {
            outcome: count
            for (name, asked, outcome), count in self.counts.items()
            if (name, asked) == ("fake", operation)
        }

    def test_answers(self) -> None:
        """Each answer is counted and goes on as it is."""
        asked = self.provider.authenticate(user("alice"), PASSWORD)
        account = Account(ALICE, status=AccountStatus.ACTIVE, subject=ALICE)
        self.assertEqual(self.successResultOf(asked), account)
        self.assertIsNone(self.successResultOf(self.provider.authenticate(user("bob"), "x")))
        self.assertEqual(self.counted("authenticate"), {"ok": 1, "unknown": 1})

    def test_statuses(self) -> None:
        """Each status is an outcome of its own."""
        for status in AccountStatus:
            self.fake.statuses[ALICE] = status
            self.assertIs(self.successResultOf(self.provider.account_status(ALICE)), status)
        self.assertIsNone(self.successResultOf(self.provider.account_status("@bob:example.com")))
        self.assertEqual(
            self.counted("account_status"),
            {"active": 1, "locked": 1, "deactivated": 1, "unverifiable": 1, "unknown": 1},
        )

    def test_failures(self) -> None:
        """Each failure is counted by its kind and goes on as it is."""
        failing = (
            (InvalidCredentials("no_usable_hash"), "refused"),
            (ProviderUnavailable("down"), "unavailable"),
            (Overloaded(1.0), "overloaded"),
            (ProviderBusy("64 requests are under way already"), "overloaded"),
            (CancelledError(), "cancelled"),
            (ZeroDivisionError(), "failed"),
        )
        for error, _ in failing:
            self.fake.failure = error
            for asked in (
                self.provider.authenticate(user("alice"), PASSWORD),
                self.provider.account_status(ALICE),
            ):
                failure: Failure = self.failureResultOf(asked)
                self.assertIs(failure.value, error)
        for operation in ("authenticate", "account_status"):
            self.assertEqual(self.counted(operation), Counter(word for _, word in failing))

    def test_cancelled(self) -> None:
        """Giving up gives up whoever is asked."""
        asking: Deferred[Account | None] = Deferred()
        self.patch(self.fake, "authenticate", lambda *_: asking)
        self.provider.authenticate(user("alice"), PASSWORD).addErrback(lambda _: None).cancel()
        self.assertTrue(asking.called)
        self.assertEqual(self.counted("authenticate"), {"cancelled": 1})
