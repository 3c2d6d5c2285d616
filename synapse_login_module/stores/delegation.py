"""What a store of derived tokens keeps for a homeserver that delegates to this server."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from zope.interface import implementer

from synapse_login_module.errors import AccountNotLinked
from synapse_login_module.interfaces import IDelegatedStore
from synapse_login_module.model import (
    APPLICATION_SERVICE,
    Claim,
    DeviceDeletion,
    Link,
    OwedDeletions,
)
from synapse_login_module.stores.housekeeping import HousekeptTokenStore
from synapse_login_module.stores.linking import RELINK, linked_login
from synapse_login_module.stores.rows import Rows

RESERVED = 60_000
"""Milliseconds for which a device is reserved."""

LEASED = 30_000
"""Milliseconds for which a deletion is leased. No call to a homeserver may take so long."""

NAME_RESERVED = 10 * 60_000
"""Milliseconds for which a name is reserved."""


class Notes(Protocol):
    """The part that depends on the database: notes of devices, and reservations of names.

    All times are milliseconds since the epoch. What is said of notes in ``table_notes.py`` holds
    for each implementation.
    """

    def reserve(
        self, user_id: str, device_id: str, now: int, until: int, owed: bool
    ) -> Deferred[bool]:
        """Reserve a device, unless it is leased; fires with whether it is now reserved.

        :param until: when it is due to be deleted, unless it is due later already.
        :param owed: whether it is to be deleted then. A note that says so already goes on to.
        """

    def leave(self, user_id: str, device_id: str) -> Deferred[None]:
        """Remove the note of a device if it is not owed."""

    def owe(self, user_id: str, device_id: str, now: int, lease: int) -> Deferred[None]:
        """Note that a device is due now.

        :param lease: a new number for the lease that lasts, if one does. That lease goes on to keep
            others from the device, but its end does not remove the note.
        """

    def lease(self, limit: int, now: int, until: int, lease: int) -> Deferred[list[DeviceDeletion]]:
        """Lease devices that are due and owed and have no session.

        Those that were leased least often come first, and of these those that are due longest. So
        devices that cannot be deleted do not keep others waiting.

        Remove notes that are due and not owed, or whose devices have a session.

        :param until: when the lease ends.
        :param lease: a random number above 0 for the lease.
        """

    def finish(self, deletion: DeviceDeletion) -> Deferred[None]:
        """Remove the note, if it still has this lease."""

    def postpone(self, deletion: DeviceDeletion, until: int) -> Deferred[None]:
        """End the lease, if the note still has it, and allow no other before a time."""

    def owed(self, now: int) -> Deferred[OwedDeletions]:
        """Count the devices that are due and owed and have no session."""

    def reserve_name(self, user_id: str, claim: Claim, now: int, since: int) -> Deferred[bool]:
        """Reserve a name for an account, or renew its reservation.

        :param since: when the oldest reservation was made that still counts. Others are removed.
        :return: fires with ``False`` when it is reserved for another account.
        """

    def holder_of_name(self, user_id: str, since: int) -> Deferred[tuple[str, str] | None]:
        """Find the account that a name is reserved for; fires with its provider and subject."""

    def withdraw_name(self, user_id: str, claim: Claim) -> Deferred[None]:
        """Remove the reservation of a name, if it is for this account."""


@implementer(IDelegatedStore)
class DelegatedTokenStore(HousekeptTokenStore):
    """A store of derived tokens that provides ``IDelegatedStore``.

    :ivar notes: the part that depends on the database.
    """

    notes: Notes

    def reserve_name(self, user_id: str, claim: Claim) -> Deferred[None]:
        """Reserve a user ID; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        return Deferred.fromCoroutine(self._reserve_name(user_id, claim))

    async def _reserve_name(self, user_id: str, claim: Claim) -> None:
        def work(rows: Rows) -> None:
            for link in _links_of_services(rows, user_id, claim):
                rows.delete_link(link)

        await self._database.run(work)
        now = self._now()
        if not await self.notes.reserve_name(user_id, claim, now, now - NAME_RESERVED):
            raise _under_way(user_id)

    def require_name(self, user_id: str, claim: Claim) -> Deferred[None]:
        """Check a user ID; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        return Deferred.fromCoroutine(self._require_name(user_id, claim))

    async def _require_name(self, user_id: str, claim: Claim) -> None:
        await self._database.run(lambda rows: _links_of_services(rows, user_id, claim))
        holder = await self.notes.holder_of_name(user_id, self._now() - NAME_RESERVED)
        if holder is not None and not _is_of(claim, holder):
            raise _under_way(user_id)

    def has_reserved_name(self, user_id: str, claim: Claim) -> Deferred[bool]:
        """Find a reservation; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        found = self.notes.holder_of_name(user_id, self._now() - NAME_RESERVED)
        return found.addCallback(lambda holder: holder is not None and _is_of(claim, holder))

    def withdraw_name(self, user_id: str, claim: Claim) -> Deferred[None]:
        """End a reservation; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        return self.notes.withdraw_name(user_id, claim)

    def reserve_device(self, user_id: str, device_id: str, owed: bool) -> Deferred[bool]:
        """Reserve a device; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        now = self._now()
        return self.notes.reserve(user_id, device_id, now, now + RESERVED, owed)

    def withdraw_device(self, user_id: str, device_id: str, made: bool) -> Deferred[None]:
        """End a reservation; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        if made:
            return self.notes.owe(user_id, device_id, self._now(), self._new_lease())
        return self.notes.leave(user_id, device_id)

    def delete_device(self, user_id: str, device_id: str) -> Deferred[None]:
        """Delete a device; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        now = self._now()
        return self._database.run(lambda rows: rows.delete_device(user_id, device_id, now))

    def lease_deletions(self, limit: int) -> Deferred[list[DeviceDeletion]]:
        """Lease deletions; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        now = self._now()
        return self.notes.lease(limit, now, now + LEASED, self._new_lease())

    def finish_deletion(self, deletion: DeviceDeletion) -> Deferred[None]:
        """Finish a deletion; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        return self.notes.finish(deletion)

    def postpone_deletion(self, deletion: DeviceDeletion, seconds: float) -> Deferred[None]:
        """Postpone a deletion; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        return self.notes.postpone(deletion, self._now() + int(seconds * 1000))

    def owed_deletions(self) -> Deferred[OwedDeletions]:
        """Count deletions; see :class:`~synapse_login_module.interfaces.IDelegatedStore`."""
        return self.notes.owed(self._now())

    def _new_lease(self) -> int:
        """Draw a number for a lease: positive, and of 63 bits."""
        return (int.from_bytes(self._random(8), "big") >> 1) or 1


def _links_of_services(rows: Rows, user_id: str, claim: Claim) -> list[Link]:
    """List the links that give way to that of a password provider's account.

    :raise AccountNotLinked: when the user ID or the claim has a link that does not.
    """
    found = rows.links_of(user_id, claim)
    of_services = [link for link in found if link.provider == APPLICATION_SERVICE]
    others = [link for link in found if link not in of_services]
    linked = linked_login(user_id, claim, others)
    if linked.user_id != user_id:
        raise AccountNotLinked(user_id, f"the account is linked to {linked.user_id}", RELINK)
    return of_services


def _is_of(claim: Claim, holder: tuple[str, str]) -> bool:
    """Say whether a claim is that of the account that a name is reserved for."""
    provider, subject = holder
    return provider in claim.providers and subject == claim.subject


def _under_way(user_id: str) -> AccountNotLinked:
    return AccountNotLinked(user_id, "the first login of another account is under way", RELINK)
