"""Tests for several providers as one: who is asked, and what a login is completed with."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import compose, testing
from synapse_login_module.config.settings import ProviderPlugin
from synapse_login_module.errors import InvalidCredentials, Overloaded, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Claim, Identifier
from synapse_login_module.providers.wrappers.chain import ProviderChain
from tests.providers.case import PASSWORD, lines, user
from tests.providers.wrappers.case import PatientProvider
from tests.support.accounts import ALICE

BOB = "@bob:example.com"


class BlindProvider(testing.FakeProvider):
    """Cannot look at accounts without a password."""

    name = "blind"
    verifiable = False

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Vouch for the name alone, as older providers do."""
        asked = super().authenticate(identifier, password)
        return asked.addCallback(lambda account: account and Account(account.user_id))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Say so."""
        return succeed(AccountStatus.UNVERIFIABLE)


class ChainCase(SynchronousTestCase):
    """A chain of two."""

    def setUp(self) -> None:
        self.hashing = testing.FakeHashing()
        self.first = testing.FakeProvider({ALICE: PASSWORD})
        self.second = testing.FakeProvider({ALICE: "looking-glass", BOB: "builder"})
        self.first.name, self.second.name = "first", "second"
        self.chain = ProviderChain([self.first, self.second], self.hashing)

    def passing_over(self, *providers: IPasswordProvider) -> ProviderChain:
        """A chain that passes over the first one's outages: on_unavailable: next."""
        return ProviderChain(providers, self.hashing, passed_over=[providers[0].name])

    def log_in(self, chain: ProviderChain, name: str, password: str) -> Account | None:
        """The account that is vouched for."""
        return self.successResultOf(chain.authenticate(user(name), password))


class AuthenticateTests(ChainCase):
    """Passwords."""

    def test_in_order(self) -> None:
        """The first that knows the account answers; its name, the account's status and what it is
        linked by are put down.
        """
        for name, password, provider in (
            ("alice", PASSWORD, "first"),
            ("bob", "builder", "second"),
        ):
            user_id = f"@{name}:example.com"
            self.assertEqual(
                self.log_in(self.chain, name, password),
                Account(
                    user_id,
                    provider=provider,
                    status=AccountStatus.ACTIVE,
                    subject=user_id,
                    named=user_id,
                    claim=Claim((provider,), user_id),
                ),
            )
        self.assertEqual(self.hashing.decoys, [])

    def test_former_names(self) -> None:
        """What an account is linked by names what its provider was called before."""
        chain = ProviderChain([self.first, self.second], None, {"first": ("staff", "ldap")})
        account = self.log_in(chain, "alice", PASSWORD)
        assert account is not None
        self.assertEqual(account.claim, Claim(("first", "staff", "ldap"), ALICE))
        self.assertEqual(account.named, ALICE)

    def test_own(self) -> None:
        """An account of the homeserver's own is linked by nothing."""
        patient = PatientProvider()
        asked = ProviderChain([patient], None).authenticate(user("alice"), PASSWORD)
        patient.authenticating.callback(Account(ALICE, is_local=True, status=AccountStatus.ACTIVE))
        account = self.successResultOf(asked)
        assert account is not None
        self.assertIsNone(account.claim)

    def test_status_is_asked_for(self) -> None:
        """Where no status came with the account its provider is asked, by the subject; one that it
        knows no more by then is closed.
        """
        for subject, asked_by in (("u-17", "u-17"), ("", ALICE)):
            for status, expected in (
                (AccountStatus.LOCKED, AccountStatus.LOCKED),
                (AccountStatus.UNVERIFIABLE, AccountStatus.UNVERIFIABLE),
                (None, AccountStatus.DEACTIVATED),
            ):
                patient = PatientProvider()
                chain = ProviderChain([patient, self.second], self.hashing)
                asked = chain.authenticate(user("alice"), PASSWORD)
                patient.authenticating.callback(Account(ALICE, subject=subject))
                self.assertNoResult(asked)
                self.assertEqual(patient.looked, [asked_by])
                patient.looking.callback(status)
                account = self.successResultOf(asked)
                assert account is not None
                self.assertIs(account.status, expected)
                self.assertEqual(account.claim, Claim(("patient",), asked_by))

    def test_subject_of_another(self) -> None:
        """A subject that is a user ID is the account's own, as it stands or with its case folded;
        another's is an outage, whatever the account's status is, and no other provider is asked.
        """
        old = "@Alice:example.com"

        def vouch(user_id: str, subject: str, status: AccountStatus | None) -> Deferred[Any]:
            patient = PatientProvider()
            patient.authenticating = succeed(Account(user_id, subject=subject, status=status))
            patient.looking = succeed(AccountStatus.ACTIVE)
            chain = self.passing_over(patient, self.second)
            return chain.authenticate(user("bob"), "builder")

        for status in (AccountStatus.ACTIVE, None):
            for user_id, subject in ((ALICE, ALICE), (ALICE, old), (old, old), (BOB, "u-17")):
                account = self.successResultOf(vouch(user_id, subject, status))
                self.assertEqual(account.claim, Claim(("patient",), subject))
            for user_id, subject in ((BOB, ALICE), (BOB, old), (old, ALICE), (BOB, "@bob")):
                with capturedLogs() as events:
                    self.failureResultOf(vouch(user_id, subject, status), ProviderUnavailable)
                problem = f"{user_id} has another user ID as its subject: {subject}"
                self.assertEqual(
                    lines(events, LogLevel.warn), [f"patient is unavailable: {problem}"]
                )

    def test_status_in_hand(self) -> None:
        """A status that came with the account is not asked for again."""
        patient = PatientProvider()
        asked = ProviderChain([patient], None).authenticate(user("alice"), PASSWORD)
        patient.authenticating.callback(Account(ALICE, status=AccountStatus.LOCKED))
        account = self.successResultOf(asked)
        assert account is not None
        self.assertIs(account.status, AccountStatus.LOCKED)
        self.assertEqual(patient.looked, [])

    def test_status_outage(self) -> None:
        """Once a provider has vouched no other is asked, also when it cannot say the status and is
        one to pass over: the next may have a password for the same name.
        """
        patient = PatientProvider()
        patient.authenticating = succeed(Account(ALICE))
        patient.looking = fail(ProviderUnavailable("down"))
        with capturedLogs() as events:
            chain = self.passing_over(patient, self.second)
            asked = chain.authenticate(user("alice"), "looking-glass")
        self.failureResultOf(asked, ProviderUnavailable)
        self.assertEqual(lines(events), ["patient is unavailable: down"])

    def test_refusal_is_final(self) -> None:
        """Who knows the account and refuses has the last word: no other is asked, no decoy made."""
        self.failureResultOf(
            self.chain.authenticate(user("alice"), "looking-glass"), InvalidCredentials
        )
        self.assertEqual(self.hashing.decoys, [])

    def test_decoy(self) -> None:
        """When nobody knows the account one decoy is hashed, at the end."""
        self.assertIsNone(self.log_in(self.chain, "nobody", "x"))
        self.assertEqual(self.hashing.decoys, ["x"])

    def test_no_decoy(self) -> None:
        """Without a pool whoever asks sees to that."""
        chain = ProviderChain([self.first], None)
        self.assertIsNone(self.log_in(chain, "nobody", "x"))

    def test_decoy_takes_its_time(self) -> None:
        """The answer comes only when the decoy is hashed, and not when there is no room for it."""
        decoy: Deferred[None] = Deferred()
        self.patch(self.hashing, "decoy", lambda password: decoy)
        asked = self.chain.authenticate(user("nobody"), "x")
        self.assertNoResult(asked)
        decoy.callback(None)
        self.assertIsNone(self.successResultOf(asked))
        self.patch(self.hashing, "decoy", lambda password: fail(Overloaded(1.0)))
        self.failureResultOf(self.chain.authenticate(user("nobody"), "x"), Overloaded)

    def test_outage_is_final(self) -> None:
        """While one cannot say, the next is not asked: it might vouch for somebody else's name."""
        self.first.failure = ProviderUnavailable("down")
        self.failureResultOf(self.chain.authenticate(user("bob"), "builder"), ProviderUnavailable)
        self.failureResultOf(self.chain.status_by_name(BOB), ProviderUnavailable)
        self.assertEqual(self.hashing.decoys, [])

    def test_later_outage(self) -> None:
        """An outage of one that need not be asked does no harm."""
        self.second.failure = ProviderUnavailable("down")
        self.assertIsNotNone(self.log_in(self.chain, "alice", PASSWORD))
        for asked in (
            self.chain.account_status("first", ALICE),
            self.chain.status_by_name(ALICE),
        ):
            self.assertIs(self.successResultOf(asked), AccountStatus.ACTIVE)

    def test_cancelled(self) -> None:
        """Giving up gives up whoever is being asked."""
        patient = PatientProvider()
        chain = ProviderChain([patient, self.first], self.hashing)
        questions: tuple[Deferred[Any], ...] = (
            chain.authenticate(user("alice"), PASSWORD),
            chain.account_status("patient", ALICE),
        )
        for number, asked in enumerate(questions, 1):
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
            self.assertEqual(patient.cancelled, number)


class StatusTests(ChainCase):
    """Accounts that are looked at again."""

    def status(self, provider: str, subject: str = ALICE) -> AccountStatus | None:
        """What one provider says."""
        return self.successResultOf(self.chain.account_status(provider, subject))

    def by_name(self, chain: ProviderChain, user_id: str = ALICE) -> AccountStatus | None:
        """What all of them say."""
        return self.successResultOf(chain.status_by_name(user_id))

    def test_one_provider(self) -> None:
        """The provider that an account is linked to is asked, and no other, whoever else knows one
        of that name.
        """
        self.first.statuses[ALICE] = AccountStatus.LOCKED
        self.assertIs(self.status("first"), AccountStatus.LOCKED)
        self.assertIs(self.status("second"), AccountStatus.ACTIVE)
        del self.first.passwords[ALICE]
        self.assertIsNone(self.status("first"))
        self.first.failure = ProviderUnavailable("down")
        self.failureResultOf(self.chain.account_status("first", ALICE), ProviderUnavailable)
        self.assertIs(self.status("second"), AccountStatus.ACTIVE)

    def test_former_name(self) -> None:
        """A provider is found by the names that it had."""
        self.chain = ProviderChain([self.first, self.second], None, {"first": ("staff",)})
        self.first.statuses[ALICE] = AccountStatus.LOCKED
        self.assertIs(self.status("staff"), AccountStatus.LOCKED)

    def test_no_such_provider(self) -> None:
        """Where there is no such provider any more nobody can say, and nothing ends; the log says
        so once for each.
        """
        with capturedLogs() as events:
            for name in ("gone", "gone", "lost", "gone"):
                self.assertIs(self.status(name), AccountStatus.UNVERIFIABLE)
        warnings = lines(events)
        self.assertEqual(len(warnings), 2)
        for name, line in zip(("gone", "lost"), warnings, strict=True):
            self.assertIn(f"accounts are linked to {name}, which is not among", line)

    def test_by_name(self) -> None:
        """For an account that is linked to none the first that knows its name says the status."""
        self.first.statuses[ALICE] = AccountStatus.LOCKED
        self.second.statuses[BOB] = AccountStatus.DEACTIVATED
        self.assertIs(self.by_name(self.chain), AccountStatus.LOCKED)
        self.assertIs(self.by_name(self.chain, BOB), AccountStatus.DEACTIVATED)
        self.assertIsNone(self.by_name(self.chain, "@nobody:example.com"))

    def test_unchecked(self) -> None:
        """One that cannot say leaves it to the others, wherever it stands; if none of them knows
        the account nobody can say, and it is not gone.
        """
        blind = BlindProvider({})
        self.first.statuses[ALICE] = AccountStatus.LOCKED
        for order in ([blind, self.first], [self.first, blind]):
            chain = ProviderChain(order, self.hashing)
            self.assertIs(self.by_name(chain), AccountStatus.LOCKED)
            self.assertIs(self.by_name(chain, "@nobody:example.com"), AccountStatus.UNVERIFIABLE)

    def test_blind(self) -> None:
        """Whoever vouched and cannot look at accounts has said all: nobody else is asked."""
        chain = ProviderChain([BlindProvider({ALICE: PASSWORD}), PatientProvider()], None)
        account = self.log_in(chain, "alice", PASSWORD)
        assert account is not None
        self.assertIs(account.status, AccountStatus.UNVERIFIABLE)
        self.assertEqual(account.claim, Claim(("blind",), ALICE))


class ComposedTests(ChainCase):
    """Chains as the configuration makes them."""

    def composed(self, *providers: IPasswordProvider, **keys: Any) -> ProviderChain:
        """A chain of these, all of whose entries have these keys."""
        plugins = [ProviderPlugin.model_validate({"module": "a.b", **keys}) for _ in providers]
        return compose.chain(plugins, providers, None, Clock(), compose.meter(Counter()))

    def test_unverifiable(self) -> None:
        """One that can never say an account's status is a warning at the start, by its name in the
        configuration, and no other is.
        """
        with capturedLogs() as events:
            self.composed(self.first, BlindProvider({}), self.second)
        (line,) = lines(events)
        self.assertIn("blind can never say whether an account is still there", line)
        with capturedLogs() as events:
            self.composed(BlindProvider({}), name="intranet")
        (line,) = lines(events)
        self.assertTrue(line.startswith("intranet can never say"), line)

    def test_names(self) -> None:
        """Names of the configuration, of today and before, are what accounts are linked by."""
        chain = self.composed(self.first, name="staff", former_names=["ldap", "people"])
        account = self.log_in(chain, "alice", PASSWORD)
        assert account is not None
        self.assertEqual(account.claim, Claim(("staff", "ldap", "people"), ALICE))
        for name in ("staff", "ldap", "people"):
            status = self.successResultOf(chain.account_status(name, ALICE))
            self.assertIs(status, AccountStatus.ACTIVE)


class RefusalTests(SynchronousTestCase):
    """Who refused, as the log is to say it."""

    def test_named(self) -> None:
        """An error that ends a login names the provider that it came from."""
        last = PatientProvider()
        chain = ProviderChain([testing.FakeProvider({BOB: PASSWORD}), last], None)
        wrong = chain.authenticate(user("bob"), "wrong")
        self.assertEqual(self.failureResultOf(wrong, InvalidCredentials).value.provider, "fake")
        for error in (InvalidCredentials(), ProviderUnavailable("gone"), Overloaded(1.0)):
            last.authenticating = fail(error)
            failed = self.failureResultOf(chain.authenticate(user("alice"), "x"), type(error))
            self.assertEqual(failed.value.provider, "patient")

    def test_passed_over(self) -> None:
        """So does an outage that was passed over, when no other provider knows the account."""
        first = PatientProvider()
        first.authenticating = fail(ProviderUnavailable("gone"))
        chain = ProviderChain([first, testing.FakeProvider({})], None, passed_over=["patient"])
        failed = self.failureResultOf(chain.authenticate(user("alice"), "x"), ProviderUnavailable)
        self.assertEqual(failed.value.provider, "patient")
