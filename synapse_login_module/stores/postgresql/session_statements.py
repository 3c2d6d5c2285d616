"""The beginning and the end of sessions in SQL, with the notes of their devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.link_statements import (
    encode_text,
    link_values,
    linked,
)
from synapse_login_module.stores.postgresql.operations import (
    Delete,
    DeleteDevice,
    Insert,
    ReservationKey,
)
from synapse_login_module.stores.rows import SESSION_COLUMNS
from synapse_login_module.stores.table_notes import note_again

COLUMNS = SESSION_COLUMNS.encode("ascii")
_VALUES = (
    b"$1::BIGINT, $2::TEXT, $3::TEXT, $4::TEXT, $5::BYTEA, $6::BIGINT, $7::BIGINT, $8::BOOLEAN,"
    b" $9::BIGINT, $10::BIGINT, $11::BIGINT, $12::BIGINT"
)
_REPLACE_DEVICE = (
    b" ON CONFLICT (user_id, device_id) DO UPDATE SET "
    + b", ".join(b"%b = excluded.%b" % (name, name) for name in COLUMNS.split(b", "))
    + b" RETURNING session_id"
)

_OF_DEVICE = b" WHERE user_id = $%d::TEXT AND device_id = $%d::TEXT"
_RESERVED = b"SELECT user_id FROM synapse_login_device_notes" + _OF_DEVICE + b" AND attempts = 0"
RESERVED = _RESERVED % (1, 2)
"""Reads whether a device is reserved: a row if it is. See :func:`device_values`."""

# FOR UPDATE waits for a server that leases the device, and then sees the lease. A server that
# leases devices skips a locked one.
_LOCK_RESERVATION = b"reserved AS (" + _RESERVED % (2, 3) + b" FOR UPDATE)"


def _insertion(parts: Sequence[bytes], sources: Sequence[bytes]) -> bytes:
    """Make the statement that inserts a session.

    It returns a row if the session was inserted.

    :param parts: the common table expressions.
    :param sources: the names of those that have to have a row. If one is ``reserved``, the note of
        the device is deleted too.
    """
    begin = b"INSERT INTO synapse_login_sessions (" + COLUMNS + b") SELECT " + _VALUES
    if sources:
        begin += b" FROM " + b", ".join(sources)
    begin += _REPLACE_DEVICE
    if b"reserved" in sources:
        parts = [*parts, b"begun AS (" + begin + b")"]
        begin = (
            b"DELETE FROM synapse_login_device_notes"
            + _OF_DEVICE % (2, 3)
            + b" AND EXISTS (SELECT 1 FROM begun) RETURNING user_id"
        )
    return (b"WITH " + b", ".join(parts) + b" " if parts else b"") + begin


def _insertions(reserved: bool) -> dict[str, bytes]:
    """Make the statements that insert sessions, by what is inserted or deleted with them."""
    parts = [_LOCK_RESERVATION] if reserved else []
    sources = [b"reserved"] if reserved else []
    used = b"used AS (DELETE FROM synapse_login_tokens WHERE token_id = $13::BIGINT"
    if reserved:
        used += b" AND EXISTS (SELECT 1 FROM reserved)"
    return {
        "": _insertion(parts, sources),
        "login token": _insertion([*parts, used + b" RETURNING token_id)"], [b"used", *sources]),
        "link": _insertion([*parts, linked(False, 13, reserved)], [b"linked", *sources]),
        "new link": _insertion([*parts, linked(True, 13, reserved)], [b"linked", *sources]),
    }


_INSERTIONS = {False: _insertions(False), True: _insertions(True)}

_DELETE_SESSIONS = b"DELETE FROM synapse_login_sessions WHERE session_id = ANY ($1::BIGINT[])"
_NOTE = b"INSERT INTO synapse_login_device_notes (user_id, device_id, due_at, owed) "
_NOTE_AGAIN = note_again("synapse_login_device_notes").encode()
# Every server locks notes in the same order, so that deadlocks are rare.
_DELETE_AND_NOTE = (
    b"WITH ended AS ("
    + _DELETE_SESSIONS
    + b" RETURNING user_id, device_id) "
    + _NOTE
    + b"SELECT user_id, device_id, $2::BIGINT, 1 FROM ended ORDER BY user_id, device_id"
    + _NOTE_AGAIN
)
_DELETE_DEVICE = b"DELETE FROM synapse_login_sessions" + _OF_DEVICE % (1, 2)
_NOTE_DEVICE = _NOTE + b"VALUES ($1::TEXT, $2::TEXT, $3::BIGINT, 1)" + _NOTE_AGAIN


def insert_session(write: Insert) -> Statement:
    """Make the statement that inserts a session. It returns a row if the session was inserted."""
    session = write.session
    kind = ""
    extra_values: list[str | bytes] = []
    if write.login_token is not None:
        kind = "login token"
        extra_values = [str(write.login_token)]
    elif write.link is not None:
        kind = "new link" if write.new else "link"
        extra_values = link_values(write.link, session.created_at if write.new else None)
    return Statement(
        _INSERTIONS[write.reserved][kind],
        [
            str(session.session_id),
            encode_text(session.user_id),
            encode_text(session.device_id),
            None if session.display_name is None else encode_text(session.display_name),
            session.salt,
            str(session.key_id),
            str(session.generation),
            str(session.confirmed),
            str(session.created_at),
            str(session.issued_at),
            _number(session.access_expires_at),
            _number(session.previous_expires_at),
            *extra_values,
        ],
    )


def delete_sessions(deletes: Sequence[Delete]) -> list[Statement]:
    """Make the statements that delete sessions, one for each time at which devices are due."""
    numbers: dict[int | None, list[int]] = {}
    for each in deletes:
        numbers.setdefault(each.note, []).extend(each.session_ids)
    return [
        Statement(_DELETE_SESSIONS, [array(sorted(found))])
        if note is None
        else Statement(_DELETE_AND_NOTE, [array(sorted(found)), str(note)])
        for note, found in numbers.items()
        if found
    ]


def delete_device(write: DeleteDevice) -> list[Statement]:
    """Make the statements that delete the session of a device, and note the device."""
    values = device_values(write)
    return [
        Statement(_DELETE_DEVICE, values),
        Statement(_NOTE_DEVICE, [*values, str(write.note)]),
    ]


def device_values(device: DeleteDevice | ReservationKey) -> list[bytes]:
    """Return the values that identify a device."""
    return [encode_text(device.user_id), encode_text(device.device_id)]


def array(values: Iterable[int | None]) -> str:
    """Format integers or booleans as an array in PostgreSQL's text format."""
    return "{" + ",".join("NULL" if each is None else str(each) for each in values) + "}"


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)
