"""The links of a store in a database, as the sweep sees them.

There is no homeserver behind these links: nobody is an administrator, and who is locked is known
from here alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from synapse_login_module.linkwatch import ILinkWatch, LinkCounts, WatchedLink
from synapse_login_module.model import Link

Value = str | int | None

_MANY = 200


class Tables(Protocol):
    """A database, with question marks for values.

    :ivar links: the name of the table of links.
    :ivar sessions: the name of the table of sessions.
    """

    links: str
    sessions: str

    def fetch(self, sql: str, values: Sequence[Value]) -> Deferred[list[tuple[Any, ...]]]:
        """Read, without standing in the way of who writes."""

    def write(self, sql: str, values: Sequence[Value]) -> Deferred[int]:
        """Write; fires with how many rows were written."""


def columns(links: str, sessions: str) -> str:
    """What :func:`_watched` takes. A session that is over but for its row has to go too."""
    return (
        "user_id, provider, subject, looked_at, gone_since, held, locked,"
        f" EXISTS (SELECT 1 FROM {sessions} WHERE {sessions}.user_id = {links}.user_id)"
    )


@implementer(ILinkWatch)
class TableLinkWatch:
    """See :class:`~synapse_login_module.linkwatch.ILinkWatch`.

    :param tables: where the links are.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._links = tables.links
        self._select = f"SELECT {columns(tables.links, tables.sessions)} FROM {tables.links}"

    def counts(self, since: int) -> Deferred[LinkCounts]:
        """Count the links."""

        def count(condition: str) -> str:
            return f"CAST(SUM(CASE WHEN {condition} THEN 1 ELSE 0 END) AS BIGINT)"

        lately = "held <> 0 OR gone_since > ?"
        asked = self._tables.fetch(
            f"SELECT provider, COUNT(*), {count('gone_since IS NULL')},"
            f" {count(f'gone_since IS NULL OR {lately}')}, {count(lately)}, {count('held <> 0')},"
            " MAX(CASE WHEN held <> 0 THEN gone_since END), MIN(looked_at)"
            f" FROM {self._links} GROUP BY provider",
            [since, since],
        )
        return asked.addCallback(LinkCounts.of_rows)

    def due(self, provider: str, limit: int, now: int) -> Deferred[list[WatchedLink]]:
        """Claim those that were not looked at for the longest time."""
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
        for some in _pieces([row.user_id for row in found]):
            await self._update("looked_at = ?", [now], some)
        return found

    def page(
        self, providers: Sequence[str], after: str, limit: int, held: bool = False
    ) -> Deferred[list[WatchedLink]]:
        """List links in the order of their users."""
        where, values = "user_id > ?", [after]
        if providers:
            where += f" AND provider IN ({_marks(providers)})"
            values += providers
        if held:
            where += " AND held <> 0"
        return self._fetch(f"{where} ORDER BY user_id LIMIT ?", [*values, limit])

    def marked(self) -> Deferred[list[str]]:
        """List the users of whom anything is written down."""
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
        return self._fetch(f"user_id IN ({_marks(user_ids)})", user_ids)

    def sample(self, provider: str, limit: int) -> Deferred[list[Link]]:
        """Draw links of accounts that are not gone."""
        asked = self._tables.fetch(
            f"SELECT user_id, provider, subject FROM {self._links}"
            " WHERE provider = ? AND gone_since IS NULL ORDER BY random() LIMIT ?",
            [provider, limit],
        )
        return asked.addCallback(lambda found: [Link(*row) for row in found])

    def sample_unlinked(self, limit: int) -> Deferred[list[str]]:
        """Draw nobody: each account is linked when its first session begins."""
        return succeed([])

    def mark(self, user_ids: Sequence[str], gone_since: int | None, held: bool) -> Deferred[None]:
        """Write down who is gone, or back again."""
        return Deferred.fromCoroutine(self._mark(user_ids, gone_since, held))

    async def _mark(self, user_ids: Sequence[str], gone_since: int | None, held: bool) -> None:
        for some in _pieces(user_ids):
            await self._update("gone_since = ?, held = ?", [gone_since, int(held)], some)

    def mark_locked(self, link: Link, locked: bool) -> Deferred[bool]:
        """Write down whether the user of a link is locked."""
        written = self._tables.write(
            f"UPDATE {self._links} SET locked = ?"
            " WHERE user_id = ? AND provider = ? AND subject = ?",
            [int(locked), *link],
        )
        return written.addCallback(bool)

    def mark_admin(self, user_id: str, admin: bool) -> Deferred[None]:
        """Write nothing: nobody is an administrator here."""
        return succeed(None)

    def _fetch(self, where: str, values: Sequence[Value]) -> Deferred[list[WatchedLink]]:
        asked = self._tables.fetch(f"{self._select} WHERE {where}", values)
        return asked.addCallback(lambda found: [_watched(row) for row in found])

    def _update(
        self, change: str, values: Sequence[Value], user_ids: Sequence[str]
    ) -> Deferred[int]:
        return self._tables.write(
            f"UPDATE {self._links} SET {change} WHERE user_id IN ({_marks(user_ids)})",
            [*values, *user_ids],
        )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _pieces(user_ids: Sequence[str]) -> list[Sequence[str]]:
    return [user_ids[start : start + _MANY] for start in range(0, len(user_ids), _MANY)]


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
