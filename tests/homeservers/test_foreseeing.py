"""Tests for foretelling which account of the homeserver a login would get."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from synapse_login_module.errors import LoginServiceError
from synapse_login_module.homeservers.admission import Foreseen
from synapse_login_module.model import (
    APPLICATION_SERVICE,
    Account,
    Claim,
    HomeserverAccount,
    HomeserverPolicy,
    Link,
)
from tests.homeservers.memory import ALICE, MemoryCase, account

Prepare = Callable[["ForeseeingCase"], None]


class ForeseeingCase(MemoryCase):
    """A test that foretells a login, and then makes it."""

    def existing(self, user_id: str = ALICE, *, is_deactivated: bool = False) -> None:
        """Make an account at the homeserver that nobody here knows."""
        self.homeserver.accounts[user_id] = HomeserverAccount(
            user_id, None, is_deactivated=is_deactivated
        )

    def link(self, subject: str = "alice", provider: str = "ldap", user_id: str = ALICE) -> None:
        """Link an account."""
        self.successResultOf(self.store.link(Link(user_id, provider, subject), False))

    def existing_and_linked(self, is_deactivated: bool) -> None:
        """Make an account at the homeserver, and link it."""
        self.existing(is_deactivated=is_deactivated)
        self.link()

    def foresee(self, of: Account) -> Foreseen | Exception:
        """Foretell a login."""
        return self.outcome(Deferred.fromCoroutine(self.admission.foresee(of)))

    def outcome(self, work: Deferred[Foreseen] | Deferred[str]) -> Foreseen | Exception:
        """Return the result of work, or its error."""
        results: list[object] = []
        work.addBoth(results.append)
        (result,) = results
        problem = getattr(result, "value", result)
        if isinstance(problem, Exception) and not isinstance(problem, LoginServiceError):
            raise problem
        return problem if isinstance(problem, Exception) else result  # type: ignore[return-value]

    def state(self) -> object:
        """Return all that a login changes."""
        return (
            dict(self.homeserver.accounts),
            self.successResultOf(self.store.links()),
            repr(self.store.notes._names),
        )

    def assert_foreseen(self, of: Account | None = None) -> Foreseen | Exception:
        """What is foretold is what happens, and to foretell it changes nothing."""
        of = of or account()
        before = self.state()
        foreseen = self.foresee(of)
        self.assertEqual(self.state(), before)
        done = self.outcome(Deferred.fromCoroutine(self.admission.admit(of)))
        if isinstance(foreseen, Exception):
            self.assertEqual((type(foreseen), str(foreseen)), (type(done), str(done)))
            return foreseen
        self.assertEqual(foreseen.user_id, done)
        return foreseen


class ForeseenTests(ForeseeingCase):
    """A homeserver with the default rules."""

    def test_free(self) -> None:
        """The account of a free name would be made and linked."""
        self.assertEqual(self.assert_foreseen(), Foreseen(ALICE, None, is_new=True))

    def test_linked(self) -> None:
        """A linked account is found at the homeserver, or would be made there."""
        self.link()
        self.assertEqual(self.assert_foreseen(), Foreseen(ALICE, None, is_new=False))
        found = self.homeserver.accounts[ALICE]
        self.assertEqual(self.assert_foreseen(), Foreseen(ALICE, found, is_new=False))

    def test_linked_elsewhere(self) -> None:
        """An account that is linked to another name logs in as that."""
        self.existing("@old:example.com")
        self.link(user_id="@old:example.com")
        foreseen = self.assert_foreseen()
        self.assertEqual(getattr(foreseen, "user_id", ""), "@old:example.com")

    def test_rejected(self) -> None:
        """The refusal of a login is foretold."""
        cases: tuple[tuple[str, Prepare, Account], ...] = (
            ("existing", lambda case: case.existing(), account()),
            ("deactivated", lambda case: case.existing_and_linked(is_deactivated=True), account()),
            ("another's", lambda case: case.link("other"), account()),
            ("reserved", lambda case: case.homeserver.reserved.add(ALICE), account()),
            ("no name", lambda case: None, account("é")),
        )
        for name, prepare, of in cases:
            self.setUp()
            prepare(self)
            self.assertIsInstance(self.assert_foreseen(of), LoginServiceError, name)

    def test_first_login_of_another(self) -> None:
        """While another account's first login is under way, the name is not free."""
        self.successResultOf(self.store.reserve_name(ALICE, Claim(("ldap",), "other")))
        self.assertIn("under way", str(self.assert_foreseen()))

    def test_of_an_application_service(self) -> None:
        """The link of an application service's login stays where it is only foretold."""
        self.existing()
        self.link(ALICE, APPLICATION_SERVICE)
        self.successResultOf(self.store.reserve_name(ALICE, Claim(("ldap",), "alice")))
        self.link(ALICE, APPLICATION_SERVICE)
        foreseen = self.assert_foreseen()
        self.assertEqual(getattr(foreseen, "is_new", None), True)


class NoRegistrationTests(ForeseeingCase):
    """A homeserver where logins make no accounts."""

    policy = HomeserverPolicy(register_users=False)

    def test_not_made(self) -> None:
        """That no account is made is foretold, whether there is a link or not."""
        self.assertIn("register_users", str(self.assert_foreseen()))
        self.link()
        self.assertIn("register_users", str(self.assert_foreseen()))
