"""Makes this package's tables in Synapse's database at the start."""

from __future__ import annotations

from twisted.logger import Logger

from synapse_login_module.synapse import link_rows, session_rows
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.tables import TokenRows
from synapse_login_module.synapse.user_tables import USER_TABLES

_FIRST_DELAY = 1
"""Seconds until the first retry. Each further delay is twice as long."""

_LONGEST_DELAY = 60

_log = Logger()


async def make_tables(homeserver: Homeserver) -> None:
    """Make this package's tables, and retry until that succeeds; on Synapse's side.

    It also logs a column that is missing in Synapse's own tables.
    """

    def work(rows: TokenRows) -> str | None:
        for statement in (*session_rows.CREATE, *link_rows.CREATE):
            rows.write(statement)
        return rows.missing_column(USER_TABLES)

    delay = _FIRST_DELAY
    while True:
        try:
            missing = await homeserver.transaction("synapse_login_set_up", work, True)
            break
        except Exception as error:  # the database is down, or refuses the tables
            _log.error(
                "tokens cannot be refreshed: {problem}; trying again in {delay} s",
                problem=" ".join(str(error).split()),
                delay=delay,
            )
        finally:
            homeserver.has_tried_tables = True
        await homeserver.api.sleep(delay)
        delay = min(2 * delay, _LONGEST_DELAY)
    if missing is not None:
        _log.critical(
            "tokens cannot be refreshed: this release of Synapse lacks {missing}",
            missing=missing,
        )
