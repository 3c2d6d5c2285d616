"""The part of a database's background work that is the same in every SQL database."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from synapse_login_module.model import EndedBatch, SessionCounts
from synapse_login_module.stores.alike import users_alike
from synapse_login_module.stores.ending import SessionTables, count, expire, revoke
from synapse_login_module.tokens.over import Bounds


class TableHousekeeping(SessionTables):
    """A part of :class:`~synapse_login_module.stores.housekeeping.Housekeeping`, in SQL."""

    def expire(self, now: int, after: int, most: int) -> Deferred[EndedBatch]:
        """End the sessions of one batch."""
        return Deferred.fromCoroutine(expire(self, now, after, most))

    def revoke(
        self, bounds: Bounds, after: int, most: int, note: int | None
    ) -> Deferred[EndedBatch]:
        """Delete the rows of one batch."""
        return Deferred.fromCoroutine(revoke(self, bounds, after, most, note))

    def count(self, bounds: Bounds, removable: Bounds | None) -> Deferred[SessionCounts]:
        """Count sessions."""
        return Deferred.fromCoroutine(count(self, bounds, removable))

    def users_alike(self, user_id: str) -> Deferred[list[str]]:
        """List users with a session or a link whose user IDs are alike."""
        return Deferred.fromCoroutine(users_alike(self, user_id))
