"""Tests for what stands around every provider: its timeout, and the count of what it says."""

from __future__ import annotations

from collections import Counter
from typing import NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from synapse_login_module import testing
from synapse_login_module.errors import (
    InvalidCredentials,
    Overloaded,
    ProviderBusy,
    ProviderUnavailable,
    RateLimited,
    StoreUnavailable,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier
from tests.providers.case import PASSWORD, user
from tests.providers.wrappers.case import VOUCHED, PatientProvider, WrapperCase, guarded
from tests.support.accounts import ALICE


class GuardedContractTests(testing.PasswordProviderContract, TestCase):
    """The contract, kept in time and counted."""

    def make_provider(self) -> IPasswordProvider:
        return guarded(testing.FakeProvider({ALICE: PASSWORD}))


class TimeoutTests(WrapperCase):
    """A provider that takes its time."""

    def setUp(self) -> None:
        super().setUp()
        self.patient = PatientProvider()
        self.provider = guarded(self.patient, self.clock, timeout=5)

    def test_interface(self) -> None:
        """It is a provider, of the same name."""
        verifyObject(IPasswordProvider, self.provider)
        self.assertEqual(self.provider.name, "patient")

    def test_in_time(self) -> None:
        """What comes in time comes as it is, and nothing is left behind."""
        asked = self.provider.authenticate(user("alice"), PASSWORD)
        looked = self.provider.account_status(ALICE)
        self.clock.advance(4.9)
        self.patient.authenticating.callback(Account(ALICE))
        self.patient.looking.callback(AccountStatus.LOCKED)
        self.assertEqual(self.successResultOf(asked), Account(ALICE))
        self.assertIs(self.successResultOf(looked), AccountStatus.LOCKED)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.patient.cancelled, 0)

    def test_failure_in_time(self) -> None:
        """A refusal in time is a refusal."""
        asked = self.provider.authenticate(user("alice"), PASSWORD)
        self.patient.authenticating.errback(InvalidCredentials())
        self.failureResultOf(asked, InvalidCredentials)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_late(self) -> None:
        """At the deadline the provider is given up and called unavailable, by name."""
        asked = self.provider.authenticate(user("alice"), PASSWORD)
        looked = self.provider.account_status(ALICE)
        self.clock.advance(5)
        for each in (asked, looked):
            failure = self.failureResultOf(each, ProviderUnavailable)
            self.assertIn("patient", str(failure.value))
        self.assertEqual(self.patient.cancelled, 2)

    def test_cannot_be_given_up(self) -> None:
        """A provider that answers in spite of being given up is too late all the same."""
        for answer in (
            lambda deferred: deferred.callback(Account(ALICE)),
            lambda deferred: deferred.errback(InvalidCredentials()),
        ):
            self.patient.authenticating = Deferred(answer)
            asked = self.provider.authenticate(user("alice"), PASSWORD)
            self.clock.advance(5)
            self.failureResultOf(asked, ProviderUnavailable)

    def test_cancelled(self) -> None:
        """A client that goes away gives up the provider, which is not called unavailable."""
        asked = self.provider.authenticate(user("alice"), PASSWORD)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.patient.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """An answer that is there at once needs no clock."""
        self.provider = guarded(self.backend, self.clock, timeout=5)
        self.assertEqual(self.good(), VOUCHED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_raises(self) -> None:
        """A provider that raises, where it is to fail, fails."""

        @implementer(IPasswordProvider)
        class Raising:
            name = "raising"

            def authenticate(self, identifier: Identifier, password: str) -> NoReturn:
                raise ZeroDivisionError("a mistake")

            def account_status(self, user_id: str) -> NoReturn:
                raise ZeroDivisionError("a mistake")

        provider = guarded(Raising(), self.clock, timeout=5)
        self.failureResultOf(provider.authenticate(user("alice"), "x"), ZeroDivisionError)
        self.failureResultOf(provider.account_status(ALICE), ZeroDivisionError)


class CountTests(SynchronousTestCase):
    """What is counted."""

    def setUp(self) -> None:
        self.fake = testing.FakeProvider({ALICE: PASSWORD})
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.provider = guarded(self.fake, outcome=self.count)

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
            {"unknown": 1, **{status.value: 1 for status in AccountStatus}},
        )

    def test_failures(self) -> None:
        """Each failure is counted by its kind and goes on as it is."""
        failing = (
            (InvalidCredentials("no_usable_hash"), "refused"),
            (ProviderUnavailable("down"), "unavailable"),
            (Overloaded(1.0), "overloaded"),
            (ProviderBusy("64 requests are under way already"), "overloaded"),
            (CancelledError(), "cancelled"),
            (RateLimited(1.0), "failed"),
            (StoreUnavailable("the disk is full"), "failed"),
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
