"""What becomes of the questions that providers are asked, counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.errors import (
    InvalidCredentials,
    Overloaded,
    ProviderBusy,
    ProviderUnavailable,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier

T = TypeVar("T")

_FAILURES: dict[type[Exception], str] = {
    InvalidCredentials: "refused",
    ProviderBusy: "overloaded",
    ProviderUnavailable: "unavailable",
    Overloaded: "overloaded",
    CancelledError: "cancelled",
}


@dataclass(frozen=True)
class Meter:
    """Where things are counted; each is called with a provider's name, and with what it was asked:
    ``authenticate`` or ``account_status``.

    :param outcome: also with ``ok``, ``unknown``, ``refused``, ``unavailable``, ``overloaded``,
        ``cancelled`` or ``failed``; for a status, with that in the place of ``ok``.
    :param circuit: also with what a circuit has become: ``closed``, ``open`` or ``half-open``.
    """

    outcome: Callable[[str, str, str], None]
    circuit: Callable[[str, str, str], None]


@implementer(IPasswordProvider)
class MeteredProvider:
    """Counts what comes of asking a provider.

    :param provider: who is asked.
    :param count: called with the provider's name, what it was asked, and the outcome.
    """

    def __init__(self, provider: IPasswordProvider, count: Callable[[str, str, str], None]) -> None:
        self._provider = provider
        self._count = count
        self.name = provider.name

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Ask for a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        asked = self._provider.authenticate(identifier, password)
        return self._counted("authenticate", asked, lambda _: "ok")

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Ask for a status; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        asked = self._provider.account_status(subject)
        return self._counted("account_status", asked, lambda status: status.value)

    def _counted(
        self, operation: str, asked: Deferred[T | None], word: Callable[[T], str]
    ) -> Deferred[T | None]:
        def answered(answer: T | None) -> T | None:
            self._count(self.name, operation, "unknown" if answer is None else word(answer))
            return answer

        def failed(failure: Failure) -> Failure:
            kind = failure.check(*_FAILURES)
            self._count(self.name, operation, "failed" if kind is None else _FAILURES[kind])
            return failure

        return asked.addCallbacks(answered, failed)
