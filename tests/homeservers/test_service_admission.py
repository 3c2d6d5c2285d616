"""Tests for the admission of users that an application service logs in."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.accounts.rules import LinkRules
from synapse_login_module.errors import AccountDeactivated, AccountNotLinked
from synapse_login_module.homeservers.admission import Admission
from synapse_login_module.interfaces import IHomeserver
from synapse_login_module.model import (
    APPLICATION_SERVICE,
    Account,
    Claim,
    HomeserverAccount,
    HomeserverPolicy,
    NameStatus,
)
from tests.support.delegation import DelegatedStore

PUPPET = "@_irc_alice:example.com"


class ReservedHomeserver:
    """A homeserver whose only account is in the exclusive namespace of an application service."""

    policy = HomeserverPolicy(register_users=False)

    def __init__(self) -> None:
        self.is_deactivated = False

    def find_account(self, user_id: str) -> Deferred[HomeserverAccount | None]:
        """Find the account."""
        return succeed(HomeserverAccount(user_id, is_deactivated=self.is_deactivated))

    def name_status(self, user_id: str) -> Deferred[NameStatus]:
        """Return that the name is reserved."""
        return succeed(NameStatus.RESERVED)


class ServiceAdmissionTests(SynchronousTestCase):
    """Users of application services."""

    def setUp(self) -> None:
        self.homeserver = ReservedHomeserver()
        store: Any = DelegatedStore(None, testing.environment())
        homeserver = cast(IHomeserver, self.homeserver)
        self.admission = Admission(
            homeserver, store, LinkRules("none", ()), partial(deferLater, Clock())
        )

    def admit(self, claim: Claim) -> Deferred[str]:
        """Admit the account of a claim."""
        return Deferred.fromCoroutine(self.admission.admit(Account(PUPPET, claim=claim)))

    def test_no_rules(self) -> None:
        """No rule of linking applies to a user of an application service."""
        admitted = self.admit(Claim((APPLICATION_SERVICE,), PUPPET))
        self.assertEqual(self.successResultOf(admitted), PUPPET)

    def test_deactivated(self) -> None:
        """A user who is deactivated at the homeserver stays out."""
        self.homeserver.is_deactivated = True
        self.failureResultOf(self.admit(Claim((APPLICATION_SERVICE,), PUPPET)), AccountDeactivated)

    def test_provider(self) -> None:
        """The rules apply to an account of a password provider that has the same name."""
        self.failureResultOf(self.admit(Claim(("ldap",), "alice")), AccountNotLinked)
