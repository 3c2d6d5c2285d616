"""The interface through which the sweep over linked accounts reads and marks the links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Interface

from synapse_login_module.model import Link


class WatchedLink(NamedTuple):
    """A link, and what is known of its account.

    :param looked_at: when the provider was last asked for the account, before this look.
    :param gone_since: when the provider was first found not to know the account any more; ``None``
        while it knows it.
    :param held: whether the brake keeps the sessions although the account is gone.
    :param locked: whether this service has told the homeserver that the user is locked.
    :param admin: whether the user was a server administrator at the last look.
    :param alive: whether the user has a session or a pusher.
    :param is_admin: whether the user is a server administrator now.
    :param is_locked: whether the user is locked at the homeserver now, for whatever reason.
    """

    link: Link
    looked_at: int
    gone_since: int | None
    held: bool
    locked: bool
    admin: bool
    alive: bool
    is_admin: bool
    is_locked: bool

    @property
    def user_id(self) -> str:
        """The linked user ID."""
        return self.link.user_id

    @property
    def is_marked(self) -> bool:
        """Whether a mark has to be removed once the account is active again."""
        return self.gone_since is not None or self.held or self.locked


class LinkCounts(NamedTuple):
    """The numbers of links.

    :param by_provider: all links, by provider name.
    :param living: the links of accounts that are not gone, by provider name.
    :param present: the links of accounts that are not gone, plus ``vanished``.
    :param vanished: the links of accounts that went within the interval, or are held.
    :param held: the links of accounts whose sessions the brake keeps.
    :param newest_held: the latest ``gone_since`` of those held, or ``None``.
    :param oldest_look: the earliest ``looked_at`` of all links, or ``None`` when there are none.
    """

    by_provider: Mapping[str, int]
    living: Mapping[str, int]
    present: int
    vanished: int
    held: int
    newest_held: int | None
    oldest_look: int | None

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[Any, ...]]) -> LinkCounts:
        """Add up the counts that a database returns, one row for each provider.

        :param rows: the provider's name, then the numbers of all, living, present, vanished and
            held links, then ``newest_held`` and ``oldest_look``. The numbers may be of another type
            than ``int``, as PostgreSQL's sums are.
        """
        return cls(
            by_provider={row[0]: int(row[1]) for row in rows},
            living={row[0]: int(row[2]) for row in rows},
            present=sum(int(row[3]) for row in rows),
            vanished=sum(int(row[4]) for row in rows),
            held=sum(int(row[5]) for row in rows),
            newest_held=max((row[6] for row in rows if row[6] is not None), default=None),
            oldest_look=min((row[7] for row in rows), default=None),
        )


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
        """List the users whose links are marked; see :attr:`WatchedLink.is_marked`."""

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
