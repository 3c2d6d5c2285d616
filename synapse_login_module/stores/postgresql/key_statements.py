"""The keys of tokens, as SQL: what is fetched and written of ``synapse_login_keys``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_login_module.model import TokenKey
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.link_statements import read_text, text
from synapse_login_module.stores.postgresql.optimistic import InsertKeys, RetireKey

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

FETCH_KEYS = b"SELECT key_id, fingerprint, retired FROM synapse_login_keys ORDER BY key_id"

# Each alone, so that those are there which do not stand in one another's way.
_PUT = (
    b"INSERT INTO synapse_login_keys (key_id, fingerprint, retired)"
    b" VALUES ($1::INTEGER, $2::TEXT, $3::BOOLEAN) ON CONFLICT (key_id) DO NOTHING"
)
_RETIRE = (
    b"UPDATE synapse_login_keys SET retired = true WHERE key_id = $1::INTEGER RETURNING key_id"
)


def keys(result: PGresult) -> list[TokenKey]:
    """The keys that were fetched."""
    return [
        TokenKey(
            int.from_bytes(result.get_value(row, 0) or b"", "big"),
            read_text(result.get_value(row, 1)),
            result.get_value(row, 2) == b"\1",
        )
        for row in range(result.ntuples)
    ]


def insert_keys(write: InsertKeys) -> list[Statement]:
    """The statements that insert keys."""
    return [
        Statement(_PUT, [str(key.key_id), text(key.fingerprint), str(key.retired)])
        for key in write.keys
    ]


def retire_key(write: RetireKey) -> Statement:
    """The statement that marks a key as retired; it gives a row where the key is there."""
    return Statement(_RETIRE, [str(write.key_id)])
