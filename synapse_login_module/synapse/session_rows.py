"""The rows of this project in Synapse's database: one a session, which says whose it is."""

from __future__ import annotations

from synapse_login_module.synapse.chains import TokenChain
from synapse_login_module.synapse.tables import TokenRows

CREATE = (
    "CREATE TABLE IF NOT EXISTS synapse_login_sessions (session_id TEXT PRIMARY KEY,"
    " user_id TEXT NOT NULL, device_id TEXT NOT NULL, created_at BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS synapse_login_sessions_by_device"
    " ON synapse_login_sessions (user_id, device_id)",
)


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


def session_of(rows: TokenRows, session_id: bytes) -> tuple[str, str] | None:
    """The user and the device of a session."""
    found = rows.fetch(
        "SELECT user_id, device_id FROM synapse_login_sessions WHERE session_id = ?",
        session_id.hex(),
    )
    return None if not found else (found[0][0], found[0][1])


def forget_sessions(rows: TokenRows, user_id: str, device_id: str | None) -> None:
    """Forget the sessions of a device, or of all of a user's."""
    if device_id is None:
        rows.write("DELETE FROM synapse_login_sessions WHERE user_id = ?", user_id)
    else:
        rows.write(
            "DELETE FROM synapse_login_sessions WHERE user_id = ? AND device_id = ?",
            user_id,
            device_id,
        )
