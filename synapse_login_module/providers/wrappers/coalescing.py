"""A provider that is asked about one account once at a time."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier


@implementer(IPasswordProvider)
class TogetherProvider:
    """Whoever asks for the status of an account that is being looked at already is told the same.

    A valid refresh is never limited, and each looks at its account: like this one account takes up
    one place at a provider however often it is refreshed, and leaves the others to be looked at.

    :param provider: who is asked; with a deadline, or an account may be asked for in vain for ever.
    """

    def __init__(self, provider: IPasswordProvider) -> None:
        self._provider = provider
        self._waiting: dict[str, list[Deferred[AccountStatus | None]]] = {}
        self.name = provider.name

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Ask for a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._provider.authenticate(identifier, password)

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Ask for a status, or wait for who has; a question is not given up for who goes away."""
        waiting = self._waiting.get(subject)
        if waiting is None:
            asked = self._provider.account_status(subject)
            if asked.called and not asked.paused:
                return asked
            waiting = self._waiting[subject] = []
            asked.addBoth(self._told, subject)
        answer: Deferred[AccountStatus | None] = Deferred()
        waiting.append(answer)
        return answer

    def _told(self, result: AccountStatus | Failure | None, subject: str) -> None:
        for answer in self._waiting.pop(subject):
            if not answer.called:
                answer.callback(result)
