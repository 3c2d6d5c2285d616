"""Several providers as one, some of whose outages are passed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.interfaces import IHashing, IPasswordProvider
from synapse_login_module.lru import Recent
from synapse_login_module.model import Account, AccountStatus, Identifier


class ProviderSkipped(ProviderUnavailable):
    """A provider could not say, and the next may be asked in its place.

    It is an outage all the same to whoever asks nobody else: when none of the others knows the
    account, the answer is "cannot say", and neither "wrong password" nor "no such account".
    """


@implementer(IPasswordProvider)
class ProviderChain:
    """Asks providers in order until one knows the account.

    An outage is the end of it, unless it is one to pass over
    (:class:`ProviderSkipped`); and then too when no
    other knows the account. When nobody does, a decoy is hashed, so that an unknown name takes as
    long as a wrong password.

    Whoever vouched for an account last, or knew its status, is asked for its status before all
    others: while that one knows the account nobody waits for an outage of the others.

    :param providers: whom to ask.
    :param hashing: where the decoy is hashed; ``None`` when whoever asks sees to that.
    :param remembered: of how many accounts it is remembered who vouched; the oldest go first.
    """

    log = Logger()
    name = "chain"

    def __init__(
        self,
        providers: Sequence[IPasswordProvider],
        hashing: IHashing | None,
        remembered: int = 10_000,
    ) -> None:
        self._providers = tuple(providers)
        self._hashing = hashing
        self._vouchers: Recent[str, IPasswordProvider] = Recent(remembered)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Ask for a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Ask for a status; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        voucher = self._vouchers.get(user_id)
        if voucher is None:
            return Deferred.fromCoroutine(self._ask_all_but(None, user_id))

        def ask_the_others(
            status: AccountStatus | None,
        ) -> AccountStatus | Deferred[AccountStatus | None]:
            if status is not None:
                return status
            return Deferred.fromCoroutine(self._ask_all_but(voucher, user_id))

        asked = voucher.account_status(user_id)
        return asked.addCallbacks(ask_the_others, self._unavailable, errbackArgs=(voucher,))

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        skipped: ProviderSkipped | None = None
        for provider in self._providers:
            try:
                account = await provider.authenticate(identifier, password)
            except ProviderUnavailable as error:
                skipped = self._skip(provider, error)
                continue
            if account is not None:
                self._vouchers.remember(account.user_id, provider)
                return replace(account, provider=provider.name)
        if skipped is not None:
            raise skipped
        if self._hashing is not None:
            await self._hashing.decoy(password)
        return None

    async def _ask_all_but(
        self, voucher: IPasswordProvider | None, user_id: str
    ) -> AccountStatus | None:
        skipped: ProviderSkipped | None = None
        unchecked: AccountStatus | None = None
        for provider in self._providers:
            if provider is voucher:
                continue
            try:
                status = await provider.account_status(user_id)
            except ProviderUnavailable as error:
                skipped = self._skip(provider, error)
                continue
            if status is AccountStatus.UNCHECKED:
                # Another may know more of the account.
                unchecked = status
            elif status is not None:
                self._vouchers.remember(user_id, provider)
                return status
        if skipped is not None:
            raise skipped
        return unchecked

    def _unavailable(self, failure: Failure, provider: IPasswordProvider) -> Failure:
        if not isinstance(failure.value, ProviderUnavailable):
            return failure
        return Failure(self._skip(provider, failure.value))

    def _skip(self, provider: IPasswordProvider, error: ProviderUnavailable) -> ProviderSkipped:
        """Pass over an outage, or else raise it; the log is told either way."""
        self.log.warn("{name} is unavailable: {problem}", name=provider.name, problem=str(error))
        if isinstance(error, ProviderSkipped):
            return error
        raise error


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
