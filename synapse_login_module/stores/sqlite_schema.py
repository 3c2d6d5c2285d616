"""The tables of an SQLite file, and their migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from synapse_login_module.errors import ConfigError

Migration = Sequence[str]

MIGRATIONS: Sequence[Migration] = (
    (
        """
        CREATE TABLE sessions (
            session_id INTEGER PRIMARY KEY,
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            display_name TEXT,
            salt BLOB NOT NULL,
            key_id INTEGER NOT NULL,
            generation INTEGER NOT NULL,
            confirmed INTEGER NOT NULL,
            created_at INTEGER NOT NULL,
            issued_at INTEGER NOT NULL,
            access_expires_at INTEGER,
            previous_expires_at INTEGER
        )
        """,
        "CREATE UNIQUE INDEX sessions_by_device ON sessions (user_id, device_id)",
        """
        CREATE TABLE login_tokens (
            token_id INTEGER PRIMARY KEY,
            user_id TEXT NOT NULL,
            salt BLOB NOT NULL,
            expires_at INTEGER NOT NULL
        )
        """,
        "CREATE INDEX login_tokens_by_expiry ON login_tokens (expires_at)",
    ),
    (
        """
        CREATE TABLE links (
            user_id TEXT NOT NULL PRIMARY KEY,
            provider TEXT NOT NULL,
            subject TEXT NOT NULL,
            linked_at INTEGER NOT NULL
        )
        """,
        "CREATE UNIQUE INDEX links_by_subject ON links (provider, subject)",
    ),
    (
        # The state of the sweep over linked accounts; see model.WatchedLink.
        "ALTER TABLE links ADD COLUMN looked_at INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE links ADD COLUMN gone_since INTEGER",
        "ALTER TABLE links ADD COLUMN held INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE links ADD COLUMN locked INTEGER NOT NULL DEFAULT 0",
        "UPDATE links SET looked_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000",
        "CREATE INDEX links_by_look ON links (provider, looked_at)",
        "CREATE TABLE leases (name TEXT NOT NULL PRIMARY KEY, holder TEXT NOT NULL,"
        " ends_at REAL NOT NULL)",
    ),
    (
        """
        CREATE TABLE token_keys (
            key_id INTEGER PRIMARY KEY,
            fingerprint TEXT NOT NULL,
            retired INTEGER NOT NULL
        )
        """,
    ),
    (
        # What is kept for a homeserver; see table_notes.py.
        """
        CREATE TABLE device_notes (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            due_at INTEGER NOT NULL,
            owed INTEGER NOT NULL,
            lease INTEGER NOT NULL DEFAULT 0,
            leased_until INTEGER NOT NULL DEFAULT 0,
            attempts INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (user_id, device_id)
        )
        """,
        "CREATE INDEX device_notes_by_due ON device_notes (owed, attempts, due_at)",
        "CREATE INDEX device_notes_by_lease ON device_notes (lease) WHERE lease <> 0",
        """
        CREATE TABLE name_reservations (
            user_id TEXT NOT NULL PRIMARY KEY,
            provider TEXT NOT NULL,
            subject TEXT NOT NULL,
            reserved_at INTEGER NOT NULL
        )
        """,
    ),
    (
        # The digests of imported tokens; see imported.py.
        """
        CREATE TABLE imported_tokens (
            digest BLOB NOT NULL PRIMARY KEY,
            session_id INTEGER NOT NULL,
            kind INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX imported_tokens_by_session ON imported_tokens (session_id)",
    ),
)
"""The statements from each version of the schema to the next. ``user_version`` is the version."""


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Migrate the schema to the newest version, in one transaction.

    :raise ConfigError: when a newer version of this program has migrated the file further.
    """
    connection.execute("BEGIN EXCLUSIVE")
    try:
        version = version_of(connection, migrations)
        for migration in migrations[version:]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def version_of(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Read the version of the schema; 0 is an empty file.

    :raise ConfigError: when a newer version of this program has migrated the file further.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise ConfigError(
            "path", f"its schema is version {version}; this program knows {len(migrations)}"
        )
    return version
