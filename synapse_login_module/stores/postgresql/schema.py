"""The tables, and their migrations when several processes start at once.

Advisory locks are not used, because not every engine that speaks the protocol has them. The process
that locks the only row of ``synapse_login_schema`` migrates the schema, in one transaction. The
others wait for the row, and then find the schema migrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from synapse_login_module.errors import ConfigError

if TYPE_CHECKING:
    from psycopg import Connection

Migration = Sequence[str]

MIGRATIONS: Sequence[Migration] = (
    (
        # Columns are ordered by width, so that no space is lost to alignment. A refresh changes no
        # indexed column, so the new version of the row stays on its page while there is room (HOT).
        """
        CREATE TABLE synapse_login_sessions (
            session_id BIGINT PRIMARY KEY,
            generation BIGINT NOT NULL,
            created_at BIGINT NOT NULL,
            issued_at BIGINT NOT NULL,
            access_expires_at BIGINT,
            previous_expires_at BIGINT,
            key_id INTEGER NOT NULL,
            confirmed BOOLEAN NOT NULL,
            salt BYTEA NOT NULL,
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            display_name TEXT
        ) WITH (fillfactor = 90)
        """,
        "CREATE UNIQUE INDEX synapse_login_sessions_by_device"
        " ON synapse_login_sessions (user_id, device_id)",
        """
        CREATE TABLE synapse_login_tokens (
            token_id BIGINT PRIMARY KEY,
            user_id TEXT NOT NULL,
            salt BYTEA NOT NULL,
            expires_at BIGINT NOT NULL
        )
        """,
        "CREATE INDEX synapse_login_tokens_by_expiry ON synapse_login_tokens (expires_at)",
    ),
    (
        # The token buckets of the rate limits; see limits.py.
        """
        CREATE TABLE synapse_login_limits (
            bucket BYTEA PRIMARY KEY,
            full_at DOUBLE PRECISION NOT NULL
        ) WITH (fillfactor = 50)
        """,
    ),
    (
        """
        CREATE TABLE synapse_login_links (
            user_id TEXT PRIMARY KEY,
            provider TEXT NOT NULL,
            subject TEXT NOT NULL,
            linked_at BIGINT NOT NULL
        )
        """,
        "CREATE UNIQUE INDEX synapse_login_links_by_subject"
        " ON synapse_login_links (provider, subject)",
    ),
    (
        # The state of the sweep over linked accounts; see model.WatchedLink.
        """
        ALTER TABLE synapse_login_links
            ADD COLUMN looked_at BIGINT NOT NULL DEFAULT 0,
            ADD COLUMN gone_since BIGINT,
            ADD COLUMN held SMALLINT NOT NULL DEFAULT 0,
            ADD COLUMN locked SMALLINT NOT NULL DEFAULT 0
        """,
        "UPDATE synapse_login_links"
        " SET looked_at = CAST(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP) * 1000 AS BIGINT)",
        "CREATE INDEX synapse_login_links_by_look ON synapse_login_links (provider, looked_at)",
        """
        CREATE TABLE synapse_login_leases (
            name TEXT PRIMARY KEY,
            holder TEXT NOT NULL,
            ends_at DOUBLE PRECISION NOT NULL
        ) WITH (fillfactor = 50)
        """,
    ),
    (
        """
        CREATE TABLE synapse_login_keys (
            key_id INTEGER PRIMARY KEY,
            fingerprint TEXT NOT NULL,
            retired BOOLEAN NOT NULL
        )
        """,
    ),
    (
        # What is kept for a homeserver; see table_notes.py.
        """
        CREATE TABLE synapse_login_device_notes (
            due_at BIGINT NOT NULL,
            lease BIGINT NOT NULL DEFAULT 0,
            leased_until BIGINT NOT NULL DEFAULT 0,
            attempts INTEGER NOT NULL DEFAULT 0,
            owed SMALLINT NOT NULL,
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            PRIMARY KEY (user_id, device_id)
        )
        """,
        "CREATE INDEX synapse_login_device_notes_by_due"
        " ON synapse_login_device_notes (owed, attempts, due_at)",
        "CREATE INDEX synapse_login_device_notes_by_lease"
        " ON synapse_login_device_notes (lease) WHERE lease <> 0",
        """
        CREATE TABLE synapse_login_name_reservations (
            user_id TEXT PRIMARY KEY,
            provider TEXT NOT NULL,
            subject TEXT NOT NULL,
            reserved_at BIGINT NOT NULL
        )
        """,
    ),
    (
        # The digests of imported tokens; see stores/imported.py.
        """
        CREATE TABLE synapse_login_imported (
            session_id BIGINT NOT NULL,
            kind SMALLINT NOT NULL,
            digest BYTEA PRIMARY KEY
        )
        """,
        "CREATE INDEX synapse_login_imported_by_session ON synapse_login_imported (session_id)",
    ),
)
"""The statements from each version of the schema to the next."""

_MAKE_VERSION = (
    "CREATE TABLE IF NOT EXISTS synapse_login_schema"
    " (only_row INTEGER PRIMARY KEY, version INTEGER NOT NULL)",
    "INSERT INTO synapse_login_schema (only_row, version) VALUES (1, 0)"
    " ON CONFLICT (only_row) DO NOTHING",
)
_FORBIDDEN = """
SELECT kind, name
FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS kind,
    unnest(ARRAY[
        'synapse_login_sessions', 'synapse_login_tokens', 'synapse_login_limits',
        'synapse_login_links', 'synapse_login_leases', 'synapse_login_keys',
        'synapse_login_device_notes', 'synapse_login_name_reservations',
        'synapse_login_imported'
    ]) AS name
WHERE NOT has_table_privilege(name, kind)
    AND (name, kind) NOT IN (
        ('synapse_login_tokens', 'UPDATE'), ('synapse_login_keys', 'DELETE'),
        ('synapse_login_imported', 'UPDATE')
    )
"""
_VERSION = "SELECT version FROM synapse_login_schema WHERE only_row = 1"
_ATTEMPTS = 20


def migrate(connection: Connection[Any], migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Migrate the schema to the newest version. If it is up to date, only read its version.

    :param connection: a connection in autocommit mode.
    :raise ConfigError: when a newer version of this program has migrated the schema further, or the
        role may not create tables.
    """
    from psycopg import errors

    overtaken = (
        errors.UniqueViolation,  # two processes create one table
        errors.DuplicateTable,
        errors.DuplicateObject,
        errors.SerializationFailure,
        errors.DeadlockDetected,
    )
    try:
        for _ in range(_ATTEMPTS):
            with suppress(*overtaken):
                if _version(connection, migrations) < len(migrations):
                    _bring_up_to_date(connection, migrations)
                return
    except errors.InsufficientPrivilege as error:
        raise ConfigError(
            "dsn",
            "the tables are not there, or of an older version, and this role may not make them:"
            f" {error.diag.message_primary}",
        ) from None
    raise ConfigError("dsn", "others keep changing the schema")


def require_rights(connection: Connection[Any]) -> None:
    """Check that this role may use the tables, which another role may have created.

    :raise ConfigError: when it may not.
    """
    forbidden = connection.execute(_FORBIDDEN).fetchone()
    if forbidden is not None:
        raise ConfigError("dsn", "this role may not {} rows of {}".format(*forbidden))


def version_of(connection: Connection[Any]) -> int:
    """Read the version of the schema; 0 if there is none yet.

    :raise ConfigError: when a newer version of this program has migrated the schema further.
    """
    return _version(connection, MIGRATIONS)


def _version(connection: Connection[Any], migrations: Sequence[Migration]) -> int:
    from psycopg import errors

    try:
        row = connection.execute(_VERSION).fetchone()
    except errors.UndefinedTable:
        return 0
    return 0 if row is None else _known(row[0], migrations)


def _bring_up_to_date(connection: Connection[Any], migrations: Sequence[Migration]) -> None:
    for statement in _MAKE_VERSION:
        connection.execute(statement)
    with connection.transaction():
        row = connection.execute(f"{_VERSION} FOR UPDATE").fetchone()
        assert row is not None
        for migration in migrations[_known(row[0], migrations) :]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(
            "UPDATE synapse_login_schema SET version = %s WHERE only_row = 1", [len(migrations)]
        )


def _known(version: int, migrations: Sequence[Migration]) -> int:
    if version > len(migrations):
        raise ConfigError(
            "dsn", f"the schema is version {version}; this program knows {len(migrations)}"
        )
    return version
