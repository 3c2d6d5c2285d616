"""The links of a running Synapse, for those outside its transactions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import Claim, Link
from synapse_login_module.synapse import link_rows
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.tables import TokenRows

_POLL = 5.0
_BATCH = 20


@implementer(ILinks)
class SynapseLinks:
    """See :class:`~synapse_login_module.interfaces.ILinks`.

    :param homeserver: the way into Synapse.
    """

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver

    def link_of(self, user_id: str) -> Deferred[Link | None]:
        """Find the link of a user ID."""

        def work(rows: TokenRows) -> Link | None:
            row = link_rows.row_of_user(rows, user_id)
            return None if row is None or row.pending else row.link

        return self._run("synapse_login_link_of", work)

    def linked_user(self, claim: Claim) -> Deferred[str | None]:
        """Find the user ID of a provider's account."""

        def work(rows: TokenRows) -> str | None:
            row = link_rows.row_of_claim(rows, claim)
            return None if row is None or row.pending else row.user_id

        return self._run("synapse_login_linked_user", work)

    def links(self) -> Deferred[list[Link]]:
        """List all links."""
        return self._run("synapse_login_links", link_rows.all_links)

    def link(self, link: Link, replace: bool) -> Deferred[None]:
        """Link a user ID."""
        now = int(self._homeserver.api.get_current_time_msec())

        def work(rows: TokenRows) -> None:
            link_rows.put_link(rows, link, replace, now)

        return self._run("synapse_login_put_link", work)

    def unlink(self, user_id: str) -> Deferred[Link | None]:
        """Drop the link of a user ID."""

        def work(rows: TokenRows) -> Link | None:
            row = link_rows.row_of_user(rows, user_id)
            if row is None or row.pending:
                return None
            link_rows.delete_link(rows, user_id)
            return row.link

        return self._run("synapse_login_unlink", work)

    def _run(self, name: str, work: Callable[[TokenRows], Any]) -> Deferred[Any]:
        return self._homeserver.call_synapse(self._homeserver.transaction, name, work)


class Wishes:
    """Ends the sessions of users whom a command has unlinked or linked anew.

    A command reaches the database alone, and Synapse remembers tokens: it has to end them itself.

    :param homeserver: the way into Synapse. The main process.
    :param end: ends the sessions of a user; on this package's side.
    """

    log = Logger()

    def __init__(self, homeserver: Homeserver, end: Callable[[str], Deferred[int]]) -> None:
        self._homeserver = homeserver
        self._end = end

    async def fulfil_for_ever(self) -> None:
        """Look for wishes every few seconds, on Synapse's side."""
        sleep: Callable[[float], Awaitable[None]] = self._homeserver.api.sleep
        while True:
            try:
                await self.fulfil()
            except Exception as error:  # the database is away, or the table is not made yet
                self.log.warn(
                    "sessions that a command wants ended live on: {problem}", problem=str(error)
                )
            await sleep(_POLL)

    async def fulfil(self) -> None:
        """End the sessions that are wanted ended, on Synapse's side."""
        found = await self._homeserver.transaction(
            "synapse_login_wishes", lambda rows: link_rows.wishes(rows, _BATCH)
        )
        for user_id, wished_at in found:
            ended = await self._homeserver.call_module(self._end, user_id)
            self.log.info(
                "{count} sessions of {user_id} ended: its link was changed by a command",
                count=ended,
                user_id=user_id,
            )

            def work(rows: TokenRows, user_id: str = user_id, wished_at: int = wished_at) -> None:
                link_rows.fulfilled(rows, user_id, wished_at)

            await self._homeserver.transaction("synapse_login_wish", work)
