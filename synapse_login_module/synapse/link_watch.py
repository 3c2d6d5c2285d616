"""The links in Synapse's database, for the sweep."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import Link, LinkCounts, WatchedLink
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.tables import TokenRows
from synapse_login_module.synapse.user_tables import UserState, states, users_with_former_id

T = TypeVar("T")

_PROVIDER = "provider || ''"
"""The provider's name, as an expression that matches no index. With the index on the name, a
database would have to sort the links by their last looks, or read the table out of order."""

_COLUMNS = "user_id, provider, subject, looked_at, gone_since, held, locked, admin"
_draw = random.SystemRandom().sample
_NO_USER = UserState(alive=False, is_admin=False, is_locked=False)
"""The state of a user that Synapse does not have."""

_MANY = 200
"""How many user IDs a statement takes at most, where there may be many."""


@implementer(ILinkWatch)
class SynapseLinkWatch:
    """The links in Synapse's database; see :class:`~synapse_login_module.interfaces.ILinkWatch`.

    :param homeserver: the way into Synapse.
    :param draw: draws a number of items from a list at random.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        draw: Callable[[Sequence[str], int], list[str]] = _draw,
    ) -> None:
        self._homeserver = homeserver
        self._draw = draw

    def counts(self, since: int) -> Deferred[LinkCounts]:
        """Count the links."""

        def work(rows: TokenRows) -> LinkCounts:
            found = rows.fetch(
                "SELECT MAX(provider), COUNT(*),"
                " SUM(CASE WHEN gone_since IS NULL THEN 1 ELSE 0 END),"
                " SUM(CASE WHEN gone_since IS NULL OR held <> 0 OR gone_since > ?"
                " THEN 1 ELSE 0 END),"
                " SUM(CASE WHEN held <> 0 OR gone_since > ? THEN 1 ELSE 0 END),"
                " SUM(CASE WHEN held <> 0 THEN 1 ELSE 0 END),"
                " MAX(CASE WHEN held <> 0 THEN gone_since END),"
                " MIN(looked_at)"
                f" FROM synapse_login_links WHERE pending = 0 GROUP BY {_PROVIDER}",
                since,
                since,
            )
            return LinkCounts.of_rows(found)

        return self._run("counts", work)

    def due(self, provider: str, limit: int, now: int) -> Deferred[list[WatchedLink]]:
        """Claim the links with the oldest looks: they count as looked at from now on."""

        def work(rows: TokenRows) -> list[WatchedLink]:
            ahead, behind = (
                rows.fetch(
                    f"SELECT {_COLUMNS} FROM synapse_login_links"
                    f" WHERE {_PROVIDER} = ? AND pending = 0 AND looked_at {which} ?"
                    " ORDER BY looked_at LIMIT ?",
                    provider,
                    now,
                    limit,
                )
                for which in (">", "<=")
            )
            found = _with_states(rows, [*ahead, *behind][:limit], now)
            if found:
                marks = ", ".join("?" * len(found))
                rows.write(
                    f"UPDATE synapse_login_links SET looked_at = ? WHERE user_id IN ({marks})",
                    now,
                    *(row.user_id for row in found),
                )
            return found

        return self._run("due", work)

    def page(
        self, providers: Sequence[str], after: str, limit: int, held: bool = False
    ) -> Deferred[list[WatchedLink]]:
        """List links in the order of their users."""
        where, values = "user_id > ? AND pending = 0", [after]
        if providers:
            where += f" AND provider IN ({', '.join('?' * len(providers))})"
            values += providers
        if held:
            where += " AND held <> 0"
        now = self._homeserver.now()

        def work(rows: TokenRows) -> list[WatchedLink]:
            return _with_states(
                rows,
                rows.fetch(
                    f"SELECT {_COLUMNS} FROM synapse_login_links WHERE {where}"
                    " ORDER BY user_id LIMIT ?",
                    *values,
                    limit,
                ),
                now,
            )

        return self._run("page", work)

    def marked(self) -> Deferred[list[str]]:
        """List the users whose links have a mark that an active account takes back."""

        def work(rows: TokenRows) -> list[str]:
            found = rows.fetch(
                "SELECT user_id FROM synapse_login_links"
                " WHERE gone_since IS NOT NULL OR held <> 0 OR locked <> 0"
            )
            return [user_id for (user_id,) in found]

        return self._run("marked", work)

    def find(self, user_ids: Sequence[str]) -> Deferred[list[WatchedLink]]:
        """Find the links of these users."""
        now, marks = self._homeserver.now(), ", ".join("?" * len(user_ids))

        def work(rows: TokenRows) -> list[WatchedLink]:
            return _with_states(
                rows,
                rows.fetch(
                    f"SELECT {_COLUMNS} FROM synapse_login_links"
                    f" WHERE user_id IN ({marks}) AND pending = 0",
                    *user_ids,
                ),
                now,
            )

        return self._run("find", work)

    def sample(self, provider: str, limit: int) -> Deferred[list[Link]]:
        """Draw links of accounts that are not gone."""

        def work(rows: TokenRows) -> list[Link]:
            names = rows.fetch(
                "SELECT user_id, subject FROM synapse_login_links"
                " WHERE provider = ? AND pending = 0 AND gone_since IS NULL",
                provider,
            )
            subjects = dict(names)
            drawn = self._draw(list(subjects), min(limit, len(subjects)))
            return [Link(user_id, provider, subjects[user_id]) for user_id in drawn]

        return self._run("sample", work)

    def sample_unlinked(self, limit: int) -> Deferred[list[str]]:
        """Draw users that an earlier version marked as a provider's, and that have no link."""

        def work(rows: TokenRows) -> list[str]:
            names = users_with_former_id(rows)
            return self._draw(names, min(limit, len(names)))

        return self._run("sample_unlinked", work)

    def mark(self, user_ids: Sequence[str], gone_since: int | None, held: bool) -> Deferred[None]:
        """Mark users as gone or held, or take the marks back."""

        def work(rows: TokenRows) -> None:
            for start in range(0, len(user_ids), _MANY):
                some = user_ids[start : start + _MANY]
                marks = ", ".join("?" * len(some))
                rows.write(
                    "UPDATE synapse_login_links SET gone_since = ?, held = ?"
                    f" WHERE user_id IN ({marks})",
                    gone_since,
                    int(held),
                    *some,
                )

        return self._run("mark", work)

    def mark_locked(self, link: Link, locked: bool) -> Deferred[bool]:
        """Store whether this module locked the user of a link; fires with whether there is this
        link.
        """

        def work(rows: TokenRows) -> bool:
            return bool(
                rows.write(
                    "UPDATE synapse_login_links SET locked = ?"
                    " WHERE user_id = ? AND provider = ? AND subject = ? AND pending = 0",
                    int(locked),
                    *link,
                )
            )

        return self._run("set_locked", work)

    def mark_admin(self, user_id: str, admin: bool) -> Deferred[None]:
        """Store whether a user is a server administrator."""

        def work(rows: TokenRows) -> None:
            rows.write(
                "UPDATE synapse_login_links SET admin = ? WHERE user_id = ?",
                int(admin),
                user_id,
            )

        return self._run("set_admin", work)

    def _run(self, name: str, work: Callable[[TokenRows], T]) -> Deferred[T]:
        return self._homeserver.call_in_background(
            self._homeserver.transaction, f"synapse_login_links_{name}", work
        )


def _with_states(
    rows: TokenRows, found: Sequence[tuple[object, ...]], now: int
) -> list[WatchedLink]:
    """Return rows of the table together with the state of their users in Synapse."""
    known: dict[str, UserState] = {}
    for start in range(0, len(found), _MANY):
        known.update(states(rows, [str(row[0]) for row in found[start : start + _MANY]], now))
    return [_watched(row, known.get(str(row[0]), _NO_USER)) for row in found]


def _watched(row: tuple[object, ...], state: UserState) -> WatchedLink:
    user_id, provider, subject, looked_at, gone_since, held, locked, admin = row
    return WatchedLink(
        link=Link(str(user_id), str(provider), str(subject)),
        looked_at=int(str(looked_at)),
        gone_since=None if gone_since is None else int(str(gone_since)),
        held=bool(held),
        locked=bool(locked),
        admin=bool(admin),
        alive=state.alive,
        is_admin=state.is_admin,
        is_locked=state.is_locked,
    )
