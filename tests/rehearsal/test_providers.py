"""Tests for providers that tell what they answer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from synapse_login_module.config.settings import ProviderPlugin
from synapse_login_module.errors import InvalidCredentials, Overloaded, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import AccountStatus, UserId, UserIdentifier
from synapse_login_module.rehearsal.providers import TracedProvider, tracing
from synapse_login_module.rehearsal.steps import Step, Trace
from synapse_login_module.testing.fakes import FakeProvider

ALICE = "@alice:example.com"


class TracedProviderTests(SynchronousTestCase):
    """A provider with two others after it."""

    def setUp(self) -> None:
        self.inner = FakeProvider({ALICE: "right"})
        self.trace = Trace()
        self.times = iter(range(100))
        self.provider = self.traced()

    def traced(self, passes: bool = False, following: tuple[str, ...] = ("b", "c")) -> Any:
        return TracedProvider(
            self.inner, passes, following, self.trace, lambda: float(next(self.times))
        )

    def ask(self, password: str = "right", name: str = "alice") -> Deferred[Any]:
        """Check a password."""
        done: Deferred[Any] = self.provider.authenticate(
            UserIdentifier(UserId(name, "example.com")), password
        )
        return done

    def only_step(self) -> Step:
        """Return the only step."""
        (step,) = self.trace.steps
        return step

    def test_interface(self) -> None:
        """It is a provider of the same name."""
        verifyObject(IPasswordProvider, self.provider)
        self.assertEqual(self.provider.name, "fake")

    def test_accepted(self) -> None:
        """A password that is accepted adds a step, with its time, and one of the account."""
        account = self.successResultOf(self.ask())
        self.assertEqual(account.user_id, ALICE)
        provider, found = self.trace.steps
        self.assertEqual(provider.text, f"fake, asked for {ALICE}, accepted the password")
        self.assertEqual((provider.milliseconds, provider.facts["outcome"]), (1000, "accepted"))
        self.assertEqual(found.text, f"{ALICE}, subject {ALICE} of fake: active")
        self.assertEqual(found.facts["status"], "active")

    def test_status_in_hand(self) -> None:
        """A status that comes with the account is told."""
        self.inner.statuses[ALICE] = AccountStatus.LOCKED
        self.successResultOf(self.ask())
        self.assertEqual(self.trace.steps[1].facts["status"], "locked")

    def test_rejected(self) -> None:
        """A wrong password is final, and the error is the same."""
        self.failureResultOf(self.ask("wrong"), InvalidCredentials)
        step = self.only_step()
        self.assertTrue(step.text.endswith("rejected the password; this is final, so b and c would"
                                           " not be asked"))  # fmt: skip
        self.assertEqual(step.facts["outcome"], "rejected")
        self.assertNotIn("wrong", step.text)

    def test_last(self) -> None:
        """The last provider leaves nobody unasked."""
        self.provider = self.traced(following=())
        self.failureResultOf(self.ask("wrong"), InvalidCredentials)
        self.assertTrue(self.only_step().text.endswith("rejected the password"))

    def test_bad_hash(self) -> None:
        """A stored hash that cannot be used is told apart from a wrong password."""
        self.inner.failure = InvalidCredentials("no_usable_hash")
        self.failureResultOf(self.ask(), InvalidCredentials)
        self.assertIn("the stored hash cannot be used", self.only_step().text)

    def test_unknown(self) -> None:
        """After a name that it does not know, the next provider is asked."""
        self.assertIsNone(self.successResultOf(self.ask(name="bob")))
        self.assertTrue(self.only_step().text.endswith("does not know it; b is asked next"))

    def test_unavailable(self) -> None:
        """An outage ends the login, unless it is passed over."""
        self.inner.failure = ProviderUnavailable("no route")
        for passes, said in ((False, "the login fails with it"), (True, "b is asked next")):
            self.trace.steps.clear()
            self.provider = self.traced(passes)
            self.failureResultOf(self.ask(), ProviderUnavailable)
            self.assertIn(f"is unavailable: no route; {said}", self.only_step().text)

    def test_other_errors(self) -> None:
        """A full queue and an unexpected error are told, without the text of the latter."""
        for error, said in (
            (Overloaded(1.0), "has no room"),
            (RuntimeError("right"), "unexpected error of class RuntimeError"),
        ):
            self.trace.steps.clear()
            self.inner.failure = error
            self.failureResultOf(self.ask(), type(error))
            self.assertIn(said, self.only_step().text)

    def test_status(self) -> None:
        """A question for the status is a step of its own."""
        self.successResultOf(self.provider.account_status(ALICE))
        self.successResultOf(self.provider.account_status("nobody"))
        self.patch(self.inner, "account_status", lambda _: fail(ProviderUnavailable("no route")))
        self.failureResultOf(self.provider.account_status(ALICE), ProviderUnavailable)
        self.assertEqual(
            [step.facts["status"] for step in self.trace.steps],
            ["active", "unknown", "unavailable"],
        )

    def test_order(self) -> None:
        """The providers after one are those that the configuration has after it."""
        watch = tracing(self.trace, ["a", "fake", "last"], lambda: 0.0)
        plugin = ProviderPlugin(module="x.y", on_unavailable="next")
        self.provider = watch(plugin, self.inner)
        self.inner.failure = ProviderUnavailable("no route")
        self.failureResultOf(self.ask(), ProviderUnavailable)
        self.assertIn("last is asked next", self.only_step().text)
