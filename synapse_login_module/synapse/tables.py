"""Synapse's token tables within one transaction. All SQL that changes them is here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from synapse_login_module.model import Link
from synapse_login_module.synapse.chains import AccessRow, EndedToken, Generation, TokenChain

TOKEN_TABLES = {
    "access_tokens": (
        *("id", "user_id", "device_id", "token", "valid_until_ms", "last_validated"),
        *("refresh_token_id", "used"),
    ),
    "refresh_tokens": (
        *("id", "user_id", "device_id", "token", "next_token_id", "expiry_ts"),
        "ultimate_session_expiry_ts",
    ),
    "login_tokens": ("token", "user_id", "expiry_ts", "used_ts"),
}
"""The columns of Synapse's token tables that this package needs, by table."""

_ONE_MILLISECOND = 1


class TokenRows:
    """Synapse's token tables within one transaction. Times are in milliseconds since the epoch.

    ModuleApi: has no refresh. Synapse's own takes four transactions, and leaves the old access
    token valid.

    :param store: Synapse's main data store, which has the caches.
    :param alone: whether this is Synapse's only process.
    """

    def __init__(self, transaction: Any, store: Any, alone: bool) -> None:
        self._transaction = transaction
        self._store = store
        self._alone = alone

    def fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query; return its rows."""
        self._transaction.execute(sql, values)
        return list(self._transaction.fetchall())

    def write(self, sql: str, *values: object) -> int:
        """Run a statement; return how many rows it changed."""
        self._transaction.execute(sql, values)
        return int(self._transaction.rowcount)

    def missing_column(self, more: Mapping[str, Sequence[str]] | None = None) -> str | None:
        """Return a column that this package needs and the database does not have, or ``None``.

        :param more: the columns that are needed of other tables, by table.
        """
        for table, columns in {**TOKEN_TABLES, **(more or {})}.items():
            self._transaction.execute(f"SELECT * FROM {table} LIMIT 0")
            there = {column[0] for column in self._transaction.description}
            for column in columns:
                if column not in there:
                    return f"the column {column} of {table}"
        return None

    def chain(self, refresh_token: str) -> TokenChain | None:
        """Find the generation of a refresh token, and the generation after it."""
        rows = self.fetch(
            "SELECT r.user_id, r.device_id, r.ultimate_session_expiry_ts, n.next_token_id,"
            " r.id, r.token, r.expiry_ts,"
            " a.id, a.token, a.valid_until_ms, a.used, a.last_validated,"
            " n.id, n.token, n.expiry_ts,"
            " b.id, b.token, b.valid_until_ms, b.used, b.last_validated,"
            " l.provider, l.subject"
            " FROM refresh_tokens AS r"
            " LEFT JOIN access_tokens AS a ON a.refresh_token_id = r.id"
            " LEFT JOIN refresh_tokens AS n ON n.id = r.next_token_id"
            " LEFT JOIN access_tokens AS b ON b.refresh_token_id = n.id"
            " LEFT JOIN synapse_login_links AS l ON l.user_id = r.user_id AND l.pending = 0"
            " WHERE r.token = ?",
            refresh_token,
        )
        if not rows:
            return None
        row = rows[0]
        return TokenChain(
            user_id=row[0],
            device_id=row[1],
            ends_at=row[2],
            older=row[3] is not None,
            presented=_generation(row[4:12]),
            next=None if row[12] is None else _generation(row[12:20]),
            link=None if row[20] is None else Link(row[0], row[20], row[21]),
        )

    def login_token_owner(self, token: str, now: int) -> str | None:
        """Find the user of a login token that is neither used nor expired."""
        rows = self.fetch(
            "SELECT user_id FROM login_tokens"
            " WHERE token = ? AND used_ts IS NULL AND expiry_ts >= ?",
            token,
            now,
        )
        return str(rows[0][0]) if rows else None

    def use(self, access_token: str) -> tuple[str, str, int | None] | None:
        """Mark an access token of a device as used; return its user, device and expiry."""
        rows = self.fetch(
            "SELECT user_id, device_id, valid_until_ms FROM access_tokens"
            " WHERE token = ? AND device_id IS NOT NULL",
            access_token,
        )
        if not rows:
            return None
        self.write("UPDATE access_tokens SET used = ? WHERE token = ?", True, access_token)
        user_id, device_id, expires_at = rows[0]
        return user_id, device_id, expires_at

    def owner(self, access_token: str) -> tuple[str, str] | None:
        """Find the user and the device of an access token, expired or not."""
        rows = self.fetch(
            "SELECT user_id, device_id FROM access_tokens WHERE token = ?", access_token
        )
        return None if not rows else (rows[0][0], rows[0][1])

    def rotate_strictly(
        self, chain: TokenChain, ids: tuple[int, int, int], pair: Generation, now: int
    ) -> bool:
        """Replace the presented pair by a new one. The old pair is dead at once.

        The row of the access token keeps its id and gets the new token, so that pushers and
        transaction ids stay with it. It is marked as used, so that Synapse's own ``/refresh``
        rejects the old refresh token, too. The row of the old refresh token gets a new id, so that
        a concurrent ``/refresh`` of Synapse does not find it. The old access token gets an expired
        row, since Synapse does not answer ``soft_logout`` for a token without a row.

        :param ids: unused ids: for the new refresh row, the old one, and the old access row.
        :return: ``False`` when another refresh was faster, or the access token is gone.
        """
        refresh_id, old_refresh_id, old_access_id = ids
        old, access = chain.presented, chain.presented.access
        assert pair.access is not None
        if access is None:
            return False
        self._insert_refresh(refresh_id, chain, pair)
        if not self.write(
            "UPDATE access_tokens SET token = ?, valid_until_ms = ?, last_validated = ?,"
            " refresh_token_id = ?, used = ? WHERE id = ? AND token = ?",
            pair.access.token,
            pair.access.expires_at,
            now,
            refresh_id,
            True,
            access.row_id,
            access.token,
        ):
            return False
        dead = [access.token, *self._delete_predecessor(old.row_id)]
        if not self.write(
            "UPDATE refresh_tokens SET id = ?, next_token_id = ?"
            " WHERE id = ? AND token = ? AND next_token_id IS NULL",
            old_refresh_id,
            refresh_id,
            old.row_id,
            old.token,
        ):
            return False
        self._insert_access(
            old_access_id, chain, access.token, now - _ONE_MILLISECOND, now, old_refresh_id, True
        )
        self._invalidate(dead)
        return True

    def rotate_leniently(
        self, chain: TokenChain, ids: tuple[int, int, int], pair: Generation, now: int
    ) -> bool:
        """Add a new pair after the presented one, which is good until the new one is used.

        :return: ``False`` when another refresh was faster.
        """
        refresh_id, _, access_id = ids
        old = chain.presented
        assert pair.access is not None
        self._insert_refresh(refresh_id, chain, pair)
        dead = self._delete_predecessor(old.row_id)
        if not self.write(
            "UPDATE refresh_tokens SET next_token_id = ?"
            " WHERE id = ? AND token = ? AND next_token_id IS NULL",
            refresh_id,
            old.row_id,
            old.token,
        ):
            return False
        access = pair.access
        self._insert_access(
            access_id, chain, access.token, access.expires_at, now, refresh_id, False
        )
        self._invalidate(dead)
        return True

    def repeat_next(
        self, chain: TokenChain, expires_at: int | None, strict: bool, now: int
    ) -> None:
        """Restart the lifetime of the next pair's access token, since the pair is returned again;
        if strict, end the presented pair.
        """
        assert chain.next is not None
        assert chain.next.access is not None
        changed = [chain.next.access.token]
        self.write(
            "UPDATE access_tokens SET valid_until_ms = ?, last_validated = ?, used = ?"
            " WHERE id = ?",
            expires_at,
            now,
            strict,
            chain.next.access.row_id,
        )
        if strict and chain.presented.access is not None:
            self.write(
                "UPDATE access_tokens SET valid_until_ms = ? WHERE id = ?",
                now - _ONE_MILLISECOND,
                chain.presented.access.row_id,
            )
            changed.append(chain.presented.access.token)
        self._invalidate(changed)

    def set_expiry(self, access_token: str, expires_at: int | None) -> None:
        """Set when an access token expires. No client has the token yet, so no cache does."""
        self.write(
            "UPDATE access_tokens SET valid_until_ms = ? WHERE token = ?", expires_at, access_token
        )

    def end(self, user_id: str, device_id: str | None, now: int) -> list[EndedToken]:
        """End the sessions of a device, or all of a user's; return the tokens that were alive.

        The access tokens expire instead of being deleted, so that clients are told ``soft_logout``
        and keep their encryption keys. The device stays.
        """
        where = "user_id = ? AND (valid_until_ms IS NULL OR valid_until_ms >= ?"
        where += " OR refresh_token_id IS NOT NULL)"
        values: tuple[object, ...] = (user_id, now)
        if device_id is not None:
            where, values = f"{where} AND device_id = ?", (*values, device_id)
        rows = self.fetch(
            f"SELECT id, token, device_id, refresh_token_id FROM access_tokens WHERE {where}",
            *values,
        )
        # This comes first, since deleting a refresh token deletes its access token.
        self.write(
            f"UPDATE access_tokens SET valid_until_ms = ?, refresh_token_id = NULL WHERE {where}",
            now - _ONE_MILLISECOND,
            *values,
        )
        if device_id is None:
            self.write("DELETE FROM refresh_tokens WHERE user_id = ?", user_id)
        else:  # by their ids, since no index has the device
            for *_, refresh_id in rows:
                self.write("DELETE FROM refresh_tokens WHERE id = ?", refresh_id)
        self._invalidate(row[1] for row in rows)
        return [EndedToken(*row[:3]) for row in rows]

    def end_one(self, user_id: str, access_token: str, now: int) -> list[EndedToken]:
        """End the session of one access token, as :meth:`end` does."""
        rows = self.fetch(
            "SELECT id, token, device_id, refresh_token_id FROM access_tokens"
            " WHERE user_id = ? AND token = ?",
            user_id,
            access_token,
        )
        self.write(
            "UPDATE access_tokens SET valid_until_ms = ?, refresh_token_id = NULL"
            " WHERE user_id = ? AND token = ?",
            now - _ONE_MILLISECOND,
            user_id,
            access_token,
        )
        for *_, refresh_id in rows:
            self.write("DELETE FROM refresh_tokens WHERE id = ?", refresh_id)
        self._invalidate(row[1] for row in rows)
        return [EndedToken(*row[:3]) for row in rows]

    def end_earlier(self, user_id: str, device_id: str) -> list[EndedToken]:
        """Delete the tokens of all sessions of a device but the one that began last; list them.

        Ids grow. Of several concurrent logins, each may come here before the others have inserted
        their tokens. The last one sees all of them, and leaves the one with the highest id.
        """
        rows = self.fetch(
            "SELECT id, token, refresh_token_id FROM access_tokens"
            " WHERE user_id = ? AND device_id = ? ORDER BY id",
            user_id,
            device_id,
        )[:-1]
        for row_id, _, refresh_id in rows:
            self.write("DELETE FROM access_tokens WHERE id = ?", row_id)
            if refresh_id is not None:
                self.write("DELETE FROM refresh_tokens WHERE id = ?", refresh_id)
        self._invalidate(token for _, token, _ in rows)
        return [EndedToken(row_id, token, device_id) for row_id, token, _ in rows]

    def delete_login_tokens(self, user_id: str) -> None:
        """Delete all login tokens of a user."""
        self.write("DELETE FROM login_tokens WHERE user_id = ?", user_id)

    def is_chained(self, user_id: str, device_id: str) -> bool:
        """Say whether a device has a session that can be refreshed."""
        return bool(
            self.fetch(
                "SELECT 1 FROM access_tokens WHERE user_id = ? AND device_id = ?"
                " AND refresh_token_id IS NOT NULL LIMIT 1",
                user_id,
                device_id,
            )
        )

    def devices(
        self, user_id: str | None, after: tuple[str, str], most: int
    ) -> list[tuple[str, str, int]]:
        """List devices that have access tokens: user, device, and when one was last issued.

        :param after: list only devices after this user and device.
        :param most: the most devices to list.
        """
        where, values = ("", ()) if user_id is None else ("AND user_id = ?", (user_id,))
        return [
            (user, device, issued or 0)
            for user, device, issued in self.fetch(
                "SELECT user_id, device_id, MAX(last_validated) FROM access_tokens"
                f" WHERE device_id IS NOT NULL {where} AND (user_id, device_id) > (?, ?)"
                " GROUP BY user_id, device_id ORDER BY user_id, device_id LIMIT ?",
                *values,
                *after,
                most,
            )
        ]

    def _insert_refresh(self, row_id: int, chain: TokenChain, pair: Generation) -> None:
        self.write(
            "INSERT INTO refresh_tokens (id, user_id, device_id, token, next_token_id, expiry_ts,"
            " ultimate_session_expiry_ts) VALUES (?, ?, ?, ?, NULL, ?, ?)",
            row_id,
            chain.user_id,
            chain.device_id,
            pair.token,
            pair.expires_at,
            chain.ends_at,
        )

    def _insert_access(
        self,
        row_id: int,
        chain: TokenChain,
        token: str,
        expires_at: int | None,
        now: int,
        refresh_id: int,
        used: bool,
    ) -> None:
        self.write(
            "INSERT INTO access_tokens (id, user_id, device_id, token, valid_until_ms,"
            " last_validated, refresh_token_id, used) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row_id,
            chain.user_id,
            chain.device_id,
            token,
            expires_at,
            now,
            refresh_id,
            used,
        )

    def _delete_predecessor(self, refresh_id: int) -> list[str]:
        """Delete the generation before one; return its access token, if any."""
        rows = self.fetch(
            "SELECT r.id, a.token FROM refresh_tokens AS r"
            " LEFT JOIN access_tokens AS a ON a.refresh_token_id = r.id WHERE r.next_token_id = ?",
            refresh_id,
        )
        if rows:
            self.write("DELETE FROM refresh_tokens WHERE next_token_id = ?", refresh_id)
        return [token for _, token in rows if token is not None]

    def invalidate_external_id(self, auth_provider: str, external_id: str) -> None:
        """Invalidate an external id in the caches of all processes, after the commit."""
        cached, key = self._store.get_user_by_external_id, (auth_provider, external_id)
        if self._alone:
            self._transaction.call_after(cached.invalidate, key)
        else:
            self._store._invalidate_cache_and_stream(self._transaction, cached, key)

    def _invalidate(self, access_tokens: Iterable[str]) -> None:
        """Invalidate access tokens in the caches of all processes, after the commit.

        Telling other processes wakes up much of Synapse, so a single process does not.
        """
        keys = [(token,) for token in access_tokens]
        if self._alone:
            for key in keys:
                self._transaction.call_after(self._store.get_user_by_access_token.invalidate, key)
        elif keys:
            self._store._invalidate_cache_and_stream_bulk(
                self._transaction, self._store.get_user_by_access_token, keys
            )


def _generation(row: tuple[Any, ...]) -> Generation:
    row_id, token, expires_at, access_id, access_token, access_expires, used, issued = row
    access = None
    if access_id is not None:
        access = AccessRow(access_id, access_token, access_expires, bool(used), issued or 0)
    return Generation(row_id, token, expires_at, access)
