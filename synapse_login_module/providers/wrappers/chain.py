"""Several providers as one."""

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
    """Asks providers in order until one knows the account.

    An outage fails the login, unless it is to be passed over: then the next provider is asked. When
    no other knows the account, it may be that provider's, and the outage fails the login after all.
    When no provider knows it, a decoy is hashed, so that an unknown name takes as long as a wrong
    password.

    An account's status is asked of the one provider that it is linked to.

    :param providers: whom to ask; no two of one name.
    :param hashing: where the decoy is hashed; ``None`` when whoever asks sees to that.
    :param former_names: of providers, by their names today.
    :param passed_over: names of the providers whose outages are passed over.
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
        """Ask for a password.

        :return: fires with the account, its claim and status included, or with ``None`` when no
            provider knows it. Fails as :class:`~synapse_login_module.interfaces.IPasswordProvider`
            says, with an error that names the provider.
        """
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, provider: str, subject: str) -> Deferred[AccountStatus | None]:
        """Ask one provider for a status.

        :param provider: its name, or one that it had before.
        :return: fires with the status, or with ``UNVERIFIABLE`` when the configuration has no such
            provider any more. Fails with :class:`~synapse_login_module.errors.ProviderUnavailable`.
        """
        asked = self._by_any_name.get(provider)
        if asked is None:
            self._miss(provider)
            return succeed(AccountStatus.UNVERIFIABLE)
        return asked.account_status(subject).addErrback(self._note_failure, asked)

    def status_by_name(self, user_id: str) -> Deferred[AccountStatus | None]:
        """Ask all providers about an account that is linked to none, by its name.

        :return: fires with the status, or with ``None`` when no provider knows the name. Fails with
            :class:`~synapse_login_module.errors.ProviderUnavailable` when one that might cannot
            say.
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
        """Add what the account is linked by, and its status where the provider did not say.

        No other provider is asked when that one cannot say it any more.

        :raise ProviderUnavailable: when the account is known by somebody else's user ID, which is
            what an account of that user ID may be known by.
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
            # Who is gone a moment after the password was right is closed.
            status=status or AccountStatus.DEACTIVATED,
            claim=None if account.is_local else Claim(names, subject),
        )

    async def _status_by_name(self, user_id: str) -> AccountStatus | None:
        outage: ProviderUnavailable | None = None
        unchecked: AccountStatus | None = None
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
                # Another may know more of the account.
                unchecked = status
            elif status is not None:
                return status
        if outage is not None:
            raise outage
        return unchecked

    def _miss(self, provider: str) -> None:
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
        """Log an outage, and have it name its provider."""
        self.log.warn("{name} is unavailable: {problem}", name=provider.name, problem=str(outage))
        outage.provider = provider.name
