"""All accounts together, and the user IDs that they are linked to."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import Interface

from synapse_login_module.model import (
    Account,
    AccountStatus,
    Claim,
    Identifier,
    Link,
    LinkCounts,
    WatchedLink,
)


class IAccounts(Interface):
    """All accounts that may log in, of all providers together."""

    def authenticate(identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password.

        :return: fires with an account whose ``status`` is set. Its ``claim`` is set too, unless the
            account is the homeserver's own. Fires with ``None`` and fails as
            :meth:`IPasswordProvider.authenticate` does, and fails with
            :class:`~synapse_login_module.errors.AccountNotLinked`.
        """

    def account_status(user_id: str, link: Link | None) -> Deferred[AccountStatus | None]:
        """Check the status of the account of a session or a login token, without a password.

        :param link: the user's link, if the caller has it; ``None`` has it looked up.
        :return: fires with the status that the linked provider reports, or with ``None`` when that
            provider no longer knows the account. Fails with
            :class:`~synapse_login_module.errors.ProviderUnavailable`.
        """

    def user_id_of(account: Account) -> Deferred[str | None]:
        """Find the user ID that an account logs in as, changing nothing.

        :return: fires with the user ID that the account is linked to, or that its first login would
            link it to. Fires with ``None`` when that user ID belongs to another account.
        """


class ILinks(Interface):
    """The links between user IDs and accounts at providers.

    A user ID has at most one link, and so has a subject of a provider. Every method may fail with
    :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    def link_of(user_id: str) -> Deferred[Link | None]:
        """Find the link of a user ID."""

    def linked_user(claim: Claim) -> Deferred[str | None]:
        """Find the user ID that a claim's account is linked to, under any name of its provider."""

    def links() -> Deferred[list[Link]]:
        """List all links, in the order of their user IDs."""

    def link(link: Link, replace: bool) -> Deferred[None]:
        """Link a user ID to an account.

        :param replace: whether to replace other links of this user ID and of this subject.
        :return: fails with :class:`~synapse_login_module.errors.LinkTaken`, with nothing changed,
            when there is another link and ``replace`` is false.
        """

    def unlink(user_id: str) -> Deferred[Link | None]:
        """Delete the link of a user ID. Its sessions stay; ending them is up to the caller.

        :return: fires with the deleted link, or with ``None`` when there was none.
        """


class ILinkWatch(Interface):
    """The links, for the sweep.

    Every method may fail with :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    def counts(since: int) -> Deferred[LinkCounts]:
        """Count the links.

        :param since: the start of the interval. Accounts that went before it do not count as
            vanished, unless they are held.
        """

    def due(provider: str, limit: int, now: int) -> Deferred[list[WatchedLink]]:
        """Take the links with the oldest looks, and set their ``looked_at`` to now.

        Links whose ``looked_at`` is in the future come first. The clock has been set back since,
        and they would otherwise come last until it has caught up.

        :param provider: the provider's name, as it is stored in the links.
        :return: fires with the links, with their ``looked_at`` from before.
        """

    def page(
        providers: Sequence[str], after: str, limit: int, held: bool = False
    ) -> Deferred[list[WatchedLink]]:
        """List links in the order of their user IDs.

        :param providers: the names of the providers; empty for all providers.
        :param after: the last user ID of the previous page.
        :param held: whether to list only links that the brake holds.
        """

    def marked() -> Deferred[list[str]]:
        """List the users whose links are marked; see ``is_marked``."""

    def find(user_ids: Sequence[str]) -> Deferred[list[WatchedLink]]:
        """Find the links of these users."""

    def sample(provider: str, limit: int) -> Deferred[list[Link]]:
        """Draw a random sample of the links of accounts that are not gone."""

    def sample_unlinked(limit: int) -> Deferred[list[str]]:
        """Draw a random sample of users who have logged in by a provider and have no link.

        They last logged in before there were links.
        """

    def mark(
        user_ids: Sequence[str],
        gone_since: int | None,
        held: bool,
    ) -> Deferred[None]:
        """Mark the accounts of users as gone, or remove the mark (``None`` and ``False``)."""

    def mark_locked(link: Link, locked: bool) -> Deferred[bool]:
        """Mark whether this service has told the homeserver that the user of a link is locked.

        :return: fires with whether the link exists.
        """

    def mark_admin(user_id: str, admin: bool) -> Deferred[None]:
        """Mark whether a user is a server administrator."""
