"""What the tests of what stands around a provider share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from synapse_login_module import testing
from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier
from synapse_login_module.outbound.circuit import CircuitBreaking
from synapse_login_module.providers.wrappers.cache import PasswordCache
from synapse_login_module.providers.wrappers.guard import GuardedProvider, Meter
from tests.providers.case import PASSWORD, user
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


@implementer(IPasswordProvider)
class PatientProvider:
    """Answers when a test does.

    :ivar cancelled: how often it was given up.
    :ivar looked: the subjects that it was asked for.
    """

    name = "patient"

    def __init__(self) -> None:
        self.cancelled = 0
        self.looked: list[str] = []
        self.authenticating: Deferred[Account | None] = Deferred(self.cancel)
        self.looking: Deferred[AccountStatus | None] = Deferred(self.cancel)

    def cancel(self, deferred: Deferred[Any]) -> None:
        """Count."""
        self.cancelled += 1

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Wait."""
        return self.authenticating

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Wait."""
        self.looked.append(subject)
        return self.looking


def guarded(
    provider: IPasswordProvider,
    clock: Clock | None = None,
    *,
    timeout: float = 30.0,
    outcome: Callable[[str, str, str], None] = lambda *_: None,
    circuit: Callable[[str, str, str], None] = lambda *_: None,
    breaking: tuple[int, float, float] | None = None,
    cache: PasswordCache | None = None,
) -> GuardedProvider:
    """A guarded provider of this clock.

    :param breaking: after how many failures, within what window, its circuits open for what pause.
    """
    clock = clock or Clock()
    return GuardedProvider(
        provider,
        provider.name,
        timeout,
        clock,
        Meter(outcome, circuit),
        None if breaking is None else CircuitBreaking(*breaking, clock.seconds),
        cache,
    )


class WrapperCase(SynchronousTestCase):
    """A provider, and what is around it."""

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
