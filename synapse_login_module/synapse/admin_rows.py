"""The table of the administrators that this package has made, in Synapse's database.

An account that is a server administrator and has no row here is one for another reason, and stays
one. The table is apart from that of links, so that a link can be deleted without forgetting what
was given by it.
"""

from __future__ import annotations

from typing import NamedTuple

from synapse_login_module.model import Claim, Link
from synapse_login_module.synapse.user_tables import SQLRows

CREATE = (
    "CREATE TABLE IF NOT EXISTS synapse_login_admins (user_id TEXT PRIMARY KEY,"
    " provider TEXT NOT NULL, subject TEXT NOT NULL, given_at BIGINT NOT NULL)"
)

_FOUND = (
    "SELECT a.user_id, a.provider, a.subject, u.admin, l.provider, l.subject"
    " FROM synapse_login_admins AS a LEFT JOIN users AS u ON u.name = a.user_id"
    " LEFT JOIN synapse_login_links AS l ON l.user_id = a.user_id AND l.pending = 0"
)


class MadeAdministrator(NamedTuple):
    """An account that this package has made a server administrator.

    :param given: the link by which it was made one.
    :param is_admin: whether it still is one.
    :param link: its link now; ``None`` where it has none.
    """

    given: Link
    is_admin: bool
    link: Link | None


def made_administrators(rows: SQLRows) -> list[MadeAdministrator]:
    """List all of them, in the order of their user IDs."""
    found = rows.fetch(f"{_FOUND} ORDER BY a.user_id")
    return [
        MadeAdministrator(
            Link(user_id, provider, subject),
            bool(admin),
            None if linked_to is None else Link(user_id, linked_to, linked_as),
        )
        for user_id, provider, subject, admin, linked_to, linked_as in found
    ]


def is_made(rows: SQLRows, user_id: str) -> bool:
    """Say whether this package has made an account a server administrator."""
    return bool(rows.fetch("SELECT 1 FROM synapse_login_admins WHERE user_id = ?", user_id))


def insert_made(rows: SQLRows, user_id: str, claim: Claim, now: int) -> None:
    """Note that this package makes an account a server administrator, by this claim."""
    rows.write(
        "INSERT INTO synapse_login_admins (user_id, provider, subject, given_at)"
        " VALUES (?, ?, ?, ?) ON CONFLICT (user_id) DO UPDATE SET"
        " provider = excluded.provider, subject = excluded.subject, given_at = excluded.given_at",
        user_id,
        claim.provider,
        claim.subject,
        now,
    )


def delete_made(rows: SQLRows, user_id: str) -> bool:
    """Forget that this package has made an account a server administrator, unless it is one now;
    return whether that was done.
    """
    return bool(
        rows.write(
            "DELETE FROM synapse_login_admins WHERE user_id = ?"
            " AND NOT EXISTS (SELECT 1 FROM users WHERE name = ? AND admin <> 0)",
            user_id,
            user_id,
        )
    )
