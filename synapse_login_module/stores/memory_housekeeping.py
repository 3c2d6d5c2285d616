"""Pruning, leases and the links for the sweep, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from random import SystemRandom
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import (
    EndedBatch,
    Link,
    LinkCounts,
    Pruned,
    Session,
    SessionCounts,
    WatchedLink,
    fold,
)
from synapse_login_module.stores.rows import LoginTokenRow
from synapse_login_module.tokens.over import Bounds, end, is_ended, was_over

_draw = SystemRandom().sample


class MemoryRows(Protocol):
    """The rows in memory, as far as background work needs them."""

    def sessions(self, user_id: str | None) -> list[Session]:
        """Read the sessions of a user, or all sessions."""

    def page(self, user_id: str | None, after: int, most: int) -> list[Session]:
        """Read sessions in the order of their numbers."""

    def delete(self, session_id: int, note: int | None = None) -> None:
        """Delete one session, and note its device as due at a time."""

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Write a session's row, unless it has changed."""

    def links(self) -> list[Link]:
        """Read all links, in the order of their user IDs."""

    def login_tokens(self) -> list[LoginTokenRow]:
        """Read all login tokens."""

    def delete_login_token(self, token_id: int) -> bool:
        """Delete one login token."""


class _Mark(NamedTuple):
    """The state of the sweep for one link."""

    looked_at: int = 0
    gone_since: int | None = None
    held: bool = False
    locked: bool = False


class MemoryHousekeeping:
    """See :class:`~synapse_login_module.stores.housekeeping.Housekeeping`. There is one process.

    :param rows: the rows.
    """

    def __init__(self, rows: MemoryRows) -> None:
        self._rows = rows
        self.link_watch = MemoryLinkWatch(rows)

    def prune(
        self, bounds: Bounds, after: int, scan: int, most: int, note: int | None
    ) -> Deferred[Pruned]:
        """Delete one batch of rows that were over."""
        seen = self._rows.page(None, after, scan)
        found = [each.session_id for each in seen if was_over(each, bounds)][:most]
        tokens = [
            each.token_id for each in self._rows.login_tokens() if each.expires_at <= bounds.ended
        ][:most]
        for session_id in found:
            self._rows.delete(session_id, note)
        for token_id in tokens:
            self._rows.delete_login_token(token_id)
        last = _next(seen, scan)
        if len(found) == most:
            last = found[-1]
        return succeed(Pruned(len(found), len(tokens), last))

    def expire(self, now: int, after: int, most: int) -> Deferred[EndedBatch]:
        """End the sessions of one batch."""
        batch = self._rows.page(None, after, most)
        ended = [
            self._rows.compare_and_swap(each, end(each, now))
            for each in batch
            if not is_ended(each)
        ]
        return succeed(EndedBatch(sum(ended), _next(batch, most)))

    def revoke(
        self, bounds: Bounds, after: int, most: int, note: int | None
    ) -> Deferred[EndedBatch]:
        """Delete the rows of one batch."""
        batch = self._rows.page(None, after, most)
        for each in batch:
            self._rows.delete(each.session_id, note)
        for token in self._rows.login_tokens():
            self._rows.delete_login_token(token.token_id)
        ended = sum(not (is_ended(each) or was_over(each, bounds)) for each in batch)
        return succeed(EndedBatch(ended, _next(batch, most)))

    def count(self, bounds: Bounds, removable: Bounds | None) -> Deferred[SessionCounts]:
        """Count sessions."""
        rows = self._rows.sessions(None)
        living = sum(not (is_ended(each) or was_over(each, bounds)) for each in rows)
        old = 0 if removable is None else sum(was_over(each, removable) for each in rows)
        return succeed(SessionCounts(living, old))

    def users_alike(self, user_id: str) -> Deferred[list[str]]:
        """List users with a session or a link whose user IDs are alike."""
        known = {each.user_id for each in self._rows.sessions(None)}
        known.update(each.user_id for each in self._rows.links())
        return succeed([each for each in known if fold(each) == fold(user_id)])

    def hold(self, lease: str, holder: str, seconds: float, now: float) -> Deferred[bool]:
        """Grant the lease, because no other process shares this store."""
        return succeed(True)

    def release(self, lease: str, holder: str) -> Deferred[None]:
        """Give up a lease, which has no effect here."""
        return succeed(None)


@implementer(ILinkWatch)
class MemoryLinkWatch:
    """The links in memory; see :class:`~synapse_login_module.interfaces.ILinkWatch`.

    :param rows: the rows.
    """

    def __init__(self, rows: MemoryRows) -> None:
        self._rows = rows
        self._marks: dict[Link, _Mark] = {}

    def counts(self, since: int) -> Deferred[LinkCounts]:
        """Count the links."""
        rows = self._all()
        vanished = [row for row in rows if row.held or (row.gone_since or 0) > since]
        here = [row for row in rows if row.gone_since is None]
        return succeed(
            LinkCounts(
                by_provider=_by_provider(rows),
                living={**dict.fromkeys(_by_provider(rows), 0), **_by_provider(here)},
                present=len(here) + len(vanished),
                vanished=len(vanished),
                held=sum(row.held for row in rows),
                newest_held=max((row.gone_since or 0 for row in rows if row.held), default=None),
                oldest_look=min((row.looked_at for row in rows), default=None),
            )
        )

    def due(self, provider: str, limit: int, now: int) -> Deferred[list[WatchedLink]]:
        """Take the links with the oldest looks."""
        found = [row for row in self._all() if row.link.provider == provider]
        found = sorted(found, key=lambda row: (row.looked_at <= now, row.looked_at))[:limit]
        for row in found:
            self._change(row.link, looked_at=now)
        return succeed(found)

    def page(
        self, providers: Sequence[str], after: str, limit: int, held: bool = False
    ) -> Deferred[list[WatchedLink]]:
        """List links in the order of their user IDs."""
        found = [
            row
            for row in self._all()
            if row.user_id > after
            and (not providers or row.link.provider in providers)
            and (row.held or not held)
        ]
        return succeed(found[:limit])

    def marked(self) -> Deferred[list[str]]:
        """List the users whose links are marked."""
        return succeed([row.user_id for row in self._all() if row.is_marked])

    def find(self, user_ids: Sequence[str]) -> Deferred[list[WatchedLink]]:
        """Find the links of these users."""
        return succeed([row for row in self._all() if row.user_id in user_ids])

    def sample(self, provider: str, limit: int) -> Deferred[list[Link]]:
        """Draw a random sample of the links of accounts that are not gone."""
        living = [
            row.link
            for row in self._all()
            if row.link.provider == provider and row.gone_since is None
        ]
        return succeed(_draw(living, min(limit, len(living))))

    def sample_unlinked(self, limit: int) -> Deferred[list[str]]:
        """Return no users, because each account is linked when its first session begins."""
        return succeed([])

    def mark(self, user_ids: Sequence[str], gone_since: int | None, held: bool) -> Deferred[None]:
        """Mark the accounts of users as gone, or remove the mark."""
        for row in self._all():
            if row.user_id in user_ids:
                self._change(row.link, gone_since=gone_since, held=held)
        return succeed(None)

    def mark_locked(self, link: Link, locked: bool) -> Deferred[bool]:
        """Mark whether the user of a link is locked."""
        if link not in self._rows.links():
            return succeed(False)
        self._change(link, locked=locked)
        return succeed(True)

    def mark_admin(self, user_id: str, admin: bool) -> Deferred[None]:
        """Do nothing, because the store knows no server administrators."""
        return succeed(None)

    def _all(self) -> list[WatchedLink]:
        links = self._rows.links()
        self._marks = {link: self._marks[link] for link in links if link in self._marks}
        alive = {each.user_id for each in self._rows.sessions(None)}
        return [_watched(link, self._marks.get(link, _Mark()), alive) for link in links]

    def _change(self, link: Link, **changes: int | bool | None) -> None:
        mark = self._marks.get(link, _Mark())
        self._marks[link] = mark._replace(**changes)  # type: ignore[arg-type]


def _next(batch: Sequence[Session], most: int) -> int | None:
    """Return where the next batch begins."""
    return batch[-1].session_id if len(batch) == most else None


def _by_provider(rows: Sequence[WatchedLink]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.link.provider] = counts.get(row.link.provider, 0) + 1
    return counts


def _watched(link: Link, mark: _Mark, alive: set[str]) -> WatchedLink:
    return WatchedLink(
        link=link,
        looked_at=mark.looked_at,
        gone_since=mark.gone_since,
        held=mark.held,
        locked=mark.locked,
        admin=False,
        alive=link.user_id in alive,
        is_admin=False,
        is_locked=mark.locked,
    )
