"""The table of sessions, which this package adds to Synapse's database: one row a session."""

from __future__ import annotations

from typing import NamedTuple

from synapse_login_module.synapse.chains import TokenChain
from synapse_login_module.synapse.tables import TokenRows

CREATE = (
    "CREATE TABLE IF NOT EXISTS synapse_login_sessions (session_id TEXT PRIMARY KEY,"
    " user_id TEXT NOT NULL, device_id TEXT NOT NULL, created_at BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS synapse_login_sessions_by_device"
    " ON synapse_login_sessions (user_id, device_id)",
)

_ENDED = "ended by reuse\n"
"""Prefix of the device in the row of a session that reuse has ended. A client that gives its own
device such a name only disables reuse detection for itself."""


class SessionOwner(NamedTuple):
    """The user and the device of a session.

    :param is_ended: whether reuse has ended the session.
    """

    user_id: str
    device_id: str
    is_ended: bool


def remember_session(rows: TokenRows, session_id: bytes, chain: TokenChain, now: int) -> None:
    """Insert the row of a session, unless it exists."""
    rows.write(
        "INSERT INTO synapse_login_sessions (session_id, user_id, device_id, created_at)"
        " VALUES (?, ?, ?, ?) ON CONFLICT (session_id) DO NOTHING",
        session_id.hex(),
        chain.user_id,
        chain.device_id,
        now,
    )


def session_of(rows: TokenRows, session_id: bytes) -> SessionOwner | None:
    """Find the user and the device of a session."""
    found = rows.fetch(
        "SELECT user_id, device_id FROM synapse_login_sessions WHERE session_id = ?",
        session_id.hex(),
    )
    if not found:
        return None
    user_id, device_id = found[0]
    return SessionOwner(
        user_id, device_id.removeprefix(_ENDED), is_ended=device_id.startswith(_ENDED)
    )


def mark_ended(rows: TokenRows, user_id: str, device_id: str) -> None:
    """Mark the sessions of a device as ended by reuse, until the device logs in again or out."""
    rows.write(
        "UPDATE synapse_login_sessions SET device_id = ? WHERE user_id = ? AND device_id = ?",
        _ENDED + device_id,
        user_id,
        device_id,
    )


def forget_sessions(rows: TokenRows, user_id: str, device_id: str | None) -> None:
    """Delete the session rows of a device, or of all devices of a user, ended ones included.

    :param device_id: the device; ``None`` for all.
    """
    if device_id is None:
        rows.write("DELETE FROM synapse_login_sessions WHERE user_id = ?", user_id)
    else:
        rows.write(
            "DELETE FROM synapse_login_sessions WHERE user_id = ? AND device_id IN (?, ?)",
            user_id,
            device_id,
            _ENDED + device_id,
        )
