"""Several providers as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from zope.interface import implementer

from synapse_login_module.interfaces import IHashing, IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Identifier


@implementer(IPasswordProvider)
class ProviderChain:
    """Asks providers in order until one knows the account.

    When nobody does, a decoy is hashed, so that an unknown name takes as long as a wrong password.

    :param providers: whom to ask.
    :param hashing: where the decoy is hashed; ``None`` when whoever asks sees to that.
    """

    name = "chain"

    def __init__(self, providers: Sequence[IPasswordProvider], hashing: IHashing | None) -> None:
        self._providers = tuple(providers)
        self._hashing = hashing

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Ask for a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Ask for a status; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._account_status(user_id))

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        for provider in self._providers:
            account = await provider.authenticate(identifier, password)
            if account is not None:
                return replace(account, provider=provider.name)
        if self._hashing is not None:
            await self._hashing.decoy(password)
        return None

    async def _account_status(self, user_id: str) -> AccountStatus | None:
        for provider in self._providers:
            status = await provider.account_status(user_id)
            if status is not None:
                return status
        return None
