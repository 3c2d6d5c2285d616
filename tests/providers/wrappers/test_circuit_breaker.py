"""Tests for the circuit breaker, the cache, and passing over outages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from synapse_login_module import testing
from synapse_login_module.errors import (
    InvalidCredentials,
    Overloaded,
    ProviderBusy,
    ProviderUnavailable,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier
from synapse_login_module.providers.wrappers.cache import PositiveCache
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.providers.wrappers.circuit_breaker import CircuitBreaker
from synapse_login_module.providers.wrappers.timeout import DeadlineProvider
from tests.providers.case import PASSWORD, email, lines, user
from tests.support.accounts import ALICE

BOB = "@bob:example.com"

VOUCHED = Account(ALICE, status=AccountStatus.ACTIVE, subject=ALICE)
REMEMBERED = replace(VOUCHED, status=None)


@implementer(IPasswordProvider)
class CountingProvider:
    """Counts what it is asked, and answers as a :class:`~testing.FakeProvider` or when told to.

    :ivar waiting: while it is a list, questions go there and stay unanswered.
    """

    name = "backend"

    def __init__(self) -> None:
        self.fake = testing.FakeProvider({ALICE: PASSWORD, BOB: "builder"})
        self.emails = {"alice@example.com": ALICE}
        self.asked = 0
        self.looked = 0
        self.waiting: list[Deferred[Any]] | None = None

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Answer."""
        self.asked += 1
        if self.waiting is not None:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        known = self.emails.get(str(identifier))
        if known is not None:
            identifier = user(known[1:].partition(":")[0])
        return self.fake.authenticate(identifier, password)

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Answer."""
        self.looked += 1
        return self.fake.account_status(user_id)


class WrapperCase(SynchronousTestCase):
    """A provider, and something around it."""

    provider: IPasswordProvider

    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = CountingProvider()

    def good(self, who: Identifier | None = None, password: str = PASSWORD) -> Account | None:
        """Log in, and have an answer."""
        return self.successResultOf(self.provider.authenticate(who or user("alice"), password))

    def refused(self, who: Identifier | None = None, password: str = "x") -> None:
        """Log in, and be refused."""
        asked = self.provider.authenticate(who or user("alice"), password)
        self.failureResultOf(asked, InvalidCredentials)

    def outage(self) -> str:
        """Log in, and meet an outage: what is said of it."""
        asked = self.provider.authenticate(user("alice"), PASSWORD)
        return str(self.failureResultOf(asked, ProviderUnavailable).value)

    def down(self, is_down: bool = True) -> None:
        """Have the backend be down, or up."""
        self.backend.fake.failure = ProviderUnavailable("down") if is_down else None


class BreakerContractTests(testing.PasswordProviderContract, TestCase):
    """The contract, through a breaker."""

    def make_provider(self) -> IPasswordProvider:
        return CircuitBreaker(CountingProvider(), 1, 10, 10, Clock().seconds, lambda *_: None)


class CacheContractTests(testing.PasswordProviderContract, TestCase):
    """The contract, through a cache."""

    def make_provider(self) -> IPasswordProvider:
        return PositiveCache(CountingProvider(), 60, 100, Clock().seconds)


class CircuitBreakerTests(WrapperCase):
    """The circuit breaker."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[tuple[str, str, str]] = []
        self.provider = self.breaker = CircuitBreaker(
            self.backend, 3, 60, 10, self.clock.seconds, lambda *what: self.told.append(what)
        )

    def open(self) -> None:
        """Have it open."""
        self.down()
        for _ in range(3):
            self.outage()

    def test_name(self) -> None:
        """It has its provider's name."""
        verifyObject(IPasswordProvider, self.breaker)
        self.assertEqual(self.breaker.name, "backend")

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


class PositiveCacheTests(WrapperCase):
    """The cache."""

    def setUp(self) -> None:
        super().setUp()
        self.provider = self.cache = PositiveCache(self.backend, 60, 3, self.clock.seconds)

    def test_remembers(self) -> None:
        """A right password is remembered for so long, and no longer."""
        self.assertEqual(self.good(), VOUCHED)
        self.clock.advance(59.9)
        self.assertEqual(self.good(), REMEMBERED)
        self.assertEqual(self.backend.asked, 1)
        self.clock.advance(0.1)
        self.assertEqual(self.good(), VOUCHED)
        self.assertEqual(self.backend.asked, 2)

    def test_wrong_passwords(self) -> None:
        """A wrong password is never remembered, nor "not mine", nor an outage."""
        for _ in range(2):
            self.refused()
            self.assertIsNone(self.good(user("nobody")))
        self.down()
        self.outage()
        self.outage()
        self.assertEqual(self.backend.asked, 6)
        self.assertEqual(len(self.cache), 0)

    def test_no_status(self) -> None:
        """A status that came with the account is not remembered with it."""
        self.backend.waiting = []
        asked = self.provider.authenticate(user("alice"), PASSWORD)
        account = VOUCHED
        self.backend.waiting[0].callback(account)
        self.assertEqual(self.successResultOf(asked), account)
        self.assertEqual(self.good(), REMEMBERED)

    def test_who_and_what(self) -> None:
        """What is remembered is good for that name and that password alone."""
        self.good(user("alice"))
        self.refused(user("bob"), PASSWORD)
        self.refused(user("alice"), PASSWORD + " ")
        self.assertEqual(self.backend.asked, 3)

    def test_no_ambiguity(self) -> None:
        """No name and password run together into those of another."""
        cache = self.cache
        tags = {
            cache._tag(user("a"), "b:example.com"),
            cache._tag(user("a", "b:example.com"), ""),
            cache._tag(user("a", ""), "b:example.com"),
            cache._tag(user("a:example.com"), "b"),
            cache._tag(email("@a:example.com"), "b:example.com"),
        }
        self.assertEqual(len(tags), 5)

    def test_keyed(self) -> None:
        """Nothing that is kept says anything about a password without the key."""
        other = PositiveCache(self.backend, 60, 3, self.clock.seconds)
        self.assertNotEqual(
            other._tag(user("alice"), PASSWORD), self.cache._tag(user("alice"), PASSWORD)
        )
        self.good()
        self.assertNotIn(PASSWORD, repr(vars(self.cache)))

    def test_refusal_flushes(self) -> None:
        """A refusal makes it forget the account, under whatever name it was remembered."""
        for remembered, refused in (
            (user("alice"), user("alice")),
            (user("alice"), user("ALICE")),
            (email(), email()),
            (email(), user("alice")),
        ):
            self.backend.fake.passwords["@ALICE:example.com"] = "else"
            self.good(remembered)
            self.good(user("bob"), "builder")
            self.refused(refused)
            before = self.backend.asked
            self.good(user("bob"), "builder")
            self.assertEqual(self.backend.asked, before)
            self.good(remembered)
            self.assertEqual(self.backend.asked, before + 1)
            self.refused(user("alice"))

    def test_email_flushes(self) -> None:
        """A refusal by e-mail forgets the account that is known to have the address."""
        self.backend.waiting = []
        asked = self.provider.authenticate(user("alice"), PASSWORD)
        self.backend.waiting[0].callback(Account(ALICE, None, ("Alice@example.com",)))
        self.successResultOf(asked)
        self.backend.waiting = None
        self.refused(email())
        self.assertEqual(len(self.cache), 0)

    def test_names_apart(self) -> None:
        """A refusal forgets the account of the name in whatever case, and none whose name only
        ``str.lower`` would take for it.
        """
        self.backend.fake.passwords["@kate:example.com"] = "k"
        self.good(user("kate"), "k")
        self.assertIsNone(self.good(user("\u212aate"), "x"))
        self.assertEqual(len(self.cache), 1)
        self.backend.fake.passwords["@KATE:example.com"] = "k"
        self.refused(user("KATE"), "x")
        self.assertEqual(len(self.cache), 0)

    def test_not_mine_flushes(self) -> None:
        """An account that is there no more is forgotten as well."""
        self.good()
        del self.backend.fake.passwords[ALICE]
        self.assertIsNone(self.good(user("alice"), "x"))
        self.assertIsNone(self.good())

    def test_new_password(self) -> None:
        """The new password makes it forget the old one."""
        self.good()
        self.backend.fake.passwords[ALICE] = "looking-glass"
        self.good(user("alice"), "looking-glass")
        self.refused(user("alice"), PASSWORD)

    def test_outage_keeps(self) -> None:
        """While the backend is down what is remembered is good."""
        self.good()
        self.down()
        self.assertEqual(self.good(), REMEMBERED)
        asked = self.provider.authenticate(user("alice"), "x")
        self.failureResultOf(asked, ProviderUnavailable)
        self.assertEqual(self.good(), REMEMBERED)

    def test_status(self) -> None:
        """A status is asked for each time."""
        for status in (AccountStatus.ACTIVE, AccountStatus.LOCKED, AccountStatus.DEACTIVATED):
            self.backend.fake.statuses[ALICE] = status
            self.assertIs(self.successResultOf(self.provider.account_status(ALICE)), status)
        self.assertEqual(self.backend.looked, 3)

    def test_bounded(self) -> None:
        """It keeps no more than it may; the oldest go first."""
        for number in range(5):
            self.backend.fake.passwords[f"@user{number}:example.com"] = "x"
            self.good(user(f"user{number}"), "x")
        self.assertEqual(len(self.cache), 3)
        before = self.backend.asked
        self.good(user("user2"), "x")
        self.assertEqual(self.backend.asked, before)
        self.good(user("user1"), "x")
        self.assertEqual(self.backend.asked, before + 1)

    def test_run_out(self) -> None:
        """What has run out makes room."""
        self.good()
        self.clock.advance(60)
        self.good(user("bob"), "builder")
        self.assertEqual(len(self.cache), 1)

    def test_work(self) -> None:
        """A login, good or refused, is no more work for as many as are remembered."""
        self.provider = self.cache = PositiveCache(self.backend, 60, 1000, self.clock.seconds)
        looked_at = 0

        class Emails(tuple[str, ...]):
            def __iter__(self) -> Iterator[str]:
                nonlocal looked_at
                looked_at += 1
                return super().__iter__()

        for number in range(1000):
            self.backend.waiting = []
            self.provider.authenticate(user(f"user{number}"), "x")
            account = Account(f"@user{number}:example.com", None, Emails(["a@example.com"]))
            self.backend.waiting[0].callback(account)
        self.backend.waiting = None
        looked_at = 0
        self.refused()
        self.good()
        self.assertEqual(len(self.cache), 1000)
        self.assertLess(looked_at, 10)

    def test_odd_text(self) -> None:
        """Any text can be asked about."""
        self.refused(user("alice"), "\ud800")
        self.assertIsNone(self.good(user("\ud800"), "\ud800"))


class PassingOverTests(WrapperCase):
    """Passing over outages: on_unavailable: next."""

    def setUp(self) -> None:
        super().setUp()
        self.provider = self.backend
        self.others = testing.FakeProvider({"@carol:example.com": "carrot"})
        self.others.name = "others"
        self.hashing = testing.FakeHashing()
        self.chain = self.passing_over(self.backend, self.others)

    def passing_over(self, *providers: IPasswordProvider) -> ProviderChain:
        """A chain that passes over the backend's outages."""
        return ProviderChain(providers, self.hashing, passed_over=["backend"])

    def test_alone(self) -> None:
        """An outage is one all the same where there is no other to ask."""
        self.down()
        chain = self.passing_over(self.backend)
        asked: Deferred[Any]
        for asked in (
            chain.authenticate(user("alice"), PASSWORD),
            chain.account_status("backend", ALICE),
            chain.status_by_name(ALICE),
        ):
            error = self.failureResultOf(asked, ProviderUnavailable).value
            self.assertEqual((str(error), error.provider), ("down", "backend"))

    def test_other_failures(self) -> None:
        """A refusal is a refusal, and final."""
        self.refused()
        self.failureResultOf(self.chain.authenticate(user("alice"), "x"), InvalidCredentials)

    def test_next(self) -> None:
        """In a chain the next is asked, for passwords, and for the status of an account that is
        linked to none; the status of one that is linked is asked of its own provider alone.
        """
        self.down()
        account = self.successResultOf(self.chain.authenticate(user("carol"), "carrot"))
        assert account is not None
        self.assertEqual((account.user_id, account.provider), ("@carol:example.com", "others"))
        for asked in (
            self.chain.status_by_name("@carol:example.com"),
            self.chain.account_status("others", "@carol:example.com"),
        ):
            self.assertIs(self.successResultOf(asked), AccountStatus.ACTIVE)
        asked = self.chain.account_status("backend", "@carol:example.com")
        self.failureResultOf(asked, ProviderUnavailable)
        self.failureResultOf(self.chain.authenticate(user("carol"), "x"), InvalidCredentials)

    def test_nobody_waits(self) -> None:
        """Once the circuit is open, whose provider is not known yet is looked at without a wait
        for one that hangs before it, as after a restart.
        """
        self.patch(self.backend, "account_status", lambda _: Deferred())
        in_time = DeadlineProvider(self.backend, 30, self.clock)
        breaker = CircuitBreaker(in_time, 2, 60, 10, self.clock.seconds, lambda *_: None)
        for number in range(4):
            self.others.passwords[f"@user{number}:example.com"] = "x"
        chain = self.passing_over(breaker, self.others)
        looks = [chain.status_by_name(f"@user{number}:example.com") for number in range(2)]
        for look in looks:
            self.assertNoResult(look)
        self.clock.advance(30)
        looks += [chain.status_by_name(f"@user{number}:example.com") for number in range(2, 4)]
        statuses = [self.successResultOf(look) for look in looks]
        self.assertEqual(statuses, [AccountStatus.ACTIVE] * 4)

    def test_nobody_knows(self) -> None:
        """An account that no other knows may be the missing one's: nobody is told that it is
        unknown, and no session ends.
        """
        self.down()
        self.failureResultOf(self.chain.authenticate(user("alice"), PASSWORD), ProviderUnavailable)
        self.failureResultOf(self.chain.status_by_name(ALICE), ProviderUnavailable)
        self.assertEqual(self.hashing.decoys, [])

    def test_up(self) -> None:
        """While nothing is down an unknown user is unknown."""
        asked = self.chain.authenticate(user("nobody"), "x")
        self.assertIsNone(self.successResultOf(asked))
        self.assertEqual(self.hashing.decoys, ["x"])

    def test_final_without(self) -> None:
        """Without it an outage is final, whoever comes next."""
        self.down()
        chain = ProviderChain([self.backend, self.others], self.hashing)
        self.failureResultOf(chain.authenticate(user("carol"), "carrot"), ProviderUnavailable)

    def test_log(self) -> None:
        """Each outage is logged by the provider's name, and no password with it."""
        self.down()
        with capturedLogs() as events:
            self.successResultOf(self.chain.authenticate(user("carol"), "carrot"))
        self.assertEqual(lines(events), ["backend is unavailable: down"])
