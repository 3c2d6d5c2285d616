"""Tests for the circuit breaker of a provider."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from synapse_login_module import testing
from synapse_login_module.errors import (
    Overloaded,
    ProviderBusy,
    ProviderUnavailable,
    UnusableAccount,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus
from tests.providers.case import PASSWORD, lines, user
from tests.providers.wrappers.case import VOUCHED, CountingProvider, WrapperCase, guarded
from tests.support.accounts import ALICE


class BreakerContractTests(testing.PasswordProviderContract, TestCase):
    """The contract, through a breaker."""

    def make_provider(self) -> IPasswordProvider:
        return guarded(CountingProvider(), breaking=(1, 10, 10))


class CircuitBreakerTests(WrapperCase):
    """The circuit breaker."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[tuple[str, str, str]] = []
        self.provider = guarded(
            self.backend,
            self.clock,
            breaking=(3, 60, 10),
            circuit=lambda *what: self.told.append(what),
        )

    def open(self) -> None:
        """Have it open."""
        self.down()
        for _ in range(3):
            self.outage()

    def test_closed(self) -> None:
        """As long as it is closed every question and every answer goes through."""
        for _ in range(10):
            self.assertEqual(self.good(), VOUCHED)
            self.assertIsNone(self.good(user("nobody")))
            self.refused()
        self.assertEqual(self.backend.asked, 30)

    def test_opens(self) -> None:
        """After so many outages in a row nobody is asked, and it says so at once."""
        self.open()
        self.assertEqual(self.backend.asked, 3)
        self.assertIn("is left alone", self.outage())
        self.down(False)
        self.assertIn("is left alone", self.outage())
        self.assertEqual(self.backend.asked, 3)

    def test_in_a_row(self) -> None:
        """Any answer in between, a refusal too, begins the count anew."""
        for answer in (self.good, self.refused, lambda: self.good(user("nobody"))):
            for _ in range(3):
                self.down()
                self.outage()
                self.outage()
                self.down(False)
                answer()
        self.assertEqual(self.backend.asked, 27)

    def test_window(self) -> None:
        """Outages that are further apart than the window do not open it."""
        self.down()
        for _ in range(10):
            self.assertEqual(self.outage(), "down")
            self.clock.advance(30.1)
        self.assertEqual(self.backend.asked, 10)

    def test_half_open(self) -> None:
        """After the pause one question goes through; the others wait for nothing."""
        self.open()
        self.clock.advance(9.9)
        self.outage()
        self.clock.advance(0.1)
        self.backend.waiting = []
        trial = self.provider.authenticate(user("alice"), PASSWORD)
        self.outage()
        self.assertEqual(len(self.backend.waiting), 1)
        self.backend.waiting[0].callback(Account(ALICE))
        self.successResultOf(trial)
        self.backend.waiting = None
        self.down(False)
        self.assertEqual(self.good(), VOUCHED)

    def test_trial_fails(self) -> None:
        """When that one meets an outage the pause begins anew."""
        self.open()
        for _ in range(3):
            self.clock.advance(10)
            self.assertEqual(self.outage(), "down")
            self.assertIn("is left alone", self.outage())
        self.assertEqual(self.backend.asked, 6)

    def test_trial_refused(self) -> None:
        """A refusal is an answer: the provider is back."""
        self.open()
        self.down(False)
        self.clock.advance(10)
        self.refused()
        self.assertEqual(self.good(), VOUCHED)

    def test_trial_given_up(self) -> None:
        """When whoever tried goes away, or finds no room to hash, the next one tries."""
        self.open()
        self.clock.advance(10)
        self.backend.waiting = []
        trial = self.provider.authenticate(user("alice"), PASSWORD)
        trial.cancel()
        self.failureResultOf(trial, CancelledError)
        second = self.provider.authenticate(user("alice"), PASSWORD)
        self.backend.waiting[1].errback(Overloaded(1.0))
        self.failureResultOf(second, Overloaded)
        third = self.provider.authenticate(user("alice"), PASSWORD)
        self.backend.waiting[2].callback(None)
        self.assertIsNone(self.successResultOf(third))
        self.backend.waiting = None
        self.down(False)
        self.good()

    def test_late_outages(self) -> None:
        """Answers to questions from before it opened change nothing."""
        self.backend.waiting = []
        early = [self.provider.authenticate(user("alice"), PASSWORD) for _ in range(6)]
        waiting, self.backend.waiting = self.backend.waiting, None
        self.open()
        self.clock.advance(5)
        for deferred, asked in zip(waiting[:4], early[:4], strict=True):
            deferred.errback(ProviderUnavailable("down"))
            self.failureResultOf(asked, ProviderUnavailable)
        waiting[4].callback(Account(ALICE))
        self.assertIn("is left alone", self.outage())
        self.clock.advance(5)
        self.assertEqual(self.outage(), "down")
        waiting[5].callback(Account(ALICE))

    def test_unusable_account(self) -> None:
        """An account that cannot be used is an answer, also in a trial, and an outage to its login
        alone.
        """
        unusable = UnusableAccount("user_id is no user ID of this server")
        self.backend.fake.failure = unusable
        for _ in range(10):
            self.assertEqual(self.outage(), str(unusable))
        self.assertEqual(self.told, [])
        self.open()
        self.clock.advance(10)
        self.backend.fake.failure = unusable
        self.assertEqual(self.outage(), str(unusable))
        self.down(False)
        self.assertEqual(self.good(), VOUCHED)

    def test_neither_counts(self) -> None:
        """No room, to hash or to ask, is nobody's outage, and a client that goes away neither."""
        for error in (Overloaded(1.0), ProviderBusy("64 requests are under way already")):
            self.backend.fake.failure = error
            for _ in range(10):
                failed = self.provider.authenticate(user("alice"), "x")
                self.assertIs(self.failureResultOf(failed).value, error)
        self.backend.waiting = []
        for _ in range(10):
            asked = self.provider.authenticate(user("alice"), PASSWORD)
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.told, [])

    def test_apart(self) -> None:
        """Logins and statuses are counted apart."""
        self.open()
        self.down(False)
        self.assertIs(
            self.successResultOf(self.provider.account_status(ALICE)), AccountStatus.ACTIVE
        )
        self.assertIn("is left alone", self.outage())
        self.down()
        for _ in range(5):
            self.failureResultOf(self.provider.account_status(ALICE), ProviderUnavailable)
        self.assertEqual(self.backend.looked, 4)

    def test_log_and_metric(self) -> None:
        """Each change of state is logged once, and told."""
        with capturedLogs() as events:
            self.open()
            self.outage()
            self.outage()
            self.clock.advance(10)
            self.outage()
            self.down(False)
            self.clock.advance(10)
            self.good()
            self.good()
        states = ("open", "half-open", "open", "half-open", "closed")
        self.assertEqual(
            lines(events), [f"backend.authenticate: the circuit is {state}" for state in states]
        )
        self.assertEqual(self.told, [("backend", "authenticate", state) for state in states])
