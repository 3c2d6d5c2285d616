"""The links of a running Synapse, each method in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import Claim, Link
from synapse_login_module.synapse import link_rows
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.tables import TokenRows


@implementer(ILinks)
class SynapseLinks:
    """The links of a running Synapse; see :class:`~synapse_login_module.interfaces.ILinks`.

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

    def is_locked_from_here(self, user_id: str) -> Deferred[bool]:
        """Say whether this module locked a user in Synapse, because the provider says so."""

        def work(rows: TokenRows) -> bool:
            row = link_rows.row_of_user(rows, user_id)
            return row is not None and row.locked and not row.pending

        return self._run("synapse_login_lock_of", work)

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
        now = self._homeserver.now()

        def work(rows: TokenRows) -> None:
            link_rows.set_link(rows, link, replace, now)

        return self._run("synapse_login_put_link", work)

    def unlink(self, user_id: str) -> Deferred[Link | None]:
        """Delete the link of a user ID; fires with what it was."""

        def work(rows: TokenRows) -> Link | None:
            row = link_rows.row_of_user(rows, user_id)
            if row is None or row.pending:
                return None
            link_rows.delete_link(rows, user_id)
            return row.link

        return self._run("synapse_login_unlink", work)

    def _run(self, name: str, work: Callable[[TokenRows], Any]) -> Deferred[Any]:
        return self._homeserver.call_synapse(self._homeserver.transaction, name, work)
