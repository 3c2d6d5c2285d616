"""Work on all sessions in batches, beside the servers that use the same store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from synapse_login_module.commands.progress import Update
from synapse_login_module.common.pacing import rest
from synapse_login_module.model import EndedBatch

BATCH = 500
"""How many rows one transaction changes, so that no refresh waits long for it."""


async def end_in_batches(
    end: Callable[[int | None, int], Awaitable[EndedBatch]], update: Update, reactor: Any
) -> int:
    """End sessions until there are no more; return how many.

    After each batch the store is left to the servers for as long as the batch took. Of several
    processes that write to one SQLite file, one without pauses would have the lock nearly always.

    :param end: ends one batch; see ``IHousekeeping.expire``.
    """
    ended = 0
    after: int | None = None
    while True:
        began = reactor.seconds()
        batch = await end(after, BATCH)
        ended += batch.sessions
        update(batch.sessions)
        after = batch.after
        if after is None:
            return ended
        await rest(reactor, began)
