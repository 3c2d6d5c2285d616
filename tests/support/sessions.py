"""Makes the files of a server and adds sessions, without running a server."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from twisted.internet import reactor

from synapse_login_module.standalone.plan import load_config
from synapse_login_module.standalone.server import build_backends

_SINCE = 1_700_000_000_000


def make_files(config: Path) -> None:
    """Make the key file and the database, as a server does at its first start."""
    build_backends(load_config(config, reactor), reactor)


def add_session(
    database: Path, user_id: str, device_id: str = "PHONE", name: str | None = None
) -> None:
    """Add a session without a link, as of a login by an old release."""
    with sqlite3.connect(database) as connection:
        count = connection.execute("SELECT count(*) FROM sessions").fetchone()[0]
        connection.execute(
            "INSERT INTO sessions (session_id, user_id, device_id, display_name, salt, key_id,"
            " generation, confirmed, created_at, issued_at) VALUES (?, ?, ?, ?, ?, 1, 0, 1, ?, ?)",
            (count + 1, user_id, device_id, name, bytes(16), _SINCE + 1000 * count, _SINCE),
        )
    connection.close()


def add_link(database: Path, user_id: str, provider: str, subject: str) -> None:
    """Add a link."""
    with sqlite3.connect(database) as connection:
        connection.execute(
            "INSERT INTO links (user_id, provider, subject, linked_at) VALUES (?, ?, ?, ?)",
            (user_id, provider, subject, _SINCE),
        )
    connection.close()
