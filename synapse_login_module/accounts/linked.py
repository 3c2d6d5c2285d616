"""The accounts of the standalone server. Each is linked at its first login."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from synapse_login_module.accounts.watch import EndReason
from synapse_login_module.interfaces import IAccounts, ILinks, ITokenStore
from synapse_login_module.model import (
    APPLICATION_SERVICE,
    Account,
    AccountStatus,
    Identifier,
    Link,
)
from synapse_login_module.providers.wrappers.chain import ProviderChain


class StoreEndings:
    """Ends sessions in a token store; see :class:`~synapse_login_module.accounts.watch.Endings`.

    :param store: the token store.
    """

    def __init__(self, store: ITokenStore) -> None:
        self._store = store

    def end(self, user_id: str, reason: EndReason) -> Deferred[int]:
        """End all sessions of a user; fires with their number."""
        return self._store.revoke_all(user_id)

    def lock(self, user_id: str, locked: bool) -> Deferred[None]:
        """Do nothing. There is no homeserver to tell: this server looks at the account itself, and
        answers ``M_USER_LOCKED`` when a session of it is used.
        """
        return succeed(None)


@implementer(IAccounts)
class LinkedAccounts:
    """The accounts of the providers, and their links in the token store.

    The store links an account when it begins the account's first session.

    :param providers: check passwords, and say the status of accounts.
    :param links: the links of the token store.
    :param judge: acts on a provider's answer about a user, and fires with the status that counts;
        see :meth:`synapse_login_module.accounts.judge.Judge.judge`. The default lets every answer
        count.
    """

    def __init__(
        self,
        providers: ProviderChain,
        links: ILinks,
        judge: Callable[
            [str, Link | None, AccountStatus | None], Deferred[AccountStatus | None]
        ] = lambda _user_id, _link, status: succeed(status),
    ) -> None:
        self._providers = providers
        self._links = links
        self._judge = judge

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IAccounts`."""
        return self._providers.authenticate(identifier, password)

    def account_status(self, user_id: str, link: Link | None) -> Deferred[AccountStatus | None]:
        """Look at an account; see :class:`~synapse_login_module.interfaces.IAccounts`.

        A session that began before there were links has none. The providers are then asked by its
        user ID. A user of an application service counts as active, since no provider knows it.
        """

        def ask(found: Link | None) -> Deferred[AccountStatus | None]:
            if found is not None and found.provider == APPLICATION_SERVICE:
                return succeed(AccountStatus.ACTIVE)
            if found is None:
                asked = self._providers.status_by_name(user_id)
            else:
                asked = self._providers.account_status(found.provider, found.subject)
            return asked.addCallback(lambda status: self._judge(user_id, found, status))

        return ask(link) if link is not None else self._links.link_of(user_id).addCallback(ask)

    def user_id_of(self, account: Account) -> Deferred[str | None]:
        """Find the user ID; see :class:`~synapse_login_module.interfaces.IAccounts`."""
        return Deferred.fromCoroutine(self._user_id_of(account))

    async def _user_id_of(self, account: Account) -> str | None:
        if account.claim is None:
            return account.user_id
        linked = await self._links.linked_user(account.claim)
        if linked is None and await self._links.link_of(account.user_id) is None:
            return account.user_id
        return linked
