"""Tests for the memory for passwords that a provider accepted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from synapse_login_module import testing
from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus
from synapse_login_module.providers.wrappers.cache import PasswordCache
from tests.providers.case import PASSWORD, email, user
from tests.providers.wrappers.case import (
    REMEMBERED,
    VOUCHED,
    CountingProvider,
    WrapperCase,
    guarded,
)
from tests.support.accounts import ALICE


class CacheContractTests(testing.PasswordProviderContract, TestCase):
    """The contract, through a cache."""

    def make_provider(self) -> IPasswordProvider:
        return guarded(CountingProvider(), cache=PasswordCache(60, 100, Clock().seconds))


class PasswordCacheTests(WrapperCase):
    """The cache."""

    def setUp(self) -> None:
        super().setUp()
        self.remember(3)

    def remember(self, entries: int) -> None:
        """Have so many passwords be remembered."""
        self.cache = PasswordCache(60, entries, self.clock.seconds)
        self.provider = guarded(self.backend, self.clock, cache=self.cache)

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
        other = PasswordCache(60, 3, self.clock.seconds)
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

    def test_not_kept(self) -> None:
        """The right password of an account that may not log in is not remembered."""
        alice = user("alice")
        for status in AccountStatus:
            self.cache.update(alice, PASSWORD, VOUCHED)
            self.cache.update(alice, PASSWORD, replace(VOUCHED, status=status))
            found = self.cache.find(alice, PASSWORD)
            expected = REMEMBERED if status is AccountStatus.ACTIVE else None
            self.assertEqual(found, expected, status)

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
        self.remember(1000)
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
