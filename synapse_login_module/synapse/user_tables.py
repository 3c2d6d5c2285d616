"""Synapse's tables of users and what is bound to them, inside one transaction.

ModuleApi: shows few facts of an account, each in a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from synapse_login_module.accounts.rules import ExistingAccount
from synapse_login_module.model import fold

FORMER_AUTH_PROVIDER = "synapse_login_module"
"""What earlier versions of this module marked the accounts by that a provider vouched for."""

USER_TABLES = {
    "users": (
        *("name", "password_hash", "is_guest", "admin", "user_type", "appservice_id"),
        *("deactivated", "locked", "creation_ts"),
    ),
    "pushers": ("user_name",),
    "user_external_ids": ("auth_provider", "external_id", "user_id"),
    "user_threepids": ("user_id", "medium", "address", "validated_at", "added_at"),
}

_FACTS = (
    "u.name, u.password_hash, u.is_guest, u.admin, u.user_type, u.appservice_id, u.deactivated,"
    " u.creation_ts, EXISTS (SELECT 1 FROM user_external_ids AS e"
    f" WHERE e.user_id = u.name AND e.auth_provider <> '{FORMER_AUTH_PROVIDER}')"
)


class SQLRows(Protocol):
    """Statements inside one transaction, written with ``?`` for their values."""

    def fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query."""

    def write(self, sql: str, *values: object) -> int:
        """Run a statement; say how many rows it touched."""


class AmbiguousName(Exception):
    """There are several accounts whose names differ in the case of letters alone."""


class UserState(NamedTuple):
    """What Synapse knows of a user.

    :param alive: whether there is a session that can still be used, or a pusher.
    """

    alive: bool
    is_admin: bool
    is_locked: bool


class LocalPassword(NamedTuple):
    """An account's local password.

    :param is_linked: whether the account is linked, so that the password does not count.
    """

    user_id: str
    password_hash: str
    is_linked: bool


def find_account(
    rows: SQLRows, user_id: str, default_user_type: str | None
) -> ExistingAccount | None:
    """Find the account of a name, or else the one whose name differs in the case of letters alone.

    :param default_user_type: the ``user_type`` that every new account gets.
    :raise AmbiguousName: when there are several such.
    """
    found = rows.fetch(f"SELECT {_FACTS} FROM users AS u WHERE u.name = ?", user_id)
    if not found:
        found = [
            row
            for row in rows.fetch(
                f"SELECT {_FACTS} FROM users AS u WHERE lower(u.name) = lower(?)", user_id
            )
            # A database may take more letters for the same than Matrix does.
            if fold(row[0]) == fold(user_id)
        ]
    if len(found) > 1:
        raise AmbiguousName
    return _account(found[0], default_user_type) if found else None


def spellings(rows: SQLRows, user_id: str) -> list[str]:
    """Read the accounts whose names are the same when case is folded, as the database folds it."""
    found = rows.fetch("SELECT name FROM users WHERE lower(name) = lower(?)", user_id)
    return [row[0] for row in found]


def unlinked_accounts(rows: SQLRows, default_user_type: str | None) -> list[ExistingAccount]:
    """All accounts that are linked to nothing, in the order of their user IDs."""
    found = rows.fetch(
        f"SELECT {_FACTS} FROM users AS u"
        " LEFT JOIN synapse_login_links AS l ON l.user_id = u.name AND l.pending = 0"
        " WHERE l.user_id IS NULL ORDER BY u.name"
    )
    return [_account(row, default_user_type) for row in found]


def local_password(rows: SQLRows, user_id: str) -> LocalPassword | None:
    """Find the local password of a name: of the account so spelled, or else of the only other."""
    found = rows.fetch(
        "SELECT u.name, u.password_hash, l.user_id FROM users AS u"
        " LEFT JOIN synapse_login_links AS l ON l.user_id = u.name AND l.pending = 0"
        " WHERE lower(u.name) = lower(?)",
        user_id,
    )
    named = [row for row in found if row[0] == user_id] or [
        row for row in found if fold(row[0]) == fold(user_id) and row[1]
    ]
    if len(named) != 1 or not named[0][1]:
        return None
    name, password_hash, link = named[0]
    return LocalPassword(name, password_hash, link is not None)


def remove_password(rows: SQLRows, user_id: str) -> bool:
    """Take an account's local password away; say whether it had one."""
    return bool(
        rows.write(
            # An empty one is the mark of those that application services made.
            "UPDATE users SET password_hash = NULL WHERE name = ? AND password_hash <> ''",
            user_id,
        )
    )


def states(rows: SQLRows, user_ids: Sequence[str], now: int) -> dict[str, UserState]:
    """What is known of these users; of those who are not there, nothing.

    :param now: when a session can still be used if it does not end before.
    """
    marks = ", ".join("?" * len(user_ids))
    pushed = rows.fetch(
        f"SELECT DISTINCT user_name FROM pushers WHERE user_name IN ({marks})", *user_ids
    )
    with_pushers = {name for (name,) in pushed}
    found = rows.fetch(
        "SELECT u.name, u.admin, u.locked, EXISTS (SELECT 1 FROM access_tokens AS a"
        " WHERE a.user_id = u.name AND (a.valid_until_ms IS NULL OR a.valid_until_ms >= ?"
        " OR a.refresh_token_id IS NOT NULL))"
        f" FROM users AS u WHERE u.name IN ({marks})",
        now,
        *user_ids,
    )
    return {
        name: UserState(bool(alive) or name in with_pushers, bool(admin), bool(locked))
        for name, admin, locked, alive in found
    }


def users_with_former_id(rows: SQLRows) -> list[str]:
    """All users who have such a mark of an earlier version and no link."""
    found = rows.fetch(
        "SELECT DISTINCT e.user_id FROM user_external_ids AS e"
        " LEFT JOIN synapse_login_links AS l ON l.user_id = e.user_id AND l.pending = 0"
        " WHERE e.auth_provider = ? AND l.user_id IS NULL",
        FORMER_AUTH_PROVIDER,
    )
    return [name for (name,) in found]


def former_external_ids(rows: SQLRows, user_id: str) -> list[str]:
    """The marks of earlier versions of this module on an account."""
    found = rows.fetch(
        "SELECT external_id FROM user_external_ids WHERE auth_provider = ? AND user_id = ?",
        FORMER_AUTH_PROVIDER,
        user_id,
    )
    return [row[0] for row in found]


def delete_former_external_ids(rows: SQLRows, user_id: str) -> None:
    """Take these marks off."""
    rows.write(
        "DELETE FROM user_external_ids WHERE auth_provider = ? AND user_id = ?",
        FORMER_AUTH_PROVIDER,
        user_id,
    )


def bind_address(rows: SQLRows, user_id: str, medium: str, address: str, now: int) -> bool:
    """Bind an address to a user if nobody has it; say whether that was done."""
    return bool(
        rows.write(
            "INSERT INTO user_threepids (user_id, medium, address, validated_at, added_at)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (medium, address) DO NOTHING",
            user_id,
            medium,
            address,
            now,
            now,
        )
    )


def user_with_address(rows: SQLRows, medium: str, address: str) -> str | None:
    """Who has an address."""
    found = rows.fetch(
        "SELECT user_id FROM user_threepids WHERE medium = ? AND address = ?", medium, address
    )
    return found[0][0] if found else None


def _account(row: tuple[Any, ...], default_user_type: str | None) -> ExistingAccount:
    name, password_hash, is_guest, admin, user_type, appservice_id, deactivated, *more = row
    created_at, has_sso_id = more
    return ExistingAccount(
        user_id=name,
        has_password=bool(password_hash),
        has_sso_id=bool(has_sso_id),
        # Application services register with an empty hash, others with none; which service it was
        # is kept for exclusive namespaces alone.
        is_bridged=appservice_id is not None or password_hash == "",
        is_special=user_type is not None and user_type != default_user_type,
        is_guest=bool(is_guest),
        is_admin=bool(admin),
        is_deactivated=bool(deactivated),
        created_at=1000 * int(created_at or 0),
    )
