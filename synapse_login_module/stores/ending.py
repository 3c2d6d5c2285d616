"""Ending and counting all sessions of a database, in SQL and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from synapse_login_module.model import EndedBatch, SessionCounts
from synapse_login_module.stores.link_watch import Tables
from synapse_login_module.stores.over_sql import was_over
from synapse_login_module.tokens.over import ENDED, Bounds

_COUNTED = 20_000
"""How many rows one query counts, so that it takes some milliseconds."""


class SessionTables(Tables, Protocol):
    """A database that deletes sessions."""

    def delete_sessions(self, session_ids: Sequence[int], note: int | None) -> Deferred[None]:
        """Delete sessions by their numbers, and all login tokens, in one transaction.

        :param note: when the devices of these sessions are due to be deleted at the homeserver, in
            milliseconds since the epoch; ``None`` to note nothing.
        """


async def expire(tables: Tables, now: int, after: int, most: int) -> EndedBatch:
    """End the sessions of one batch. Their rows stay, and so do their devices.

    :param now: milliseconds since the epoch.
    :param after: look only at sessions with higher numbers, in their order.
    :param most: the most session rows to look at.
    """
    rows = await tables.fetch(
        f"SELECT session_id FROM {tables.sessions} WHERE session_id > ?"  # noqa: S608
        " ORDER BY session_id LIMIT ?",
        [after, most],
    )
    if not rows:
        return EndedBatch(0, None)
    last = rows[-1][0]
    ended = await tables.write(
        f"UPDATE {tables.sessions} SET generation = {ENDED}, confirmed = true,"  # noqa: S608
        f" issued_at = ? WHERE session_id > ? AND session_id <= ? AND generation < {ENDED}",
        [now, after, last],
    )
    return EndedBatch(ended, last if len(rows) == most else None)


async def revoke(
    tables: SessionTables, bounds: Bounds, after: int, most: int, note: int | None
) -> EndedBatch:
    """Delete the rows of one batch, and all login tokens.

    :param bounds: the bounds of sessions that are over, which do not count as ended by this.
    :param after: as for :func:`expire`.
    :param most: as for :func:`expire`.
    :param note: as for :meth:`SessionTables.delete_sessions`.
    """
    rows = await tables.fetch(
        f"SELECT session_id, {_one_if(_is_over(bounds))} FROM {tables.sessions}"  # noqa: S608
        " WHERE session_id > ? ORDER BY session_id LIMIT ?",
        [after, most],
    )
    await tables.delete_sessions([session_id for session_id, _ in rows], note)
    ended = sum(not is_over for _, is_over in rows)
    return EndedBatch(ended, rows[-1][0] if len(rows) == most else None)


async def count(tables: Tables, bounds: Bounds, removable: Bounds | None) -> SessionCounts:
    """Count the sessions in short queries.

    :param bounds: the bounds of sessions that are over.
    :param removable: the bounds of those whose rows pruning deletes; ``None`` if it deletes none.
    """
    columns = (
        "session_id, generation, confirmed, created_at, issued_at, access_expires_at,"
        " previous_expires_at"
    )
    old = "1 = 0" if removable is None else was_over(*map(_literal, removable))
    living, to_remove, after = 0, 0, -1
    while True:
        ((rows, last, over, removed),) = await tables.fetch(
            f"SELECT COUNT(*), MAX(session_id), SUM({_one_if(_is_over(bounds))}),"  # noqa: S608
            f" SUM({_one_if(old)}) FROM (SELECT {columns} FROM {tables.sessions}"
            " WHERE session_id > ? ORDER BY session_id LIMIT ?) AS batch",
            [after, _COUNTED],
        )
        if rows:
            living, to_remove, after = living + rows - over, to_remove + removed, last
        if rows < _COUNTED:
            return SessionCounts(living, to_remove)


def _is_over(bounds: Bounds) -> str:
    return f"(generation >= {ENDED} OR {was_over(*map(_literal, bounds))})"


def _one_if(condition: str) -> str:
    return f"CASE WHEN {condition} THEN 1 ELSE 0 END"


def _literal(value: int | None) -> str:
    return "CAST(NULL AS BIGINT)" if value is None else str(value)
