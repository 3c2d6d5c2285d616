"""The accounts of the standalone server: each is linked at its first login."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import implementer

from synapse_login_module.interfaces import IAccounts, ILinks
from synapse_login_module.model import Account, AccountStatus, Identifier, Link
from synapse_login_module.providers.wrappers.chain import ProviderChain


@implementer(IAccounts)
class LinkedAccounts:
    """What providers vouch for, and what the token store has linked.

    The store links an account as it begins its first session.

    :param providers: who vouches.
    :param links: who is linked to what.
    """

    def __init__(self, providers: ProviderChain, links: ILinks) -> None:
        self._providers = providers
        self._links = links

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IAccounts`."""
        return self._providers.authenticate(identifier, password)

    def account_status(self, user_id: str, link: Link | None) -> Deferred[AccountStatus | None]:
        """Look again; see :class:`~synapse_login_module.interfaces.IAccounts`.

        A session that began before there were links has none; its account is asked for by name.
        """
        if link is not None:
            return self._providers.account_status(link.provider, link.subject)

        def ask(found: Link | None) -> Deferred[AccountStatus | None]:
            if found is None:
                return self._providers.status_by_name(user_id)
            return self._providers.account_status(found.provider, found.subject)

        return self._links.link_of(user_id).addCallback(ask)

    def user_id_of(self, account: Account) -> Deferred[str | None]:
        """Find the link; see :class:`~synapse_login_module.interfaces.IAccounts`."""
        return Deferred.fromCoroutine(self._user_id_of(account))

    async def _user_id_of(self, account: Account) -> str | None:
        if account.claim is None:
            return account.user_id
        linked = await self._links.linked_user(account.claim)
        if linked is None and await self._links.link_of(account.user_id) is None:
            return account.user_id
        return linked
