"""Tests for passing over outages."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from synapse_login_module import testing
from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.wrappers.chain import ProviderChain
from tests.providers.case import PASSWORD, lines, user
from tests.providers.wrappers.case import WrapperCase, guarded
from tests.support.accounts import ALICE


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
        breaker = guarded(self.backend, self.clock, timeout=30, breaking=(2, 60, 10))
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
