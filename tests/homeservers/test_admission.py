"""Tests for which account of the homeserver a login gets."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail

from synapse_login_module.errors import (
    AccountDeactivated,
    AccountNotLinked,
    AccountRefused,
    HomeserverUnavailable,
    HomeserverUnreachable,
)
from synapse_login_module.model import (
    Account,
    HomeserverAccount,
    HomeserverPolicy,
    Link,
)
from tests.homeservers.memory import ALICE, MemoryCase, account


class AdmissionCase(MemoryCase):
    """A test that admits accounts."""

    def admit(self, of: Account | None = None) -> Deferred[str]:
        """Admit an account."""
        return Deferred.fromCoroutine(self.admission.admit(of or account()))

    def existing(self, user_id: str = ALICE, **more: bool) -> None:
        """Make an account at the homeserver that nobody here knows."""
        self.homeserver.accounts[user_id] = HomeserverAccount(user_id, None, **more)

    def link(self, subject: str = "alice", provider: str = "ldap", user_id: str = ALICE) -> None:
        """Link an account."""
        self.successResultOf(self.store.link(Link(user_id, provider, subject), False))


class NewAccountTests(AdmissionCase):
    """A user ID that is free."""

    def test_made(self) -> None:
        """The account is made, with its display name."""
        self.assertEqual(self.done(self.admit()), ALICE)
        self.assertEqual(self.homeserver.accounts[ALICE].display_name, "Alice")

    def test_reserved_for_the_same_person(self) -> None:
        """A login that died before its session began is taken up by the next one."""
        self.done(self.admit())
        self.assertEqual(self.done(self.admit()), ALICE)

    def test_not_for_another_person(self) -> None:
        """Another account of the same name is refused meanwhile."""
        self.done(self.admit())
        error = self.refused(self.admit(account(subject="other")), AccountNotLinked)
        self.assertEqual(error.user_id, ALICE)

    def test_no_session_for_long(self) -> None:
        """An account that was made stays the person's, however late its first session begins."""
        self.done(self.admit())
        self.clock.advance(100_000)
        self.assertEqual(self.done(self.admit()), ALICE)

    def lose_the_answer(self) -> None:
        """Make the account, and lose the answer."""

        def make_account(user_id: str, display_name: str | None) -> Deferred[bool]:
            self.existing(user_id)
            return fail(HomeserverUnavailable("the answer was lost"))

        self.patch(self.homeserver, "make_account", make_account)
        self.refused(self.admit(), HomeserverUnavailable)

    def test_lost_answer(self) -> None:
        """An account that was made although the answer was lost is the person's own."""
        self.lose_the_answer()
        self.refused(self.admit(account(subject="other")), AccountNotLinked)
        self.assertEqual(self.done(self.admit()), ALICE)

    def test_lost_answer_long_ago(self) -> None:
        """Ten minutes later, it may have been made by somebody else."""
        self.lose_the_answer()
        self.clock.advance(601)
        self.refused(self.admit(), AccountNotLinked)

    def made_meanwhile(self) -> None:
        """Have an account made in the moment before the login makes it."""
        make = self.homeserver.make_account

        def make_account(user_id: str, display_name: str | None) -> Deferred[bool]:
            self.existing(user_id)
            return make(user_id, display_name)

        self.patch(self.homeserver, "make_account", make_account)

    def test_made_by_a_stranger_meanwhile(self) -> None:
        """An account that somebody else has just made is not taken over, then or later."""
        self.made_meanwhile()
        admitting = self.admit()
        self.clock.pump([0.1] * 20)
        self.refused(admitting, AccountNotLinked)
        self.refused(self.admit(), AccountNotLinked)

    def test_gone_meanwhile(self) -> None:
        """Nor is it taken over by the next login of a client that did not wait for the refusal."""
        self.made_meanwhile()
        admitting = self.admit()
        self.clock.advance(0.1)
        admitting.cancel()
        self.refused(admitting, CancelledError)
        again = self.admit()
        self.clock.pump([0.1] * 20)
        self.refused(again, AccountNotLinked)

    def test_gone_before_it_is_made(self) -> None:
        """A client that goes away while its account is being made leaves an account, linked."""
        self.homeserver.held = []
        admitting = self.admit()
        while [call[0] for call in self.homeserver.calls][-1] != "make_account":
            self.homeserver.held.pop(0).callback(None)
        admitting.cancel()
        self.refused(admitting, CancelledError)
        self.homeserver.release()
        self.assertIn(ALICE, self.homeserver.accounts)
        self.assertEqual([link.user_id for link in self.done(self.store.links())], [ALICE])

    def test_nothing_was_sent(self) -> None:
        """A login that could not reach the homeserver leaves no reservation."""

        def make_account(user_id: str, display_name: str | None) -> Deferred[bool]:
            return fail(HomeserverUnreachable("refused"))

        self.patch(self.homeserver, "make_account", make_account)
        self.refused(self.admit(), HomeserverUnreachable)
        self.existing()
        self.refused(self.admit(), AccountNotLinked)

    def test_made_by_the_same_person_meanwhile(self) -> None:
        """An account that another login of the same person has just made is found linked."""
        self.made_meanwhile()
        admitting = self.admit()
        self.clock.advance(0.1)
        self.link()
        self.clock.advance(0.1)
        self.assertEqual(self.done(admitting), ALICE)

    def test_invalid_name(self) -> None:
        """A name that makes no user ID there is refused."""
        error = self.refused(self.admit(account("Älice")), AccountRefused)
        self.assertEqual((error.status, error.errcode), (403, "M_FORBIDDEN"))

    def test_application_services_name(self) -> None:
        """A name that an application service has for itself is refused."""
        self.homeserver.reserved.add(ALICE)
        error = self.refused(self.admit(), AccountNotLinked)
        self.assertIn("link_accounts", error.setting)
        self.assertEqual(self.homeserver.accounts, {})

    def test_unavailable(self) -> None:
        """While the homeserver is away, nobody is admitted."""
        self.homeserver.failure = HomeserverUnavailable("it is away")
        self.refused(self.admit(), HomeserverUnavailable)


class NoRegistrationTests(AdmissionCase):
    """``register_users: false``."""

    policy = HomeserverPolicy(register_users=False)

    def test_refused(self) -> None:
        """An account that does not exist is not made."""
        error = self.refused(self.admit(), AccountNotLinked)
        self.assertEqual(error.setting, "register_users: true")
        self.assertEqual(self.homeserver.accounts, {})

    def test_linked_but_gone(self) -> None:
        """A linked account that does not exist is not made either."""
        self.link()
        self.refused(self.admit(), AccountNotLinked)
        self.assertEqual(self.homeserver.accounts, {})


class LinkedTests(AdmissionCase):
    """An account that is linked."""

    def test_admitted(self) -> None:
        """It gets the user ID that it is linked to, whatever its name."""
        self.existing("@other:example.com")
        self.link(user_id="@other:example.com")
        self.assertEqual(self.done(self.admit()), "@other:example.com")

    def test_made_again(self) -> None:
        """It is made where it does not exist, as when an operator linked it beforehand."""
        self.link()
        self.assertEqual(self.done(self.admit()), ALICE)
        self.assertIn(ALICE, self.homeserver.accounts)

    def test_deactivated(self) -> None:
        """It is refused where the homeserver has deactivated it."""
        self.link()
        self.existing(is_deactivated=True)
        self.refused(self.admit(), AccountDeactivated)

    def test_login_token(self) -> None:
        """The user of a login token is checked too, and nothing is linked."""
        self.existing(is_deactivated=True)
        self.refused(self.admit(Account(ALICE)), AccountDeactivated)
        self.assertEqual(self.done(self.store.links()), [])

    def test_login_token_of_a_missing_account(self) -> None:
        """A login token makes no account that the homeserver has lost."""
        self.refused(self.admit(Account(ALICE)), AccountDeactivated)
        self.assertEqual(self.homeserver.accounts, {})

    def test_profile_is_left_alone(self) -> None:
        """Its display name is not carried over unless that is wanted."""
        self.link()
        self.existing()
        self.done(self.admit())
        self.assertIsNone(self.homeserver.accounts[ALICE].display_name)


class ProfileTests(AdmissionCase):
    """``sync_profile: true``."""

    policy = HomeserverPolicy(sync_profile=True)

    def test_carried_over(self) -> None:
        """Each login carries over the display name."""
        self.link()
        self.existing()
        self.done(self.admit())
        self.assertEqual(self.homeserver.accounts[ALICE].display_name, "Alice")

    def test_unchanged(self) -> None:
        """A name that is the same already costs no call."""
        self.link()
        self.homeserver.accounts[ALICE] = HomeserverAccount(ALICE, "Alice")
        self.done(self.admit())
        self.assertEqual([call[0] for call in self.homeserver.calls], ["find_account"])


class ExistingAccountTests(AdmissionCase):
    """An account that the homeserver has, without a link: ``passwordless``."""

    def test_refused(self) -> None:
        """It is not taken over, and nothing is changed."""
        self.existing()
        error = self.refused(self.admit(), AccountNotLinked)
        self.assertIn("existing_accounts: all", error.setting)
        self.assertEqual(self.done(self.store.links()), [])


class NamedAccountTests(AdmissionCase):
    """``link_accounts`` names an account."""

    exceptions = (("ldap", ALICE),)
    policy = HomeserverPolicy(admins=frozenset([ALICE]))

    def test_admitted(self) -> None:
        """It is admitted, an administrator's too."""
        self.existing()
        self.assertEqual(self.done(self.admit()), ALICE)

    def test_old_name(self) -> None:
        """An account whose name would not be allowed today is admitted like any other."""
        old = "@Old Name:example.com"
        self.existing(old)
        self.refused(self.admit(account("Old Name")), AccountNotLinked)

    def test_other_provider(self) -> None:
        """It is not admitted to an account of another provider."""
        self.existing()
        self.refused(self.admit(account(provider="file")), AccountNotLinked)


class AdministratorTests(AdmissionCase):
    """``admins`` names an account."""

    policy = HomeserverPolicy(admins=frozenset([ALICE]))

    def test_free_name(self) -> None:
        """An administrator's account is not made for the first person of that name who comes."""
        error = self.refused(self.admit(), AccountNotLinked)
        self.assertIn("link_accounts", error.setting)
        self.assertEqual(self.homeserver.accounts, {})

    def test_linked(self) -> None:
        """A linked administrator is admitted."""
        self.existing()
        self.link()
        self.assertEqual(self.done(self.admit()), ALICE)


class AllAccountsTests(AdmissionCase):
    """``existing_accounts: all``."""

    existing_accounts = "all"
    policy = HomeserverPolicy(admins=frozenset(["@root:example.com"]))

    def test_admitted(self) -> None:
        """An ordinary account is admitted."""
        self.existing()
        self.assertEqual(self.done(self.admit()), ALICE)

    def test_administrator(self) -> None:
        """An administrator's account is not."""
        self.existing("@root:example.com")
        error = self.refused(self.admit(account("root")), AccountNotLinked)
        self.assertIn("link_accounts", error.setting)

    def test_deactivated(self) -> None:
        """A deactivated account is not."""
        self.existing(is_deactivated=True)
        self.refused(self.admit(), AccountDeactivated)

    def test_linked_to_another(self) -> None:
        """An account that is linked to somebody else is not."""
        self.existing()
        self.link(subject="other")
        self.refused(self.admit(), AccountNotLinked)
