"""The rows of sessions, links, keys and login tokens in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from synapse_login_module.model import Claim, Link, Session, TokenKey
from synapse_login_module.stores.rows import SESSION_COLUMNS, LoginTokenRow
from synapse_login_module.stores.table_notes import note_again

A = TypeVar("A")
B = TypeVar("B")

INSERT_SESSION = (
    f"INSERT INTO sessions ({SESSION_COLUMNS}) VALUES ({', '.join('?' for _ in Session._fields)})"
)

_CONFIRMED = Session._fields.index("confirmed")

_SESSIONS = f"SELECT {SESSION_COLUMNS} FROM sessions "
_SESSION = _SESSIONS + "WHERE session_id = ?"
_SESSIONS_OF_USER = _SESSIONS + "WHERE user_id = ? ORDER BY created_at, session_id"
_PAGE = _SESSIONS + "WHERE session_id > ? ORDER BY session_id LIMIT ?"
# The plus signs keep SQLite from reading all sessions by their numbers.
_PAGE_OF_USER = _SESSIONS + "WHERE user_id = ? AND +session_id > ? ORDER BY +session_id LIMIT ?"

_LINKS = "SELECT user_id, provider, subject FROM links "

_NOTE = (
    "INSERT INTO device_notes (user_id, device_id, due_at, owed)"
    " SELECT user_id, device_id, ?, 1 FROM sessions"
)
_NOTE_AGAIN = note_again("device_notes")


class SQLiteRows:
    """The rows in an open transaction; see :class:`~synapse_login_module.stores.rows.Rows`."""

    writes_once = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def session(self, session_id: int) -> Session | None:
        """Read one session."""
        row = self._execute(_SESSION, (session_id,)).fetchone()
        return row and _session(row)

    def is_free(self, session_id: int) -> bool:
        """Return whether no session has a number."""
        return self.session(session_id) is None

    def reread(self, session_id: int) -> Session | None:
        """Read one session, which is never cached here."""
        return self.session(session_id)

    def together(self, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
        """Run two reads, one after the other."""
        return first(), second()

    def owner(self, session_id: int) -> tuple[Session, Link | None] | None:
        """Read one session and the link of its user."""
        session = self.session(session_id)
        if session is None:
            return None
        return session, next(iter(self.links_of(session.user_id, None)), None)

    def sessions(self, user_id: str) -> list[Session]:
        """Read the sessions of a user."""
        return [_session(row) for row in self._execute(_SESSIONS_OF_USER, (user_id,))]

    def page(self, user_id: str | None, after: int, most: int) -> list[Session]:
        """Read sessions in the order of their numbers."""
        rows = (
            self._execute(_PAGE, (after, most))
            if user_id is None
            else self._execute(_PAGE_OF_USER, (user_id, after, most))
        )
        return [_session(row) for row in rows]

    def insert(
        self,
        session: Session,
        link: Link | None = None,
        new: bool = False,
        reserved: bool = False,
    ) -> None:
        """Insert a session, and delete the earlier one of its user and device."""
        if link is not None and new:
            self.insert_link(link, session.created_at, ())
        if reserved:
            self._execute(
                "DELETE FROM device_notes WHERE user_id = ? AND device_id = ?",
                (session.user_id, session.device_id),
            )
        self._execute(
            "DELETE FROM sessions WHERE user_id = ? AND device_id = ?",
            (session.user_id, session.device_id),
        )
        self._execute(INSERT_SESSION, session)

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Write a session's row, unless it has changed."""
        cursor = self._execute(
            "UPDATE sessions SET key_id = ?, generation = ?, confirmed = ?, issued_at = ?,"
            " access_expires_at = ?, previous_expires_at = ?"
            " WHERE session_id = ? AND generation = ? AND confirmed = ? AND issued_at = ?",
            (
                new.key_id,
                new.generation,
                new.confirmed,
                new.issued_at,
                new.access_expires_at,
                new.previous_expires_at,
                old.session_id,
                old.generation,
                old.confirmed,
                old.issued_at,
            ),
        )
        return cursor.rowcount == 1

    def delete(self, session_id: int, note: int | None = None) -> None:
        """Delete one session."""
        if note is not None:
            self._execute(f"{_NOTE} WHERE session_id = ? {_NOTE_AGAIN}", (note, session_id))
        self._execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))

    def delete_user(self, user_id: str, note: int | None = None) -> int:
        """Delete a user's sessions and login tokens."""
        self._delete_login_tokens(user_id)
        if note is not None:
            self._execute(f"{_NOTE} WHERE user_id = ? {_NOTE_AGAIN}", (note, user_id))
        return self._execute("DELETE FROM sessions WHERE user_id = ?", (user_id,)).rowcount

    def delete_device(self, user_id: str, device_id: str, note: int) -> None:
        """Delete the session of a device, and note the device."""
        self._execute(
            "DELETE FROM sessions WHERE user_id = ? AND device_id = ?", (user_id, device_id)
        )
        self._execute(
            "INSERT INTO device_notes (user_id, device_id, due_at, owed) VALUES (?, ?, ?, 1)"
            f" {_NOTE_AGAIN}",
            (user_id, device_id, note),
        )

    def is_reserved(self, user_id: str, device_id: str) -> bool:
        """Return whether a device is reserved."""
        found = self._execute(
            "SELECT 1 FROM device_notes WHERE user_id = ? AND device_id = ? AND attempts = 0",
            (user_id, device_id),
        ).fetchone()
        return found is not None

    def links_of(self, user_id: str | None, claim: Claim | None) -> list[Link]:
        """Read the link of a user ID, and the links of a claim."""
        rows: list[Any] = []
        if user_id is not None:
            rows += self._execute(_LINKS + "WHERE user_id = ?", (user_id,))
        if claim is not None:
            for name in claim.providers:
                subject = (name, claim.subject)
                rows += self._execute(_LINKS + "WHERE provider = ? AND subject = ?", subject)
        return [Link(*row) for row in rows]

    def links(self) -> list[Link]:
        """Read all links."""
        return [Link(*row) for row in self._execute(_LINKS + "ORDER BY user_id")]

    def insert_link(self, link: Link, linked_at: int, instead_of: Sequence[Link]) -> None:
        """Insert a link, after deleting others."""
        for each in instead_of:
            self.delete_link(each)
        self._execute(
            "INSERT INTO links (user_id, provider, subject, linked_at, looked_at)"
            " VALUES (?, ?, ?, ?, ?)",
            (*link, linked_at, linked_at),
        )

    def delete_link(self, link: Link) -> None:
        """Delete a link, the login tokens of its user, and the reservation of the name."""
        self._execute("DELETE FROM name_reservations WHERE user_id = ?", (link.user_id,))
        self._execute("DELETE FROM links WHERE user_id = ?", (link.user_id,))
        self._delete_login_tokens(link.user_id)

    def token_keys(self) -> list[TokenKey]:
        """Read the keys."""
        rows = self._execute("SELECT key_id, fingerprint, retired FROM token_keys ORDER BY key_id")
        return [TokenKey(key_id, known, bool(retired)) for key_id, known, retired in rows]

    def insert_keys(self, keys: Sequence[TokenKey]) -> None:
        """Insert the keys whose ids do not exist yet."""
        for key in keys:
            self._execute(
                "INSERT INTO token_keys (key_id, fingerprint, retired) VALUES (?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                key,
            )

    def retire_key(self, key_id: int) -> bool:
        """Mark a key as retired."""
        cursor = self._execute("UPDATE token_keys SET retired = 1 WHERE key_id = ?", (key_id,))
        return cursor.rowcount == 1

    def login_token(self, token_id: int) -> LoginTokenRow | None:
        """Read one login token."""
        row = self._execute(
            "SELECT token_id, user_id, salt, expires_at FROM login_tokens WHERE token_id = ?",
            (token_id,),
        ).fetchone()
        return row and LoginTokenRow(*row)

    def insert_login_token(self, row: LoginTokenRow, now: int) -> None:
        """Insert a login token and delete the expired ones."""
        self._execute("DELETE FROM login_tokens WHERE expires_at <= ?", (now,))
        self._execute(
            "INSERT INTO login_tokens (token_id, user_id, salt, expires_at) VALUES (?, ?, ?, ?)",
            (row.token_id, row.user_id, row.salt, row.expires_at),
        )

    def delete_login_token(self, token_id: int) -> bool:
        """Delete one login token."""
        cursor = self._execute("DELETE FROM login_tokens WHERE token_id = ?", (token_id,))
        return cursor.rowcount == 1

    def _delete_login_tokens(self, user_id: str) -> None:
        self._execute("DELETE FROM login_tokens WHERE user_id = ?", (user_id,))


def _session(row: Sequence[Any]) -> Session:
    values = list(row)
    values[_CONFIRMED] = bool(values[_CONFIRMED])
    return Session._make(values)
