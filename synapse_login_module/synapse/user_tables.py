"""Synapse's tables of users, addresses and pushers, within one transaction.

ModuleApi: shows few facts about an account, each in a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from synapse_login_module.accounts.rules import ExistingAccount
from synapse_login_module.model import AccountStatus, fold

FORMER_AUTH_PROVIDER = "synapse_login_module"
"""The ``auth_provider`` of the external IDs by which earlier versions of this module marked the
accounts of password providers."""

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
    """Runs statements within one transaction. Their placeholder is ``?``."""

    def fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query; return its rows."""

    def write(self, sql: str, *values: object) -> int:
        """Run a statement; return how many rows it changed."""


class AmbiguousName(Exception):
    """There are several accounts whose names differ only in the case of letters."""


class UserState(NamedTuple):
    """The state of a user in Synapse.

    :param alive: whether there is a pusher, or a session that can still be used or refreshed.
    """

    alive: bool
    is_admin: bool
    is_locked: bool


class Standing(NamedTuple):
    """The status of an account at the homeserver, and whether it is a server administrator."""

    status: AccountStatus
    is_admin: bool


class LocalPassword(NamedTuple):
    """The local password of an account.

    :param is_linked: whether the account has a link, so that the password does not count.
    """

    user_id: str
    password_hash: str
    is_linked: bool


def find_account(
    rows: SQLRows, user_id: str, default_user_type: str | None
) -> ExistingAccount | None:
    """Find the account of a user ID, or else the one that differs only in the case of letters.

    :param default_user_type: the ``user_type`` that every new account gets.
    :raise AmbiguousName: when several accounts differ only so.
    """
    found = rows.fetch(f"SELECT {_FACTS} FROM users AS u WHERE u.name = ?", user_id)
    if not found:
        found = [
            row
            for row in rows.fetch(
                f"SELECT {_FACTS} FROM users AS u WHERE lower(u.name) = lower(?)", user_id
            )
            # A database may fold the case of more letters than Matrix does.
            if fold(row[0]) == fold(user_id)
        ]
    if len(found) > 1:
        raise AmbiguousName
    return _account(found[0], default_user_type) if found else None


def spellings(rows: SQLRows, user_id: str) -> list[str]:
    """List the accounts whose user IDs are equal once the database has folded their case."""
    found = rows.fetch("SELECT name FROM users WHERE lower(name) = lower(?)", user_id)
    return [row[0] for row in found]


def unlinked_accounts(rows: SQLRows, default_user_type: str | None) -> list[ExistingAccount]:
    """List all accounts without a link, in the order of their user IDs."""
    found = rows.fetch(
        f"SELECT {_FACTS} FROM users AS u"
        " LEFT JOIN synapse_login_links AS l ON l.user_id = u.name AND l.pending = 0"
        " WHERE l.user_id IS NULL ORDER BY u.name"
    )
    return [_account(row, default_user_type) for row in found]


def local_password(rows: SQLRows, user_id: str) -> LocalPassword | None:
    """Find the local password of a user ID.

    It is that of the account of the same spelling, or else that of the only account with a password
    that differs only in the case of letters.
    """
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
    """Remove an account's local password; return whether it had one."""
    return bool(
        rows.write(
            # An empty hash marks an account that an application service made, and stays.
            "UPDATE users SET password_hash = NULL WHERE name = ? AND password_hash <> ''",
            user_id,
        )
    )


def standing(rows: SQLRows, user_id: str) -> Standing | None:
    """Return the standing of a user; ``None`` where there is no account."""
    found = rows.fetch("SELECT deactivated, locked, admin FROM users WHERE name = ?", user_id)
    if not found:
        return None
    deactivated, locked, admin = map(bool, found[0])
    if deactivated:
        return Standing(AccountStatus.DEACTIVATED, admin)
    return Standing(AccountStatus.LOCKED if locked else AccountStatus.ACTIVE, admin)


def states(rows: SQLRows, user_ids: Sequence[str], now: int) -> dict[str, UserState]:
    """Return the states of users, by user ID. Users that do not exist are left out.

    :param now: milliseconds since the epoch; access tokens that expire earlier are not alive.
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
    """List the users that an earlier version marked and that have no link."""
    found = rows.fetch(
        "SELECT DISTINCT e.user_id FROM user_external_ids AS e"
        " LEFT JOIN synapse_login_links AS l ON l.user_id = e.user_id AND l.pending = 0"
        " WHERE e.auth_provider = ? AND l.user_id IS NULL",
        FORMER_AUTH_PROVIDER,
    )
    return [name for (name,) in found]


def former_external_ids(rows: SQLRows, user_id: str) -> list[str]:
    """List the external IDs by which earlier versions of this module marked an account."""
    found = rows.fetch(
        "SELECT external_id FROM user_external_ids WHERE auth_provider = ? AND user_id = ?",
        FORMER_AUTH_PROVIDER,
        user_id,
    )
    return [row[0] for row in found]


def delete_former_external_ids(rows: SQLRows, user_id: str) -> None:
    """Delete the marks of earlier versions of this module from an account."""
    rows.write(
        "DELETE FROM user_external_ids WHERE auth_provider = ? AND user_id = ?",
        FORMER_AUTH_PROVIDER,
        user_id,
    )


def bind_address(rows: SQLRows, user_id: str, medium: str, address: str, now: int) -> bool:
    """Bind an address to a user, unless it is bound already; return whether that was done."""
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
    """Find the user that an address is bound to."""
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
        # Application services register accounts with an empty hash, and others have none. Synapse
        # stores the service's id only for names in an exclusive namespace.
        is_bridged=appservice_id is not None or password_hash == "",
        is_special=user_type is not None and user_type != default_user_type,
        is_guest=bool(is_guest),
        is_admin=bool(admin),
        is_deactivated=bool(deactivated),
        created_at=1000 * int(created_at or 0),
    )
