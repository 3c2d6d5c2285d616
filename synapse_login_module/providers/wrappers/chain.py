"""All password providers as one, asked in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import LoginServiceError, ProviderUnavailable
from synapse_login_module.interfaces import IHashing, IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Claim, Identifier, fold


class ProviderChain:
    """Asks the providers in order until one knows the account.

    An outage of a provider fails the login, unless ``passed_over`` has the provider's name. Then
    the next provider is asked. If no other provider knows the account, it may be an account of the
    provider that is down, so the outage fails the login after all.

    When no provider knows the account, a decoy is hashed. So an unknown name takes as long as a
    wrong password.

    The status of a linked account is asked of its own provider only.

    :param providers: the providers in order, each with a different name.
    :param hashing: hashes decoys. ``None`` when the caller does.
    :param former_names: the former names of providers, by current name.
    :param passed_over: the names of the providers whose outages are passed over
        (``on_unavailable: next``).
    """

    log = Logger()

    def __init__(
        self,
        providers: Sequence[IPasswordProvider],
        hashing: IHashing | None,
        former_names: Mapping[str, tuple[str, ...]] | None = None,
        passed_over: Collection[str] = (),
    ) -> None:
        self._hashing = hashing
        self._passed_over = passed_over
        former = former_names or {}
        self._providers = {
            provider.name: (provider, (provider.name, *former.get(provider.name, ())))
            for provider in providers
        }
        self._by_any_name = {
            name: provider for provider, names in self._providers.values() for name in names
        }
        self._missed: set[str] = set()

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password with the providers in order.

        :return: fires with the account, its claim and status included, or with ``None`` when no
            provider knows it. Fails as :class:`~synapse_login_module.interfaces.IPasswordProvider`
            says; the ``provider`` of the error is set.
        """
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, provider: str, subject: str) -> Deferred[AccountStatus | None]:
        """Ask one provider for the status of an account.

        :param provider: the provider's current name or a former one.
        :param subject: the subject of the account at the provider.
        :return: fires with the status, or with ``None`` when the provider does not know the
            account, or with ``UNVERIFIABLE`` when no configured provider has that name. Fails with
            :class:`~synapse_login_module.errors.ProviderUnavailable`.
        """
        asked = self._by_any_name.get(provider)
        if asked is None:
            self._warn_missing(provider)
            return succeed(AccountStatus.UNVERIFIABLE)
        return asked.account_status(subject).addErrback(self._note_failure, asked)

    def status_by_name(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Ask the providers in order for the status of an account that has no link.

        :param user_id: the full user ID of the account.
        :return: fires with the status, or with ``None`` when no provider knows the user ID. Fails
            with :class:`~synapse_login_module.errors.ProviderUnavailable` on the outage of a
            provider; where that is passed over, only if no other provider knows the user ID.
        """
        return Deferred.fromCoroutine(self._status_by_name(user_id))

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        outage: ProviderUnavailable | None = None
        for provider, names in self._providers.values():
            try:
                account = await provider.authenticate(identifier, password)
            except ProviderUnavailable as error:
                self._note(error, provider)
                if provider.name not in self._passed_over:
                    raise
                outage = error
                continue
            except LoginServiceError as error:
                error.provider = provider.name
                raise
            if account is not None:
                return await self._complete(account, provider, names)
        if outage is not None:
            raise outage
        if self._hashing is not None:
            await self._hashing.decoy(password)
        return None

    async def _complete(
        self, account: Account, provider: IPasswordProvider, names: tuple[str, ...]
    ) -> Account:
        """Add the account's claim, and its status if the provider did not set it.

        The status is asked of the same provider. An outage of it is not passed over here.

        :raise ProviderUnavailable: when the provider fails to return the status, or when the
            subject is another account's user ID. That other account may have the same subject.
        """
        if account.subject.startswith("@") and account.user_id not in (
            account.subject,
            fold(account.subject),
        ):
            problem = f"{account.user_id} has another user ID as its subject: {account.subject}"
            outage = ProviderUnavailable(problem)
            self._note(outage, provider)
            raise outage
        subject = account.subject or account.user_id
        status = account.status or await self.account_status(provider.name, subject)
        return replace(
            account,
            provider=provider.name,
            named=account.user_id,
            subject=subject,
            # The account was removed after its password was checked.
            status=status or AccountStatus.DEACTIVATED,
            claim=None if account.is_local else Claim(names, subject),
        )

    async def _status_by_name(self, user_id: str) -> AccountStatus | None:
        outage: ProviderUnavailable | None = None
        unverifiable: AccountStatus | None = None
        for provider, _ in self._providers.values():
            try:
                status = await provider.account_status(user_id)
            except ProviderUnavailable as error:
                self._note(error, provider)
                if provider.name not in self._passed_over:
                    raise
                outage = error
                continue
            if status is AccountStatus.UNVERIFIABLE:
                # Another provider may know the account, and its status.
                unverifiable = status
            elif status is not None:
                return status
        if outage is not None:
            raise outage
        return unverifiable

    def _warn_missing(self, provider: str) -> None:
        if provider not in self._missed:
            self._missed.add(provider)
            self.log.warn(
                "accounts are linked to {name}, which is not among password_providers: they keep"
                " their sessions (see former_names)",
                name=provider,
            )

    def _note_failure(self, failure: Failure, provider: IPasswordProvider) -> Failure:
        if isinstance(failure.value, ProviderUnavailable):
            self._note(failure.value, provider)
        return failure

    def _note(self, outage: ProviderUnavailable, provider: IPasswordProvider) -> None:
        """Log an outage, and set the provider of the error."""
        self.log.warn("{name} is unavailable: {problem}", name=provider.name, problem=str(outage))
        outage.provider = provider.name
