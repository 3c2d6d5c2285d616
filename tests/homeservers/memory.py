"""A store in memory and a homeserver in memory, for the tests of this room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.accounts.rules import ExistingAccounts, LinkRules
from synapse_login_module.homeservers.admission import Admission
from synapse_login_module.homeservers.outbox import Outbox
from synapse_login_module.homeservers.sessions import HomeserverSessions
from synapse_login_module.model import Account, Claim, HomeserverPolicy, Login
from synapse_login_module.stores import MemoryTokenStore
from synapse_login_module.testing.homeservers import FakeHomeserver

T = TypeVar("T")

ALICE = "@alice:example.com"


def account(name: str = "alice", subject: str = "", provider: str = "ldap") -> Account:
    """Return an account whose password was right."""
    return Account(
        f"@{name}:example.com",
        display_name=name.title(),
        provider=provider,
        subject=subject or name,
        claim=Claim((provider,), subject or name),
    )


class MemoryCase(SynchronousTestCase):
    """A test with a store and a homeserver.

    :ivar clock: the clock of both; seconds.
    """

    policy = HomeserverPolicy()
    existing_accounts: ExistingAccounts = "passwordless"
    exceptions: tuple[tuple[str | None, str], ...] = ()

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000_000)
        environment = replace(testing.environment(clock=self.clock), delegated=True)
        self.store: Any = MemoryTokenStore(None, environment)
        self.homeserver = FakeHomeserver(self.policy)
        self.admission = Admission(
            self.homeserver,
            self.store,
            LinkRules(self.existing_accounts, self.exceptions),
            partial(deferLater, self.clock),
        )
        self.outbox = Outbox(self.store, self.homeserver, self.clock)
        self.numbers = iter(range(1000))
        self.sessions = HomeserverSessions(
            self.homeserver,
            self.admission,
            self.store,
            lambda: f"DEVICE{next(self.numbers)}",
            self.outbox.wake,
            self.clock,
        )

    def start_outbox(self) -> None:
        """Start the outbox, which stops at the end of the test."""
        self.outbox.startService()
        self.addCleanup(self.outbox.stopService)

    def issue(self, of: Account) -> Callable[[str, str | None], Deferred[Login]]:
        """Return what begins a session, as the login service does."""
        return lambda user_id, device_id: self.store.issue(
            user_id, device_id, None, True, True, claim=of.claim
        )

    def begin(self, of: Account | None = None, device_id: str | None = None) -> Deferred[Login]:
        """Log an account in."""
        of = of or account()
        return Deferred.fromCoroutine(self.sessions.begin(of, device_id, "a phone", self.issue(of)))

    def done(self, work: Awaitable[T] | Deferred[T]) -> T:
        """Return the result of work that is done at once."""
        deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(_await(work))
        result: T = self.successResultOf(deferred)
        return result

    def refused(self, work: Deferred[Any], error: type[Exception]) -> Any:
        """Return the error that work has failed with."""
        failure: Failure = self.failureResultOf(work, error)
        return failure.value


async def _await(work: Awaitable[T]) -> T:
    return await work
