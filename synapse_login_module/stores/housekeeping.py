"""The background work of a store of derived tokens."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from synapse_login_module.interfaces import IHousekeeping, ILinkWatch
from synapse_login_module.model import EndedBatch, Pruned, SessionCounts
from synapse_login_module.stores.derived import DerivedTokenStore
from synapse_login_module.tokens import over
from synapse_login_module.tokens.over import Bounds


class Housekeeping(Protocol):
    """The part of the background work that depends on the database."""

    @property
    def link_watch(self) -> ILinkWatch:
        """The links, for the sweep."""

    def expire(self, now: int, after: int, most: int) -> Deferred[EndedBatch]:
        """End the sessions of one batch.

        :param now: milliseconds since the epoch.
        :param after: look only at sessions with higher numbers, in their order.
        :param most: the most session rows to look at.
        """

    def revoke(
        self, bounds: Bounds, after: int, most: int, note: int | None
    ) -> Deferred[EndedBatch]:
        """Delete the rows of one batch, and all login tokens.

        :param bounds: the bounds of sessions that are over, which do not count as ended by this.
        :param after: as for :meth:`expire`.
        :param most: as for :meth:`expire`.
        :param note: as for :meth:`prune`.
        """

    def count(self, bounds: Bounds, removable: Bounds | None) -> Deferred[SessionCounts]:
        """Count sessions.

        :param bounds: the bounds of sessions that are over.
        :param removable: the bounds of those that pruning removes; ``None`` if it removes none.
        """

    def prune(
        self, bounds: Bounds, after: int, scan: int, most: int, note: int | None
    ) -> Deferred[Pruned]:
        """Delete one batch of rows of sessions and login tokens that were over.

        :param bounds: the bounds of sessions that were over.
        :param after: look only at sessions with higher numbers, in their order.
        :param scan: the most session rows to look at.
        :param most: the most rows to delete, of sessions and of login tokens each.
        :param note: when the devices of these sessions are due to be deleted at the homeserver;
            ``None`` to note nothing.
        :return: fires with the numbers of deleted rows. ``after`` is the number of the last session
            that was looked at, or ``None`` when there are no more.
        """

    def users_alike(self, user_id: str) -> Deferred[list[str]]:
        """List users with a session or a link; see :class:`~.interfaces.IHousekeeping`."""

    def hold(self, lease: str, holder: str, seconds: float, now: float) -> Deferred[bool]:
        """Take or renew a lease.

        :param seconds: the duration of the lease.
        :param now: seconds since the epoch, for a database that has no clock of its own.
        """

    def release(self, lease: str, holder: str) -> Deferred[None]:
        """Give up a lease."""


@implementer(IHousekeeping)
class HousekeptTokenStore(DerivedTokenStore):
    """A store of derived tokens that provides ``IHousekeeping``.

    :ivar housekeeping: the part that depends on the database.
    """

    housekeeping: Housekeeping

    @property
    def link_watch(self) -> ILinkWatch:
        """The links, for the sweep."""
        return self.housekeeping.link_watch

    def prune(self, after: int | None, scan: int, most: int) -> Deferred[Pruned]:
        """Delete old rows; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        bounds = self._removable()
        if bounds is None:
            return succeed(Pruned(0, 0, None))
        start = _start(after)

        def go_on(batch: Pruned) -> Pruned:
            # All sessions have been looked at, but there may be more login tokens.
            is_more = batch.after is None and batch.login_tokens == most
            return batch._replace(after=start) if is_more else batch

        pruned = self.housekeeping.prune(bounds, start, scan, most, self._note())
        return pruned.addCallback(go_on)

    def expire(self, after: int | None, most: int) -> Deferred[EndedBatch]:
        """End sessions; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        return self.housekeeping.expire(self._now(), _start(after), most)

    def revoke_everybody(self, after: int | None, most: int) -> Deferred[EndedBatch]:
        """Revoke sessions; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        bounds = over.bounds(self._policy, self._now())
        return self.housekeeping.revoke(bounds, _start(after), most, self._note())

    def count_sessions(self) -> Deferred[SessionCounts]:
        """Count sessions; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        bounds = over.bounds(self._policy, self._now())
        return self.housekeeping.count(bounds, self._removable())

    def users_alike(self, user_id: str) -> Deferred[list[str]]:
        """List users; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        return self.housekeeping.users_alike(user_id)

    def hold(self, lease: str, holder: str, seconds: float) -> Deferred[bool]:
        """Take a lease; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        return self.housekeeping.hold(lease, holder, seconds, self._clock())

    def release(self, lease: str, holder: str) -> Deferred[None]:
        """Give up a lease; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        return self.housekeeping.release(lease, holder)

    def _removable(self) -> Bounds | None:
        """Return the bounds of the sessions that pruning removes now."""
        if self._policy.keep_ended is None:
            return None
        return over.bounds(self._policy, self._now() - self._policy.keep_ended)


def _start(after: int | None) -> int:
    return -1 if after is None else after
