"""Links as the sweep and the brake see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from synapse_login_module.model.accounts import Link


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
