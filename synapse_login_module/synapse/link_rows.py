"""The tables of links and of wishes, which this package adds to Synapse's database.

That of administrators is in ``admin_rows.py``, and is made with them.

A link that is ``pending`` reserves a name for an account that is being registered, and does nothing
else. A wish is a command's request to end the sessions of a user; see ``wishes.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from synapse_login_module.errors import LinkTaken
from synapse_login_module.model import Claim, Link
from synapse_login_module.synapse import admin_rows
from synapse_login_module.synapse.user_tables import SQLRows

CREATE = (
    # Flags are integers, since SQLite and PostgreSQL disagree about booleans. The columns from
    # looked_at on are for the watch over linked accounts.
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
    admin_rows.CREATE,
)

_COLUMNS = "user_id, provider, subject, linked_at, pending, admin, locked"


class LinkRow(NamedTuple):
    """A row of the table of links.

    :param linked_at: when the link was made, renewed or confirmed, in milliseconds since the epoch.
    :param pending: whether it only reserves the name of an account that is being registered.
    :param admin: whether the account was a server administrator at the last look.
    :param locked: whether this module locked the account in Synapse, because its provider says so.
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
        """The link."""
        return Link(self.user_id, self.provider, self.subject)


class Wish(NamedTuple):
    """A command's request to end the sessions of a user; see :func:`insert_wish`."""

    user_id: str
    reason: str
    locked: bool
    wished_at: int


class HeldLink(NamedTuple):
    """A link whose account the brake holds.

    :param gone_since: when its provider was first found not to know it, in milliseconds since the
        epoch.
    """

    user_id: str
    provider: str
    subject: str
    gone_since: int


def held_links(rows: SQLRows) -> list[HeldLink]:
    """List all links that the brake holds, in the order of their user IDs."""
    found = rows.fetch(
        "SELECT user_id, provider, subject, gone_since FROM synapse_login_links"
        " WHERE held <> 0 AND pending = 0 ORDER BY user_id"
    )
    return [HeldLink(*row) for row in found]


def row_of_user(rows: SQLRows, user_id: str) -> LinkRow | None:
    """Find the row of a user ID, pending or not."""
    found = rows.fetch(f"SELECT {_COLUMNS} FROM synapse_login_links WHERE user_id = ?", user_id)
    return _row(found[0]) if found else None


def is_unchanged(rows: SQLRows, user_id: str, claim: Claim | None) -> bool:
    """Say whether a user's link is what it was when a login's password was checked.

    :param claim: the claim of the login; ``None`` for a local account, whose password counts only
        while the account has no link.
    """
    row = row_of_user(rows, user_id)
    if row is None or row.pending:
        return claim is None
    return claim is not None and row.subject == claim.subject and row.provider in claim.providers


def row_of_claim(rows: SQLRows, claim: Claim) -> LinkRow | None:
    """Find the row of a provider's account, under any of the provider's names.

    A confirmed row comes before a pending one, and the current name before former ones.
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
    """Insert a link; return ``False`` when the user ID or the subject has one already."""
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


def renew_pending(rows: SQLRows, row: LinkRow, now: int) -> None:
    """Let the time for which a pending link reserves its name begin again."""
    rows.write(
        "UPDATE synapse_login_links SET linked_at = ?, looked_at = ?"
        " WHERE user_id = ? AND pending = 1",
        now,
        now,
        row.user_id,
    )


def confirm_link(rows: SQLRows, user_id: str, claim: Claim, now: int) -> bool:
    """Confirm the pending link of a claim; return ``False`` when the claim has no link."""
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


def delete_pending(rows: SQLRows, user_id: str, linked_at: int) -> None:
    """Delete the pending link of a user ID, unless it was renewed or confirmed since.

    :param linked_at: the time in the row that is meant.
    """
    rows.write(
        "DELETE FROM synapse_login_links WHERE user_id = ? AND pending = 1 AND linked_at = ?",
        user_id,
        linked_at,
    )


def set_admin(rows: SQLRows, user_id: str, is_admin: bool) -> bool:
    """Store whether a linked account is a server administrator; return whether that changed."""
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
    """List all links that are not pending, in the order of their user IDs."""
    found = rows.fetch(
        f"SELECT {_COLUMNS} FROM synapse_login_links WHERE pending = 0 ORDER BY user_id"
    )
    return [_row(row).link for row in found]


def set_link(
    rows: SQLRows, link: Link, replace: bool, now: int, names: tuple[str, ...] = ()
) -> list[LinkRow]:
    """Link a user ID at an operator's command.

    :param replace: whether other links of the user ID and of the subject are deleted.
    :param names: other names of the provider, under which the subject may be linked.
    :return: the links that were deleted, without pending ones.
    :raise LinkTaken: when there is another link, and ``replace`` is false.
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
        raise LinkTaken("another process has just linked it")
    return taken


def delete_link(rows: SQLRows, user_id: str) -> None:
    """Delete the link of a user ID."""
    rows.write("DELETE FROM synapse_login_links WHERE user_id = ?", user_id)


def insert_wish(rows: SQLRows, user_id: str, reason: str, locked: bool, now: int) -> None:
    """Ask the running Synapse to end the sessions of a user. A later wish replaces an earlier one.

    :param reason: ``unlinked`` or ``relinked``; or ``gone`` for an account that the brake holds.
    :param locked: whether Synapse is to unlock the account, too.
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
    """List the wishes for users whose link was changed, the oldest first."""
    found = rows.fetch(
        "SELECT user_id, reason, locked, wished_at FROM synapse_login_wishes"
        " WHERE reason <> 'gone' ORDER BY wished_at, user_id"
    )
    return [_wish(row) for row in found]


def is_ending(rows: SQLRows, user_id: str) -> bool:
    """Say whether a user's link was changed and the user's sessions have not been ended yet."""
    return bool(
        rows.fetch(
            "SELECT 1 FROM synapse_login_wishes WHERE user_id = ? AND reason <> 'gone'", user_id
        )
    )


def wishes_of_gone(rows: SQLRows, after: str, limit: int) -> list[Wish]:
    """List the wishes for accounts that the brake is to let go, in the order of their user IDs.

    :param after: the last user ID of the page before; empty for the first page.
    """
    found = rows.fetch(
        "SELECT user_id, reason, locked, wished_at FROM synapse_login_wishes"
        " WHERE reason = 'gone' AND user_id > ? ORDER BY user_id LIMIT ?",
        after,
        limit,
    )
    return [_wish(row) for row in found]


def delete_wish(rows: SQLRows, user_id: str, wished_at: int) -> None:
    """Delete a wish that was carried out, unless a newer one has replaced it."""
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
