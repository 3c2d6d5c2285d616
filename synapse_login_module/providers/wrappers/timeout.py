"""A provider that answers in time, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier

T = TypeVar("T")


@implementer(IPasswordProvider)
class DeadlineProvider:
    """Gives a provider so many seconds, then cancels what it is at and calls it unavailable.

    One that raises fails, as it should have, so that whoever counts its failures hears of it.

    :param provider: who is asked.
    :param seconds: how long it may take.
    :param clock: who wakes us.
    """

    def __init__(self, provider: IPasswordProvider, seconds: float, clock: IReactorTime) -> None:
        self._provider = provider
        self._seconds = seconds
        self._clock = clock
        self.name = provider.name

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Ask for a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._in_time(lambda: self._provider.authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Ask for a status; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._in_time(lambda: self._provider.account_status(subject))

    def _in_time(self, question: Callable[[], Deferred[T]]) -> Deferred[T]:
        asked = maybeDeferred(question)
        if asked.called and not asked.paused:
            return asked  # the answer is there: no need to be woken

        def too_late(_: Any, seconds: float) -> Failure:
            problem = f"{self.name} did not answer within {seconds} seconds"
            return Failure(ProviderUnavailable(problem))

        return asked.addTimeout(self._seconds, self._clock, onTimeoutCancel=too_late)
