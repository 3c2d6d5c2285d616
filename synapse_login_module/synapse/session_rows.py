"""The rows of this project in Synapse's database: one a session, which says whose it is."""

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
"""Stands before the device of a session that reuse has ended. A client that calls its own device so
has nothing of it but that reuse is not noticed there."""


class SessionOwner(NamedTuple):
    """Whose a session is.

    :param is_ended: whether reuse has ended it.
    """

    user_id: str
    device_id: str
    is_ended: bool


def remember_session(rows: TokenRows, session_id: bytes, chain: TokenChain, now: int) -> None:
    """Write down whose a session is."""
    rows.write(
        "INSERT INTO synapse_login_sessions (session_id, user_id, device_id, created_at)"
        " VALUES (?, ?, ?, ?) ON CONFLICT (session_id) DO NOTHING",
        session_id.hex(),
        chain.user_id,
        chain.device_id,
        now,
    )


def session_of(rows: TokenRows, session_id: bytes) -> SessionOwner | None:
    """The user and the device of a session."""
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
    """Write down that reuse has ended the sessions of a device, until it logs in again or out."""
    rows.write(
        "UPDATE synapse_login_sessions SET device_id = ? WHERE user_id = ? AND device_id = ?",
        _ENDED + device_id,
        user_id,
        device_id,
    )


def forget_sessions(rows: TokenRows, user_id: str, device_id: str | None) -> None:
    """Forget the sessions of a device, or of all of a user's; those that have ended too."""
    if device_id is None:
        rows.write("DELETE FROM synapse_login_sessions WHERE user_id = ?", user_id)
    else:
        rows.write(
            "DELETE FROM synapse_login_sessions WHERE user_id = ? AND device_id IN (?, ?)",
            user_id,
            device_id,
            _ENDED + device_id,
        )
