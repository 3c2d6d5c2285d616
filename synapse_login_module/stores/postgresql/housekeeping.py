"""Pruning, leases and the links for the sweep, in PostgreSQL, each in a transaction of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred

from synapse_login_module.model import Pruned
from synapse_login_module.stores.link_watch import TableLinkWatch, Value
from synapse_login_module.stores.over_sql import was_over
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.link_statements import encode_text
from synapse_login_module.stores.postgresql.operations import Delete
from synapse_login_module.stores.postgresql.session_statements import delete_sessions
from synapse_login_module.stores.table_housekeeping import TableHousekeeping
from synapse_login_module.stores.table_notes import SQL, note_again
from synapse_login_module.tokens.over import Bounds

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult


class Execute(Protocol):
    """See :meth:`~synapse_login_module.stores.postgresql.database.PostgreSQLDatabase.execute`."""

    def __call__(
        self, statements: Sequence[Statement], writes: bool = True
    ) -> Deferred[list[PGresult]]:
        """Run statements in one transaction."""


_TEXT = 25
"""The OID of the type ``text`` (pg_type.dat). All other values here are integers or booleans."""

_OVER = was_over("$1::BIGINT", "$2::BIGINT", "$3::BIGINT")

# The DELETE checks a row again, because it may have been written in the meantime.
_PRUNE = f"""
WITH seen AS (
    SELECT session_id, {_OVER} AS was_over FROM synapse_login_sessions
    WHERE session_id > $4::BIGINT ORDER BY session_id LIMIT $5::BIGINT
), found AS (
    SELECT session_id FROM seen WHERE was_over ORDER BY session_id LIMIT $6::BIGINT
), pruned AS (
    DELETE FROM synapse_login_sessions AS row USING found
    WHERE row.session_id = found.session_id AND {_OVER}
    RETURNING row.session_id, row.user_id, row.device_id
){{noted}}
SELECT
    (SELECT COUNT(*) FROM pruned),
    CASE
        WHEN (SELECT COUNT(*) FROM found) = $6::BIGINT THEN (SELECT MAX(session_id) FROM found)
        WHEN (SELECT COUNT(*) FROM seen) = $5::BIGINT THEN (SELECT MAX(session_id) FROM seen)
    END
"""
_PRUNE_ALONE = _PRUNE.format(noted="").encode()
_PRUNE_AND_NOTE = _PRUNE.format(
    noted=f""", noted AS (
    INSERT INTO synapse_login_device_notes (user_id, device_id, due_at, owed)
    SELECT user_id, device_id, $7::BIGINT, 1 FROM pruned ORDER BY user_id, device_id
    {note_again("synapse_login_device_notes")}
)"""
).encode()

_DELETE_ALL_LOGIN_TOKENS = b"DELETE FROM synapse_login_tokens"
_PRUNE_LOGIN_TOKENS = b"""
DELETE FROM synapse_login_tokens WHERE token_id IN (
    SELECT token_id FROM synapse_login_tokens WHERE expires_at <= $1::BIGINT
    ORDER BY expires_at LIMIT $2::BIGINT
)
"""

# Leases go by the clock of the database, which all servers share. A lease that lasts longer than a
# new one would is from before that clock was set back, and does not count.
_NOW = b"EXTRACT(EPOCH FROM clock_timestamp())::DOUBLE PRECISION"
_HOLD = b"""
INSERT INTO synapse_login_leases AS lease (name, holder, ends_at)
VALUES ($1::TEXT, $2::TEXT, %b + $3::DOUBLE PRECISION)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, ends_at = excluded.ends_at
WHERE lease.holder = excluded.holder OR lease.ends_at <= %b
    OR lease.ends_at > %b + $3::DOUBLE PRECISION
""" % (_NOW, _NOW, _NOW)
_RELEASE = b"DELETE FROM synapse_login_leases WHERE name = $1::TEXT AND holder = $2::TEXT"


class PostgreSQLHousekeeping(TableHousekeeping):
    """See :class:`~synapse_login_module.stores.housekeeping.Housekeeping`.

    :param execute: runs statements in one transaction.
    """

    links = "synapse_login_links"
    sessions = "synapse_login_sessions"
    device_notes = "synapse_login_device_notes"
    name_reservations = "synapse_login_name_reservations"
    lock_notes = "FOR UPDATE SKIP LOCKED"
    keep_sessions = "FOR KEY SHARE OF session SKIP LOCKED"

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self.link_watch = TableLinkWatch(self)

    def prune(
        self, bounds: Bounds, after: int, scan: int, most: int, note: int | None
    ) -> Deferred[Pruned]:
        """Find and delete rows that were over, in one transaction."""

        def pruned(results: list[PGresult]) -> Pruned:
            ((sessions, last),) = _rows(results[0])
            tokens = results[1].command_tuples or 0
            return Pruned(sessions, tokens, last)

        values = [_value(each) for each in (*bounds, after, scan, most)]
        prune = (
            Statement(_PRUNE_ALONE, values)
            if note is None
            else Statement(_PRUNE_AND_NOTE, [*values, str(note)])
        )
        tokens = Statement(_PRUNE_LOGIN_TOKENS, [str(bounds.ended), str(most)])
        return self._execute([prune, tokens]).addCallback(pruned)

    def delete_sessions(self, session_ids: Sequence[int], note: int | None) -> Deferred[None]:
        """Delete sessions; see :class:`~synapse_login_module.stores.ending.SessionTables`."""
        delete = delete_sessions([Delete(tuple(session_ids), note=note)])
        deleted = self._execute([*delete, Statement(_DELETE_ALL_LOGIN_TOKENS, [])])
        return deleted.addCallback(lambda _: None)

    def hold(self, lease: str, holder: str, seconds: float, now: float) -> Deferred[bool]:
        """Take or renew a lease, by the clock of the database."""
        done = self._execute(
            [Statement(_HOLD, [encode_text(lease), encode_text(holder), str(seconds)])]
        )
        return done.addCallback(lambda results: results[0].command_tuples == 1)

    def release(self, lease: str, holder: str) -> Deferred[None]:
        """Give up a lease."""
        done = self._execute([Statement(_RELEASE, [encode_text(lease), encode_text(holder)])])
        return done.addCallback(lambda _: None)

    def fetch(self, sql: str, values: Sequence[Value]) -> Deferred[list[tuple[Any, ...]]]:
        """Read rows; see :class:`~synapse_login_module.stores.link_watch.Tables`."""
        return self._execute([_statement(sql, values)], writes=False).addCallback(
            lambda results: _rows(results[0])
        )

    def write(self, sql: str, values: Sequence[Value]) -> Deferred[int]:
        """Write rows; see :class:`~synapse_login_module.stores.link_watch.Tables`."""
        return self._execute([_statement(sql, values)]).addCallback(
            lambda results: results[0].command_tuples or 0
        )

    def transact(self, statements: Sequence[SQL]) -> Deferred[list[list[tuple[Any, ...]]]]:
        """Run statements; see :class:`~synapse_login_module.stores.table_notes.NoteTables`."""
        return self._execute([_statement(*each) for each in statements]).addCallback(
            lambda results: [_rows(each) for each in results]
        )


def _statement(sql: str, values: Sequence[Value]) -> Statement:
    """Make a statement from SQL with question marks as placeholders."""
    numbers = itertools.count(1)
    parts = sql.split("?")
    numbered = parts[0] + "".join(f"${next(numbers)}{part}" for part in parts[1:])
    return Statement(numbered.encode(), [_value(each) for each in values])


def _value(value: Value) -> str | bytes | None:
    return encode_text(value) if isinstance(value, str) else None if value is None else str(value)


def _rows(result: PGresult) -> list[tuple[Any, ...]]:
    columns = range(result.nfields)
    types = [result.ftype(column) for column in columns]
    return [
        tuple(_read(result.get_value(row, column), types[column]) for column in columns)
        for row in range(result.ntuples)
    ]


def _read(value: bytes | None, kind: int) -> Any:
    """Read a text, an integer or a boolean, the last as 0 or 1, in PostgreSQL's binary format."""
    if value is None:
        return None
    return value.decode() if kind == _TEXT else int.from_bytes(value, "big", signed=True)
