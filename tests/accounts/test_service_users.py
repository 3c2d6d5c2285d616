"""Tests for accounts of application services' users, which no provider knows."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.accounts.linked import LinkedAccounts
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.model import APPLICATION_SERVICE, AccountStatus, Link
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.stores import MemoryTokenStore

PUPPET = "@_irc_alice:example.com"
LINK = Link(PUPPET, APPLICATION_SERVICE, PUPPET)


class SilentProvider(testing.FakeProvider):
    """A provider that fails the test when it is asked."""

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Fail."""
        raise AssertionError("the provider was asked")


class ServiceUserTests(SynchronousTestCase):
    """Users that are linked to no provider, but to the application services."""

    def setUp(self) -> None:
        self.providers = ProviderChain([SilentProvider({})], testing.FakeHashing())

    def test_status(self) -> None:
        """The status of such a user is active, whether the link is at hand or in the store."""
        store = MemoryTokenStore(None, testing.environment())
        self.successResultOf(store.link(LINK, False))
        accounts = LinkedAccounts(self.providers, store)
        for link in (LINK, None):
            status = self.successResultOf(accounts.account_status(PUPPET, link))
            self.assertIs(status, AccountStatus.ACTIVE)

    def test_sweep(self) -> None:
        """The sweep takes such a user for active, without a question or a warning."""
        looked: list[tuple[str, str]] = []
        questions = Questions(self.providers, lambda *outcome: looked.append(outcome))
        with capturedLogs() as events:
            status = self.successResultOf(questions.ask(LINK))
        self.assertIs(status, AccountStatus.ACTIVE)
        self.assertEqual((looked, events), ([], []))
