"""Token keys in SQL: reading and writing ``synapse_login_keys``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_login_module.model import TokenKey
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.link_statements import encode_text, read_text
from synapse_login_module.stores.postgresql.operations import InsertKeys, RetireKey

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

FETCH_KEYS = b"SELECT key_id, fingerprint, retired FROM synapse_login_keys ORDER BY key_id"

# One statement for each key, so that a key that conflicts does not keep others out.
_INSERT = (
    b"INSERT INTO synapse_login_keys (key_id, fingerprint, retired)"
    b" VALUES ($1::INTEGER, $2::TEXT, $3::BOOLEAN) ON CONFLICT (key_id) DO NOTHING"
)
_RETIRE = (
    b"UPDATE synapse_login_keys SET retired = true WHERE key_id = $1::INTEGER RETURNING key_id"
)


def keys(result: PGresult) -> list[TokenKey]:
    """Read the keys from a result."""
    return [
        TokenKey(
            int.from_bytes(result.get_value(row, 0) or b"", "big"),
            read_text(result.get_value(row, 1)),
            result.get_value(row, 2) == b"\1",
        )
        for row in range(result.ntuples)
    ]


def insert_keys(write: InsertKeys) -> list[Statement]:
    """Make the statements that insert keys."""
    return [
        Statement(_INSERT, [str(key.key_id), encode_text(key.fingerprint), str(key.retired)])
        for key in write.keys
    ]


def retire_key(write: RetireKey) -> Statement:
    """Make the statement that marks a key as retired. It returns a row if the key exists."""
    return Statement(_RETIRE, [str(write.key_id)])
