"""What watching over linked accounts needs of the place that keeps the links and the sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Interface

from synapse_login_module.model import Link


class WatchedLink(NamedTuple):
    """A link, and what is known of its user.

    :param looked_at: when the account was last asked for, before this.
    :param gone_since: when its provider was first found to know it no more.
    :param held: whether the brake keeps its sessions although it is gone.
    :param locked: whether the homeserver was told, from here, that it is locked.
    :param admin: whether it was a server administrator when it was last looked at.
    :param alive: whether it has a session or a pusher.
    :param is_admin: whether it is a server administrator now.
    :param is_locked: whether it is locked at the homeserver now, whoever did that.
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
        """The user."""
        return self.link.user_id

    @property
    def is_marked(self) -> bool:
        """Whether there is anything to take back once the account is active again."""
        return self.gone_since is not None or self.held or self.locked


class LinkCounts(NamedTuple):
    """How many links there are.

    :param by_provider: all, by the names of their providers.
    :param living: those of accounts that are not gone, by the names of their providers.
    :param present: those of accounts that are not gone, or not for longer than an interval.
    :param vanished: those of accounts that went within one interval, and those held.
    :param held: those that the brake holds.
    :param newest_held: when the last one of these went.
    :param oldest_look: when the link that was not looked at for the longest time was.
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
        """Add up what a database counts of each provider.

        :param rows: the provider's name, and of its links the numbers of all, the living, the
            present, the vanished and the held, and ``newest_held`` and ``oldest_look``. A sum may
            be of another type than ``int``, as PostgreSQL has it.
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
    """The links, for the sweep. Every method may fail with
    :class:`~synapse_login_module.errors.StoreUnavailable`.
    """

    def counts(since: int) -> Deferred[LinkCounts]:
        """Count the links.

        :param since: who has been gone for longer is past.
        """

    def due(provider: str, limit: int, now: int) -> Deferred[list[WatchedLink]]:
        """Claim the links that were not looked at for the longest time: they count as looked at.

        Those that were looked at in the future come first: the clock has been set back, and they
        would come last for as long as it was.

        :param provider: as it is written in the links.
        """

    def page(
        providers: Sequence[str], after: str, limit: int, held: bool = False
    ) -> Deferred[list[WatchedLink]]:
        """List links in the order of their users.

        :param providers: whose; of all when empty.
        :param after: the last user of the page before.
        :param held: whether only those that the brake holds are wanted.
        """

    def marked() -> Deferred[list[str]]:
        """List the users of whom anything is written down; see :attr:`WatchedLink.is_marked`."""

    def find(user_ids: Sequence[str]) -> Deferred[list[WatchedLink]]:
        """Find the links of these users."""

    def sample(provider: str, limit: int) -> Deferred[list[Link]]:
        """Draw links of accounts that are not gone."""

    def sample_unlinked(limit: int) -> Deferred[list[str]]:
        """Draw users that a provider vouched for before there were links, and that have none."""

    def mark(
        user_ids: Sequence[str],
        gone_since: int | None,
        held: bool,
    ) -> Deferred[None]:
        """Write down who is gone, or back again (``None`` and ``False``)."""

    def mark_locked(link: Link, locked: bool) -> Deferred[bool]:
        """Write down whether the homeserver was told that the user of a link is locked.

        :return: fires with whether there is this link.
        """

    def mark_admin(user_id: str, admin: bool) -> Deferred[None]:
        """Write down whether a user is an administrator."""
