"""Finding, in SQL, the users whose user IDs differ in the case of letters at most."""

from __future__ import annotations

from synapse_login_module.model import fold
from synapse_login_module.stores.link_watch import Tables

BATCH = 20_000
"""The most rows that one statement looks at, so that none takes long and few rows are fetched."""


async def users_alike(tables: Tables, user_id: str) -> list[str]:
    """List the users who have a session or a link and whose user IDs are alike.

    See :class:`~synapse_login_module.interfaces.IHousekeeping`. Databases differ in how they
    compare the case of letters. So they compare only the length, and the text is compared here.
    """
    wanted, length = fold(user_id), len(user_id)
    found: set[str] = set()
    after = -1
    while True:
        ((last,),) = await tables.fetch(
            "SELECT MAX(session_id) FROM (SELECT session_id"  # noqa: S608
            f" FROM {tables.sessions} WHERE session_id > ?"
            f" ORDER BY session_id LIMIT {BATCH}) AS batch",
            [after],
        )
        if last is None:
            break
        rows = await tables.fetch(
            f"SELECT DISTINCT user_id FROM {tables.sessions}"  # noqa: S608
            " WHERE session_id > ? AND session_id <= ? AND length(user_id) = ?",
            [after, last, length],
        )
        found.update(each for (each,) in rows if fold(each) == wanted)
        after = last
    name = ""
    while rows := await tables.fetch(
        f"SELECT user_id FROM {tables.links} WHERE user_id > ? AND length(user_id) = ?"  # noqa: S608
        f" ORDER BY user_id LIMIT {BATCH}",
        [name, length],
    ):
        found.update(each for (each,) in rows if fold(each) == wanted)
        name = rows[-1][0]
    return sorted(found)
