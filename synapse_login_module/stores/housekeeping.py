"""The background work of a store of derived tokens."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from synapse_login_module.interfaces import IHousekeeping, ILinkWatch
from synapse_login_module.model import Pruned
from synapse_login_module.stores.derived import DerivedTokenStore
from synapse_login_module.tokens import over
from synapse_login_module.tokens.over import Bounds


class Housekeeping(Protocol):
    """The part of the background work that depends on the database."""

    @property
    def link_watch(self) -> ILinkWatch:
        """The links, for the sweep."""

    def expire_all(self, now: int) -> Deferred[int]:
        """End every session.

        :param now: milliseconds since the epoch.
        :return: fires with the number of sessions that this ended.
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
        if self._policy.keep_ended is None:
            return succeed(Pruned(0, 0, None))
        bounds = over.bounds(self._policy, self._now() - self._policy.keep_ended)
        start = -1 if after is None else after

        def go_on(batch: Pruned) -> Pruned:
            # All sessions have been looked at, but there may be more login tokens.
            is_more = batch.after is None and batch.login_tokens == most
            return batch._replace(after=start) if is_more else batch

        pruned = self.housekeeping.prune(bounds, start, scan, most, self._note())
        return pruned.addCallback(go_on)

    def expire_all(self) -> Deferred[int]:
        """End all sessions; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        return self.housekeeping.expire_all(self._now())

    def users_alike(self, user_id: str) -> Deferred[list[str]]:
        """List users; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        return self.housekeeping.users_alike(user_id)

    def hold(self, lease: str, holder: str, seconds: float) -> Deferred[bool]:
        """Take a lease; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        return self.housekeeping.hold(lease, holder, seconds, self._clock())

    def release(self, lease: str, holder: str) -> Deferred[None]:
        """Give up a lease; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        return self.housekeeping.release(lease, holder)
