"""Ending all sessions of a database, in SQL and in batches. Their devices live on."""

from __future__ import annotations

from synapse_login_module.stores.link_watch import Tables
from synapse_login_module.tokens.over import ENDED

BATCH = 1_000
"""The most rows that one transaction looks at, so that no refresh waits long for it."""


async def expire_all(tables: Tables, now: int) -> int:
    """End every session. A session that begins in the meantime may be ended or not.

    :param now: milliseconds since the epoch.
    :return: the number of sessions that this ended.
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
