"""Notes of devices and reservations of names, in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed

from synapse_login_module.model import Claim, DeviceDeletion, OwedDeletions

Device = tuple[str, str]
"""A user ID and the identifier of a device."""


class DeviceNote(NamedTuple):
    """The note of a device; ``table_notes.py`` says what it means."""

    due_at: int
    is_owed: bool
    lease: int = 0
    leased_until: int = 0
    attempts: int = 0


class _Reservation(NamedTuple):
    """The reservation of a name for the account of a provider."""

    provider: str
    subject: str
    reserved_at: int


class MemoryNotes:
    """See :class:`~synapse_login_module.stores.delegation.Notes`. There is one process.

    :param has_session: whether there is a row of a session of a user and device.
    """

    def __init__(self, has_session: Callable[[str, str], bool]) -> None:
        self._has_session = has_session
        self._notes: dict[Device, DeviceNote] = {}
        self._names: dict[str, _Reservation] = {}

    # For the rows.

    def note(self, user_id: str, device_id: str, due_at: int) -> None:
        """Note the device of a session that has ended."""
        device = user_id, device_id
        before = self._notes.get(device, DeviceNote(due_at, True))
        self._notes[device] = before._replace(due_at=max(before.due_at, due_at), is_owed=True)

    def is_reserved(self, user_id: str, device_id: str) -> bool:
        """Return whether a session may begin on a device."""
        note = self._notes.get((user_id, device_id))
        return note is not None and not note.attempts

    def is_owed(self, user_id: str, device_id: str) -> bool:
        """Return whether a device is to be deleted, because its session has ended."""
        note = self._notes.get((user_id, device_id))
        return note is not None and note.is_owed

    def remove(self, user_id: str, device_id: str) -> None:
        """Remove the note of a device, on which a session begins."""
        self._notes.pop((user_id, device_id), None)

    def free_name(self, user_id: str) -> None:
        """End the reservation of a name."""
        self._names.pop(user_id, None)

    # For the store.

    def reserve(
        self, user_id: str, device_id: str, now: int, until: int, owed: bool
    ) -> Deferred[bool]:
        """Reserve a device, unless it is leased."""
        before = self._notes.get((user_id, device_id), DeviceNote(until, owed))
        if before.lease and before.leased_until > now:
            return succeed(False)
        note = DeviceNote(max(before.due_at, until), before.is_owed or owed)
        self._notes[user_id, device_id] = note
        return succeed(True)

    def leave(self, user_id: str, device_id: str) -> Deferred[None]:
        """Remove a note that owes nothing."""
        note = self._notes.get((user_id, device_id))
        if note is not None and not note.is_owed:
            self.remove(user_id, device_id)
        return succeed(None)

    def owe(self, user_id: str, device_id: str, now: int, lease: int) -> Deferred[None]:
        """Note a device as due, and let no lease of now remove the note."""
        before = self._notes.get((user_id, device_id), DeviceNote(now, True))
        self._notes[user_id, device_id] = before._replace(
            due_at=now, is_owed=True, lease=lease if before.lease else 0
        )
        return succeed(None)

    def lease(self, limit: int, now: int, until: int, lease: int) -> Deferred[list[DeviceDeletion]]:
        """Lease devices that are due, and remove notes that owe nothing."""
        due = {
            device: note
            for device, note in self._notes.items()
            if note.due_at <= now and note.leased_until <= now
        }
        leased: list[DeviceDeletion] = []
        in_order = sorted(due.items(), key=lambda each: (each[1].attempts, each[1].due_at))
        for device, note in in_order:
            if not note.is_owed or self._has_session(*device):
                self.remove(*device)
            elif len(leased) < limit:
                self._notes[device] = note._replace(
                    lease=lease, leased_until=until, attempts=note.attempts + 1
                )
                leased.append(DeviceDeletion(*device, note.attempts + 1, lease))
        return succeed(leased)

    def finish(self, deletion: DeviceDeletion) -> Deferred[None]:
        """Remove the note of a claim."""
        if self._claimed(deletion) is not None:
            self.remove(deletion.user_id, deletion.device_id)
        return succeed(None)

    def postpone(self, deletion: DeviceDeletion, until: int) -> Deferred[None]:
        """End a lease, and allow the next one later."""
        note = self._claimed(deletion)
        if note is not None:
            note = note._replace(lease=0, leased_until=until)
            self._notes[deletion.user_id, deletion.device_id] = note
        return succeed(None)

    def _claimed(self, deletion: DeviceDeletion) -> DeviceNote | None:
        note = self._notes.get((deletion.user_id, deletion.device_id))
        return note if note is not None and note.lease == deletion.lease else None

    def owed(self, now: int) -> Deferred[OwedDeletions]:
        """Count the devices that are due."""
        due = [
            note.due_at
            for device, note in self._notes.items()
            if note.due_at <= now and note.is_owed and not self._has_session(*device)
        ]
        return succeed(OwedDeletions(len(due), min(due, default=None)))

    def reserve_name(self, user_id: str, claim: Claim, now: int, since: int) -> Deferred[bool]:
        """Reserve a name, unless it is reserved for another account."""
        self._names = {name: each for name, each in self._names.items() if each.reserved_at > since}
        if user_id in self._names and not self._is_for(user_id, claim):
            return succeed(False)
        self._names[user_id] = _Reservation(claim.provider, claim.subject, now)
        return succeed(True)

    def holder_of_name(self, user_id: str, since: int) -> Deferred[tuple[str, str] | None]:
        """Find the account that a name is reserved for."""
        found = self._names.get(user_id)
        if found is None or found.reserved_at <= since:
            return succeed(None)
        return succeed((found.provider, found.subject))

    def withdraw_name(self, user_id: str, claim: Claim) -> Deferred[None]:
        """Remove the reservation of a name."""
        if self._is_for(user_id, claim):
            del self._names[user_id]
        return succeed(None)

    def _is_for(self, user_id: str, claim: Claim) -> bool:
        found = self._names.get(user_id)
        return (
            found is not None
            and found.subject == claim.subject
            and found.provider in claim.providers
        )
