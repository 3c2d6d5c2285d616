"""Ending all sessions of a database, while their devices live on: in batches, as SQL."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from synapse_login_module.stores.link_watch import Value
from synapse_login_module.tokens.over import ENDED

BATCH = 1_000
"""So many rows are looked at in one transaction, so that no refresh waits long for it."""


class Tables(Protocol):
    """A database, with question marks for values.

    :ivar sessions: the name of the table of sessions.
    """

    sessions: str

    def fetch(self, sql: str, values: list[Value]) -> Deferred[list[tuple[Any, ...]]]:
        """Read."""

    def write(self, sql: str, values: list[Value]) -> Deferred[int]:
        """Write; fires with how many rows were written."""


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
