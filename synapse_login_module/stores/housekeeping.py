"""What a store of derived tokens does beside answering requests."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from synapse_login_module.interfaces import IHousekeeping
from synapse_login_module.linkwatch import ILinkWatch
from synapse_login_module.model import Pruned
from synapse_login_module.stores.derived import DerivedTokenStore
from synapse_login_module.tokens import over
from synapse_login_module.tokens.over import Bounds


class Housekeeping(Protocol):
    """What it needs of its database."""

    @property
    def link_watch(self) -> ILinkWatch:
        """The links, for the sweep."""

    def expire_all(self, now: int) -> Deferred[int]:
        """End every session; fires with how many that were.

        :param now: milliseconds since the epoch.
        """

    def prune(self, bounds: Bounds, after: int, scan: int, most: int) -> Deferred[Pruned]:
        """Remove what was over at the moment of the bounds.

        :param after: the number of a session: only those after it are looked at, in their order.
        :return: fires with what was removed; its ``after`` is the last session that was looked at,
            or ``None`` when that was the last of all.
        """

    def users_alike(self, user_id: str) -> Deferred[list[str]]:
        """List who has a session or a link; see :class:`~.interfaces.IHousekeeping`."""

    def hold(self, lease: str, holder: str, seconds: float, now: float) -> Deferred[bool]:
        """Take or renew a lease.

        :param now: the time, where the database has no clock of its own.
        """

    def release(self, lease: str, holder: str) -> Deferred[None]:
        """Give a lease back."""


@implementer(IHousekeeping)
class HousekeptTokenStore(DerivedTokenStore):
    """A store of derived tokens that can be kept clean."""

    housekeeping: Housekeeping

    @property
    def link_watch(self) -> ILinkWatch:
        """The links, for the sweep."""
        return self.housekeeping.link_watch

    def prune(self, after: int | None, scan: int, most: int) -> Deferred[Pruned]:
        """Remove what is long over; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        if self._policy.keep_ended is None:
            return succeed(Pruned(0, 0, None))
        bounds = over.bounds(self._policy, self._now() - self._policy.keep_ended)
        start = -1 if after is None else after

        def go_on(batch: Pruned) -> Pruned:
            # There may be more login tokens, though all sessions have been looked at.
            is_more = batch.after is None and batch.login_tokens == most
            return batch._replace(after=start) if is_more else batch

        return self.housekeeping.prune(bounds, start, scan, most).addCallback(go_on)

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
        """Give a lease back; see :class:`~synapse_login_module.interfaces.IHousekeeping`."""
        return self.housekeeping.release(lease, holder)
