"""A provider whose outage need not keep the others from being asked."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier

T = TypeVar("T")


class ProviderSkipped(ProviderUnavailable):
    """A provider could not say, and the next may be asked in its place.

    It is an outage all the same to whoever asks nobody else: when none of the others knows the
    account, the answer is "cannot say", and neither "wrong password" nor "no such account".
    """


@implementer(IPasswordProvider)
class NextOnUnavailable:
    """Marks a provider's outages as ones to pass over: ``on_unavailable: next``.

    :param provider: who is asked.
    """

    def __init__(self, provider: IPasswordProvider) -> None:
        self._provider = provider
        self.name = provider.name

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Ask for a password; an outage fails with :class:`ProviderSkipped`."""
        return self._provider.authenticate(identifier, password).addErrback(_skip)

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Ask for a status; an outage fails with :class:`ProviderSkipped`."""
        return self._provider.account_status(user_id).addErrback(_skip)


def _skip(failure: Failure) -> Failure:
    if failure.check(ProviderUnavailable):
        return Failure(ProviderSkipped(str(failure.value)))
    return failure
