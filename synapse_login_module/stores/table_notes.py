"""Notes of devices and reservations of names, in SQL that SQLite and PostgreSQL share.

A note says from when on a device is due to be deleted at the homeserver. It is written with the end
of a session, and before a device is made. In the latter case it reserves the device: it comes due
after a minute, unless a session begins and removes it.

``owed`` is 0 if the device is left as it is when its reservation ends. ``lease`` is the number of
the lease of the server that deletes the device, or 0. ``leased_until`` is when a server may lease
it (again): a lease ends by itself, and a deletion that failed waits. ``attempts`` counts the leases
since the device was last reserved. A session begins on a reserved device only while this is 0. So
it never begins on a device that a server may have deleted since.

In PostgreSQL a statement goes by the rows of its beginning. Another transaction may end a session
or begin one in the meantime, and a condition on another table does not notice. So the statements
lock what they rely on. Ending a session locks first its row, and then the note.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from synapse_login_module.model import Claim, DeviceDeletion, OwedDeletions
from synapse_login_module.stores.link_watch import Tables, Value

_LOOKED_AT = 100
"""The most notes that one call looks at, to remove those whose devices have a session."""

SQL = tuple[str, Sequence[Value]]
"""A statement and its values."""


class NoteTables(Tables, Protocol):
    """A database with the tables of notes and reservations.

    :ivar device_notes: the name of the table of notes.
    :ivar name_reservations: the name of the table of reservations of names.
    :ivar lock_notes: the SQL that locks the rows of a SELECT, and skips those that are locked.
    :ivar keep_sessions: the SQL that prevents the rows of ``session`` from being deleted, and skips
        those that are being deleted.
    """

    device_notes: str
    name_reservations: str
    lock_notes: str
    keep_sessions: str

    def transact(self, statements: Sequence[SQL]) -> Deferred[list[list[tuple[Any, ...]]]]:
        """Run statements in one transaction; fires with the rows that each returned."""


def note_again(device_notes: str) -> str:
    """Return the SQL that writes a note of an ended session on top of an existing note.

    The later time counts, so that a reservation of the device lasts. A lease is not touched.
    """
    return (
        " ON CONFLICT (user_id, device_id) DO UPDATE SET owed = 1, due_at = CASE"
        f" WHEN {device_notes}.due_at > excluded.due_at THEN {device_notes}.due_at"
        " ELSE excluded.due_at END"
    )


class TableNotes:
    """See :class:`~synapse_login_module.stores.delegation.Notes`.

    :param tables: the database.
    """

    def __init__(self, tables: NoteTables) -> None:
        self._tables = tables
        self._notes = notes = tables.device_notes
        self._names = tables.name_reservations
        self._has_session = (
            f"EXISTS (SELECT 1 FROM {tables.sessions} AS session"  # noqa: S608
            f" WHERE session.user_id = {notes}.user_id AND session.device_id = {notes}.device_id)"
        )

    def reserve(
        self, user_id: str, device_id: str, now: int, until: int, owed: bool
    ) -> Deferred[bool]:
        """Reserve a device, unless it is leased."""
        notes = self._notes
        written = self._tables.write(
            f"INSERT INTO {notes} (user_id, device_id, due_at, owed) VALUES (?, ?, ?, ?)"  # noqa: S608
            " ON CONFLICT (user_id, device_id) DO UPDATE SET due_at = CASE"
            f" WHEN {notes}.due_at > excluded.due_at THEN {notes}.due_at ELSE excluded.due_at END,"
            f" owed = CASE WHEN {notes}.owed = 1 THEN 1 ELSE excluded.owed END,"
            " lease = 0, leased_until = 0, attempts = 0"
            f" WHERE {notes}.lease = 0 OR {notes}.leased_until <= ?",
            [user_id, device_id, until, int(owed), now],
        )
        return written.addCallback(bool)

    def leave(self, user_id: str, device_id: str) -> Deferred[None]:
        """Remove a note that owes nothing."""
        return self._write(
            f"DELETE FROM {self._notes} WHERE user_id = ? AND device_id = ? AND owed = 0",  # noqa: S608
            [user_id, device_id],
        )

    def owe(self, user_id: str, device_id: str, now: int, lease: int) -> Deferred[None]:
        """Note a device as due, and let no lease of now remove the note."""
        return self._write(
            f"INSERT INTO {self._notes} (user_id, device_id, due_at, owed) VALUES (?, ?, ?, 1)"  # noqa: S608
            " ON CONFLICT (user_id, device_id) DO UPDATE SET due_at = excluded.due_at, owed = 1,"
            f" lease = CASE WHEN {self._notes}.lease = 0 THEN 0 ELSE CAST(? AS BIGINT) END",
            [user_id, device_id, now, lease],
        )

    def lease(self, limit: int, now: int, until: int, lease: int) -> Deferred[list[DeviceDeletion]]:
        """Lease devices that are due, and remove notes that owe nothing."""
        notes, free = self._notes, "due_at <= ? AND leased_until <= ?"
        oldest = (
            f"SELECT user_id, device_id FROM {notes} WHERE owed = 1 AND {free}"  # noqa: S608
            f" ORDER BY attempts, due_at LIMIT {_LOOKED_AT}"
        )
        statements: list[SQL] = [
            (f"DELETE FROM {notes} WHERE owed = 0 AND {free}", [now, now]),  # noqa: S608
            (
                "WITH kept AS (SELECT session.user_id, session.device_id"  # noqa: S608
                f" FROM ({oldest}) AS note JOIN {self._tables.sessions} AS session"
                " ON session.user_id = note.user_id AND session.device_id = note.device_id"
                f" {self._tables.keep_sessions}) DELETE FROM {notes} WHERE {free}"
                " AND (user_id, device_id) IN (SELECT user_id, device_id FROM kept)",
                [now] * 4,
            ),
            # A SELECT of its own keeps PostgreSQL from joining both tables before it sorts.
            (
                f"WITH due AS (SELECT user_id, device_id FROM {notes} WHERE owed = 1 AND {free}"  # noqa: S608
                f" AND NOT (SELECT {self._has_session}) ORDER BY attempts, due_at LIMIT ?"
                f" {self._tables.lock_notes})"
                f" UPDATE {notes} SET lease = ?, leased_until = ?, attempts = attempts + 1"
                " WHERE (user_id, device_id) IN (SELECT user_id, device_id FROM due)",
                [now, now, limit, lease, until],
            ),
            (
                f"SELECT user_id, device_id, attempts FROM {notes}"  # noqa: S608
                " WHERE lease = ? AND lease <> 0 ORDER BY due_at LIMIT ?",
                [lease, limit],
            ),
        ]
        return self._tables.transact(statements).addCallback(
            lambda results: [
                DeviceDeletion(user_id, device_id, attempts, lease)
                for user_id, device_id, attempts in results[-1]
            ]
        )

    def finish(self, deletion: DeviceDeletion) -> Deferred[None]:
        """Remove the note of a claim."""
        return self._write(
            f"DELETE FROM {self._notes} WHERE user_id = ? AND device_id = ? AND lease = ?",  # noqa: S608
            [deletion.user_id, deletion.device_id, deletion.lease],
        )

    def postpone(self, deletion: DeviceDeletion, until: int) -> Deferred[None]:
        """End a lease, and allow the next one later."""
        return self._write(
            f"UPDATE {self._notes} SET lease = 0, leased_until = ?"  # noqa: S608
            " WHERE user_id = ? AND device_id = ? AND lease = ?",
            [until, deletion.user_id, deletion.device_id, deletion.lease],
        )

    def owed(self, now: int) -> Deferred[OwedDeletions]:
        """Count the devices that are due."""
        asked = self._tables.fetch(
            f"SELECT COUNT(*), MIN(due_at) FROM {self._notes}"  # noqa: S608
            f" WHERE owed = 1 AND due_at <= ? AND NOT {self._has_session}",
            [now],
        )
        return asked.addCallback(lambda rows: OwedDeletions(*rows[0]))

    def reserve_name(self, user_id: str, claim: Claim, now: int, since: int) -> Deferred[bool]:
        """Reserve a name, unless it is reserved for another account."""
        names = self._names
        removed = self._write(f"DELETE FROM {names} WHERE reserved_at <= ?", [since])  # noqa: S608

        def insert(_: None) -> Deferred[int]:
            return self._tables.write(
                f"INSERT INTO {names} (user_id, provider, subject, reserved_at)"  # noqa: S608
                " VALUES (?, ?, ?, ?) ON CONFLICT (user_id) DO UPDATE SET"
                " provider = excluded.provider, reserved_at = excluded.reserved_at"
                f" WHERE {names}.subject = excluded.subject"
                f" AND {names}.provider IN ({_placeholders(claim)})",
                [user_id, claim.provider, claim.subject, now, *claim.providers],
            )

        return removed.addCallback(insert).addCallback(bool)

    def withdraw_name(self, user_id: str, claim: Claim) -> Deferred[None]:
        """Remove the reservation of a name."""
        return self._write(
            f"DELETE FROM {self._names} WHERE user_id = ?"  # noqa: S608
            f" AND subject = ? AND provider IN ({_placeholders(claim)})",
            [user_id, claim.subject, *claim.providers],
        )

    def holder_of_name(self, user_id: str, since: int) -> Deferred[tuple[str, str] | None]:
        """Find the account that a name is reserved for."""
        asked = self._tables.fetch(
            f"SELECT provider, subject FROM {self._names}"  # noqa: S608
            " WHERE user_id = ? AND reserved_at > ?",
            [user_id, since],
        )
        return asked.addCallback(lambda rows: next(iter(rows), None))

    def _write(self, sql: str, values: Sequence[Value]) -> Deferred[None]:
        return self._tables.write(sql, values).addCallback(lambda _: None)


def _placeholders(claim: Claim) -> str:
    return ", ".join("?" * len(claim.providers))
