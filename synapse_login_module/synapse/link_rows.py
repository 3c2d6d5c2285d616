"""The project's tables of links in Synapse's database: who is linked to what, and whose sessions a
command wants ended.

A link that is ``pending`` holds a name for an account that is being made, and counts for nothing
else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from synapse_login_module.errors import LinkTaken
from synapse_login_module.model import Claim, Link
from synapse_login_module.synapse.user_tables import SQLRows

CREATE = (
    # Flags are numbers, since the two databases do not agree on what a truth value is. The columns
    # from looked_at on are for whoever looks at the accounts again.
    "CREATE TABLE IF NOT EXISTS synapse_login_links (user_id TEXT PRIMARY KEY,"
    " provider TEXT NOT NULL, subject TEXT NOT NULL, linked_at BIGINT NOT NULL,"
    " pending SMALLINT NOT NULL DEFAULT 0, admin SMALLINT NOT NULL DEFAULT 0,"
    " looked_at BIGINT NOT NULL, gone_since BIGINT, held SMALLINT NOT NULL DEFAULT 0,"
    " locked SMALLINT NOT NULL DEFAULT 0)",
    "CREATE UNIQUE INDEX IF NOT EXISTS synapse_login_links_by_subject"
    " ON synapse_login_links (provider, subject)",
    "CREATE INDEX IF NOT EXISTS synapse_login_links_by_look ON synapse_login_links (looked_at)",
    "CREATE TABLE IF NOT EXISTS synapse_login_wishes (user_id TEXT PRIMARY KEY,"
    " reason TEXT NOT NULL, wished_at BIGINT NOT NULL, locked SMALLINT NOT NULL DEFAULT 0)",
)

_COLUMNS = "user_id, provider, subject, linked_at, pending, admin, locked"


class LinkRow(NamedTuple):
    """A row of the table of links.

    :param linked_at: when it was made; milliseconds since the epoch.
    :param pending: whether it only holds the name for an account that is being made.
    :param admin: whether the account was an administrator's when that was last looked at.
    :param locked: whether Synapse was told that the account is locked, since its provider says so.
    """

    user_id: str
    provider: str
    subject: str
    linked_at: int
    pending: bool
    admin: bool
    locked: bool

    @property
    def link(self) -> Link:
        """What others know of it."""
        return Link(self.user_id, self.provider, self.subject)


class Wish(NamedTuple):
    """Whose sessions a command wants ended; see :func:`wish`."""

    user_id: str
    reason: str
    locked: bool
    wished_at: int


class HeldLink(NamedTuple):
    """A link whose account is gone, and whose sessions the brake keeps."""

    user_id: str
    provider: str
    subject: str
    gone_since: int


def held_links(rows: SQLRows) -> list[HeldLink]:
    """All links that the brake holds, in the order of their user IDs."""
    found = rows.fetch(
        "SELECT user_id, provider, subject, gone_since FROM synapse_login_links"
        " WHERE held <> 0 AND pending = 0 ORDER BY user_id"
    )
    return [HeldLink(*row) for row in found]


def row_of_user(rows: SQLRows, user_id: str) -> LinkRow | None:
    """Find the row of a user ID."""
    found = rows.fetch(f"SELECT {_COLUMNS} FROM synapse_login_links WHERE user_id = ?", user_id)
    return _row(found[0]) if found else None


def is_still(rows: SQLRows, user_id: str, claim: Claim | None) -> bool:
    """Whether a user is linked as a login found it when its password was checked.

    :param claim: what the user was linked by, under any of the provider's names; ``None`` for an
        account of the homeserver's own, whose password counts only while it is linked to nothing.
    """
    row = row_of_user(rows, user_id)
    if row is None or row.pending:
        return claim is None
    return claim is not None and row.subject == claim.subject and row.provider in claim.providers


def row_of_claim(rows: SQLRows, claim: Claim) -> LinkRow | None:
    """Find the row of a provider's account, under any of the provider's names.

    A row that counts comes before one that is pending, and today's name before earlier ones.
    """
    found = [
        _row(row)
        for row in rows.fetch(
            f"SELECT {_COLUMNS} FROM synapse_login_links"
            f" WHERE subject = ? AND provider IN ({_placeholders(claim.providers)})",
            claim.subject,
            *claim.providers,
        )
    ]
    found.sort(key=lambda row: (row.pending, claim.providers.index(row.provider)))
    return found[0] if found else None


def insert_link(
    rows: SQLRows, link: Link, now: int, pending: bool = False, admin: bool = False
) -> bool:
    """Write a link; ``False`` when the user ID or the subject has one."""
    return bool(
        rows.write(
            "INSERT INTO synapse_login_links"
            " (user_id, provider, subject, linked_at, looked_at, pending, admin)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            *link,
            now,
            now,
            int(pending),
            int(admin),
        )
    )


def reserve_again(rows: SQLRows, row: LinkRow, now: int) -> None:
    """Hold a name for longer that is held already."""
    rows.write(
        "UPDATE synapse_login_links SET linked_at = ?, looked_at = ?"
        " WHERE user_id = ? AND pending = 1",
        now,
        now,
        row.user_id,
    )


def confirm(rows: SQLRows, user_id: str, claim: Claim, now: int) -> bool:
    """Have a pending link of a claim count; ``False`` when there is no link of it."""
    return bool(
        rows.write(
            "UPDATE synapse_login_links SET pending = 0, linked_at = ?, looked_at = ?"
            " WHERE user_id = ? AND subject = ?"
            f" AND provider IN ({_placeholders(claim.providers)})",
            now,
            now,
            user_id,
            claim.subject,
            *claim.providers,
        )
    )


def drop_pending(rows: SQLRows, user_id: str, linked_at: int) -> None:
    """Let a name go that was held since that moment, unless it has been taken up since."""
    rows.write(
        "DELETE FROM synapse_login_links WHERE user_id = ? AND pending = 1 AND linked_at = ?",
        user_id,
        linked_at,
    )


def note_admin(rows: SQLRows, user_id: str, is_admin: bool) -> bool:
    """Note whether a linked account is an administrator's; say whether that has changed."""
    return bool(
        rows.write(
            "UPDATE synapse_login_links SET admin = ?"
            " WHERE user_id = ? AND pending = 0 AND admin <> ?",
            int(is_admin),
            user_id,
            int(is_admin),
        )
    )


def all_links(rows: SQLRows) -> list[Link]:
    """All links that count, in the order of their user IDs."""
    found = rows.fetch(
        f"SELECT {_COLUMNS} FROM synapse_login_links WHERE pending = 0 ORDER BY user_id"
    )
    return [_row(row).link for row in found]


def set_link(
    rows: SQLRows, link: Link, replace: bool, now: int, names: tuple[str, ...] = ()
) -> list[LinkRow]:
    """Link a user ID, as a person wants it.

    :param replace: whether links of the user ID and of the subject give way.
    :param names: that the provider has or had.
    :return: the links that gave way.
    :raise LinkTaken: when one would have to give way and may not.
    """
    others = rows.fetch(
        f"SELECT {_COLUMNS} FROM synapse_login_links"
        f" WHERE user_id = ? OR (subject = ? AND provider IN ({_placeholders((0, *names))}))",
        link.user_id,
        link.subject,
        link.provider,
        *names,
    )
    taken = [row for row in map(_row, others) if not row.pending]
    if [row.link for row in taken] == [link]:
        return []
    if taken and not replace:
        raise LinkTaken("; ".join(_sentence(row) for row in taken))
    for row in map(_row, others):
        delete_link(rows, row.user_id)
    if not insert_link(rows, link, now):
        raise LinkTaken("it has just been linked by somebody else")
    return taken


def delete_link(rows: SQLRows, user_id: str) -> None:
    """Drop the link of a user ID."""
    rows.write("DELETE FROM synapse_login_links WHERE user_id = ?", user_id)


def wish(rows: SQLRows, user_id: str, reason: str, locked: bool, now: int) -> None:
    """Want the sessions of a user ended; the running Synapse sees to it.

    :param reason: ``unlinked`` or ``relinked``; or ``gone``, of somebody whom the brake holds.
    :param locked: whether Synapse is to be told too that the account is locked no more.
    """
    rows.write(
        "INSERT INTO synapse_login_wishes (user_id, reason, wished_at, locked) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (user_id) DO UPDATE SET reason = excluded.reason,"
        " wished_at = excluded.wished_at,"
        " locked = CASE WHEN excluded.locked <> 0 THEN 1 ELSE synapse_login_wishes.locked END",
        user_id,
        reason,
        now,
        int(locked),
    )


def wishes(rows: SQLRows) -> list[Wish]:
    """Whose sessions are to be ended since their link was changed; the oldest first."""
    found = rows.fetch(
        "SELECT user_id, reason, locked, wished_at FROM synapse_login_wishes"
        " WHERE reason <> 'gone' ORDER BY wished_at, user_id"
    )
    return [_wish(row) for row in found]


def is_ending(rows: SQLRows, user_id: str) -> bool:
    """Whether the sessions of a user are still to be ended, since the link has changed."""
    return bool(
        rows.fetch(
            "SELECT 1 FROM synapse_login_wishes WHERE user_id = ? AND reason <> 'gone'", user_id
        )
    )


def wishes_of_gone(rows: SQLRows, after: str, limit: int) -> list[Wish]:
    """Whom the brake is to hold no longer, in the order of their user IDs.

    :param after: the last user of the page before.
    """
    found = rows.fetch(
        "SELECT user_id, reason, locked, wished_at FROM synapse_login_wishes"
        " WHERE reason = 'gone' AND user_id > ? ORDER BY user_id LIMIT ?",
        after,
        limit,
    )
    return [_wish(row) for row in found]


def fulfilled(rows: SQLRows, user_id: str, wished_at: int) -> None:
    """Drop a wish, unless it was made anew."""
    rows.write(
        "DELETE FROM synapse_login_wishes WHERE user_id = ? AND wished_at = ?", user_id, wished_at
    )


def _wish(row: tuple[Any, ...]) -> Wish:
    user_id, reason, locked, wished_at = row
    return Wish(user_id, reason, bool(locked), wished_at)


def _row(row: tuple[Any, ...]) -> LinkRow:
    user_id, provider, subject, linked_at, pending, admin, locked = row
    return LinkRow(user_id, provider, subject, linked_at, bool(pending), bool(admin), bool(locked))


def _placeholders(values: Sequence[object]) -> str:
    return ", ".join("?" for _ in values)


def _sentence(row: LinkRow) -> str:
    return f"{row.user_id} is linked to {row.subject} of {row.provider}"
