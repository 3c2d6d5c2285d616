"""The links of a store in a database, for the sweep.

The store knows no homeserver. So no user counts as a server administrator, and a user counts as
locked when the sweep has marked the link as locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import Link, LinkCounts, WatchedLink

Value = str | int | None

_MAX_PLACEHOLDERS = 200


class Tables(Protocol):
    """A database that runs SQL with question marks as placeholders.

    :ivar links: the name of the table of links.
    :ivar sessions: the name of the table of sessions.
    """

    links: str
    sessions: str

    def fetch(self, sql: str, values: Sequence[Value]) -> Deferred[list[tuple[Any, ...]]]:
        """Read rows, without blocking writers."""

    def write(self, sql: str, values: Sequence[Value]) -> Deferred[int]:
        """Write rows; fires with the number of rows written."""


def columns(links: str, sessions: str) -> str:
    """Return the SQL of the columns that :func:`_watched` reads.

    A user counts as alive while there is a session row, even of a session that is over, because
    that row has to be deleted too.
    """
    return (
        "user_id, provider, subject, looked_at, gone_since, held, locked,"
        f" EXISTS (SELECT 1 FROM {sessions} WHERE {sessions}.user_id = {links}.user_id)"
    )


@implementer(ILinkWatch)
class TableLinkWatch:
    """The links of a database; see :class:`~synapse_login_module.interfaces.ILinkWatch`.

    :param tables: the database.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._links = tables.links
        self._select = f"SELECT {columns(tables.links, tables.sessions)} FROM {tables.links}"

    def counts(self, since: int) -> Deferred[LinkCounts]:
        """Count the links."""

        def count(condition: str) -> str:
            return f"CAST(SUM(CASE WHEN {condition} THEN 1 ELSE 0 END) AS BIGINT)"

        # All links are counted in an index, and only those with a mark are grouped. In one query
        # for both, SQLite would read the rows in the order of the index, each from another page.
        asked = self._tables.fetch(
            "WITH totals AS (SELECT provider, COUNT(*) AS number, MIN(looked_at) AS oldest"
            f" FROM {self._links} GROUP BY provider),"
            f" marks AS (SELECT provider || '' AS name, {count('gone_since IS NOT NULL')} AS gone,"
            f" {count('held = 0 AND gone_since <= ?')} AS absent,"
            f" {count('held <> 0 OR gone_since > ?')} AS vanished, {count('held <> 0')} AS held,"
            " MAX(CASE WHEN held <> 0 THEN gone_since END) AS newest"
            f" FROM {self._links} WHERE gone_since IS NOT NULL OR held <> 0"
            " GROUP BY provider || '')"
            " SELECT provider, number, number - COALESCE(gone, 0), number - COALESCE(absent, 0),"
            " COALESCE(vanished, 0), COALESCE(held, 0), newest, oldest"
            " FROM totals LEFT JOIN marks ON name = provider",
            [since, since],
        )
        return asked.addCallback(LinkCounts.of_rows)

    def due(self, provider: str, limit: int, now: int) -> Deferred[list[WatchedLink]]:
        """Take the links with the oldest looks."""
        return Deferred.fromCoroutine(self._due(provider, limit, now))

    async def _due(self, provider: str, limit: int, now: int) -> list[WatchedLink]:
        first, later = (
            f"SELECT * FROM ({self._select} WHERE provider = ? AND looked_at {which} ?"
            f" ORDER BY looked_at LIMIT ?) AS {name}"
            for which, name in ((">", "ahead"), ("<=", "behind"))
        )
        values: list[Value] = [provider, now, limit]
        rows = await self._tables.fetch(f"{first} UNION ALL {later}", values + values)
        found = sorted(map(_watched, rows), key=lambda row: (row.looked_at <= now, row.looked_at))
        found = found[:limit]
        for users in _slices([row.user_id for row in found]):
            await self._update("looked_at = ?", [now], users)
        return found

    def page(
        self, providers: Sequence[str], after: str, limit: int, held: bool = False
    ) -> Deferred[list[WatchedLink]]:
        """List links in the order of their user IDs."""
        where, values = "user_id > ?", [after]
        if providers:
            where += f" AND provider IN ({_placeholders(providers)})"
            values += providers
        if held:
            where += " AND held <> 0"
        return self._fetch(f"{where} ORDER BY user_id LIMIT ?", [*values, limit])

    def marked(self) -> Deferred[list[str]]:
        """List the users whose links are marked."""
        asked = self._tables.fetch(
            f"SELECT user_id FROM {self._links}"
            " WHERE gone_since IS NOT NULL OR held <> 0 OR locked <> 0",
            [],
        )
        return asked.addCallback(lambda found: [user_id for (user_id,) in found])

    def find(self, user_ids: Sequence[str]) -> Deferred[list[WatchedLink]]:
        """Find the links of these users."""
        if not user_ids:
            return succeed([])
        return self._fetch(f"user_id IN ({_placeholders(user_ids)})", user_ids)

    def sample(self, provider: str, limit: int) -> Deferred[list[Link]]:
        """Draw a random sample of the links of accounts that are not gone."""
        asked = self._tables.fetch(
            f"SELECT user_id, provider, subject FROM {self._links}"
            " WHERE provider = ? AND gone_since IS NULL ORDER BY random() LIMIT ?",
            [provider, limit],
        )
        return asked.addCallback(lambda found: [Link(*row) for row in found])

    def sample_unlinked(self, limit: int) -> Deferred[list[str]]:
        """Return no users, because each account is linked when its first session begins."""
        return succeed([])

    def mark(self, user_ids: Sequence[str], gone_since: int | None, held: bool) -> Deferred[None]:
        """Mark the accounts of users as gone, or remove the mark."""
        return Deferred.fromCoroutine(self._mark(user_ids, gone_since, held))

    async def _mark(self, user_ids: Sequence[str], gone_since: int | None, held: bool) -> None:
        for users in _slices(user_ids):
            await self._update("gone_since = ?, held = ?", [gone_since, int(held)], users)

    def mark_locked(self, link: Link, locked: bool) -> Deferred[bool]:
        """Mark whether the user of a link is locked."""
        written = self._tables.write(
            f"UPDATE {self._links} SET locked = ?"
            " WHERE user_id = ? AND provider = ? AND subject = ?",
            [int(locked), *link],
        )
        return written.addCallback(bool)

    def mark_admin(self, user_id: str, admin: bool) -> Deferred[None]:
        """Do nothing, because the store knows no server administrators."""
        return succeed(None)

    def _fetch(self, where: str, values: Sequence[Value]) -> Deferred[list[WatchedLink]]:
        asked = self._tables.fetch(f"{self._select} WHERE {where}", values)
        return asked.addCallback(lambda found: [_watched(row) for row in found])

    def _update(
        self, change: str, values: Sequence[Value], user_ids: Sequence[str]
    ) -> Deferred[int]:
        return self._tables.write(
            f"UPDATE {self._links} SET {change} WHERE user_id IN ({_placeholders(user_ids)})",
            [*values, *user_ids],
        )


def _placeholders(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _slices(user_ids: Sequence[str]) -> list[Sequence[str]]:
    return [
        user_ids[start : start + _MAX_PLACEHOLDERS]
        for start in range(0, len(user_ids), _MAX_PLACEHOLDERS)
    ]


def _watched(row: tuple[Any, ...]) -> WatchedLink:
    user_id, provider, subject, looked_at, gone_since, held, locked, alive = row
    return WatchedLink(
        link=Link(user_id, provider, subject),
        looked_at=looked_at,
        gone_since=gone_since,
        held=bool(held),
        locked=bool(locked),
        admin=False,
        alive=bool(alive),
        is_admin=False,
        is_locked=bool(locked),
    )
