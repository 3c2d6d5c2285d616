"""Ending all sessions of a database, while their devices live on: in batches, as SQL."""

from __future__ import annotations

from synapse_login_module.stores.link_watch import Tables
from synapse_login_module.tokens.over import ENDED

BATCH = 1_000
"""So many rows are looked at in one transaction, so that no refresh waits long for it."""


async def expire_all(tables: Tables, now: int) -> int:
    """End every session that is there; the number of those that had not been ended.

    Those that begin meanwhile may be among them or not.

    :param now: milliseconds since the epoch.
    """
    ended, after = 0, -1
    while True:
        rows = await tables.fetch(
            f"SELECT session_id FROM {tables.sessions} WHERE session_id > ?"  # noqa: S608
            f" ORDER BY session_id LIMIT {BATCH}",
            [after],
        )
        if not rows:
            return ended
        last = rows[-1][0]
        ended += await tables.write(
            f"UPDATE {tables.sessions} SET generation = {ENDED}, confirmed = true,"  # noqa: S608
            f" issued_at = ? WHERE session_id > ? AND session_id <= ? AND generation < {ENDED}",
            [now, after, last],
        )
        after = last
