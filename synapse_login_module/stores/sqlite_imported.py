"""The digests of imported tokens in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from twisted.internet.defer import Deferred

from synapse_login_module.model import ImportedSession, ImportOutcome
from synapse_login_module.stores.group_commit import GroupCommitThread
from synapse_login_module.stores.imported import (
    Existing,
    NewSession,
    Owner,
    PrunedTokens,
    decide,
    kinds_of,
)
from synapse_login_module.stores.sqlite_housekeeping import SQLiteReader
from synapse_login_module.stores.sqlite_rows import INSERT_SESSION
from synapse_login_module.tokens.format import TokenKind

_FIND = (
    "SELECT session_id, salt FROM imported_tokens JOIN sessions USING (session_id)"
    " WHERE digest = ? AND kind = ?"
)
_EXISTING = "SELECT session_id, generation FROM sessions WHERE user_id = ? AND device_id = ?"
_OWED = "SELECT 1 FROM device_notes WHERE user_id = ? AND device_id = ? AND owed = 1"
_KNOWN = "SELECT 1 FROM imported_tokens WHERE digest = ?"
_INSERT_SESSION = f"{INSERT_SESSION} ON CONFLICT DO NOTHING"
_RENEW_SESSION = (
    "UPDATE sessions SET issued_at = ?, access_expires_at = ?, previous_expires_at = ?"
    " WHERE session_id = ?"
)
_INSERT = (
    "INSERT INTO imported_tokens (digest, session_id, kind) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
)
_LAST_OF_BATCH = (
    "SELECT MAX(session_id), COUNT(*) FROM (SELECT session_id FROM imported_tokens"
    " WHERE session_id > ?1 AND (?2 IS NULL OR session_id <= ?2) ORDER BY session_id LIMIT ?3)"
)
# An imported session is in generation 0, so a later one that is confirmed has replaced its tokens.
_USELESS = (
    "NOT EXISTS (SELECT 1 FROM sessions AS s WHERE s.session_id = imported_tokens.session_id"
    " AND (s.generation = 0 OR (s.generation = 1 AND NOT s.confirmed)))"
)
_FIND_USELESS = (
    "SELECT digest, session_id FROM imported_tokens"
    f" WHERE session_id > ? AND session_id <= ? AND {_USELESS} ORDER BY session_id LIMIT ?"
)
_DELETE = f"DELETE FROM imported_tokens WHERE digest = ? AND {_USELESS}"


class SQLiteImportedTokens:
    """See :class:`~synapse_login_module.stores.imported.ImportedTokens`.

    :param reader: the thread that reads.
    :param writer: the thread that writes. Tokens are looked up there too, because a long read may
        be under way on the other one.
    """

    def __init__(self, reader: SQLiteReader, writer: GroupCommitThread) -> None:
        self._reader = reader
        self._writer = writer

    def any(self) -> Deferred[bool]:
        """Find out whether there are any."""
        return self._writer.run(
            lambda connection: bool(
                connection.execute("SELECT EXISTS (SELECT 1 FROM imported_tokens)").fetchone()[0]
            )
        )

    def find(self, digest: bytes, kind: TokenKind) -> Deferred[Owner | None]:
        """Find the session of a token."""

        def work(connection: sqlite3.Connection) -> Owner | None:
            row = connection.execute(_FIND, (digest, kind.number)).fetchone()
            return None if row is None else Owner(*row)

        return self._writer.run(work)

    def insert(
        self, wanted: Sequence[NewSession], write: bool
    ) -> Deferred[list[ImportOutcome | None]]:
        """Decide on each session and write its rows."""
        return self._writer.run(
            lambda connection: [_insert(connection, each, write) for each in wanted]
        )

    def prune(self, after: int, last: int | None, scan: int, most: int) -> Deferred[PrunedTokens]:
        """Find digests that are useless, and delete those that still are."""
        return Deferred.fromCoroutine(self._prune(after, last, scan, most))

    async def _prune(self, after: int, last: int | None, scan: int, most: int) -> PrunedTokens:
        def find(connection: sqlite3.Connection) -> tuple[list[bytes], int | None]:
            end, seen = connection.execute(_LAST_OF_BATCH, (after, last, scan)).fetchone()
            if end is None:
                return [], None
            found = connection.execute(_FIND_USELESS, (after, end, most)).fetchall()
            digests = [row[0] for row in found]
            if len(found) == most:
                # The last session may have further digests, so it is looked at again.
                return digests, found[-1][1] - 1
            return digests, end if seen == scan else None

        def remove(connection: sqlite3.Connection) -> int:
            return sum(connection.execute(_DELETE, (digest,)).rowcount for digest in found)

        found, reached = await self._reader.run(find)
        return PrunedTokens(await self._writer.run(remove) if found else 0, reached)


def _insert(connection: sqlite3.Connection, each: NewSession, write: bool) -> ImportOutcome | None:
    given, row = each
    there = _existing(connection, given)
    outcome = decide(given, there, there is None and _is_spent(connection, given))
    if not write or outcome not in (ImportOutcome.TAKEN, ImportOutcome.RENEWED):
        return outcome
    number = row.session_id
    if there is None:
        if not connection.execute(_INSERT_SESSION, row).rowcount:
            return None
    else:
        number = there.session_id
        connection.execute("DELETE FROM imported_tokens WHERE session_id = ?", (number,))
        times = row.issued_at, row.access_expires_at, row.previous_expires_at
        connection.execute(_RENEW_SESSION, (*times, number))
    connection.executemany(_INSERT, [(digest, number, kind) for digest, kind in kinds_of(given)])
    return outcome


def _is_spent(connection: sqlite3.Connection, given: ImportedSession) -> bool:
    if connection.execute(_OWED, (given.user_id, given.device_id)).fetchone():
        return True
    return any(connection.execute(_KNOWN, (digest,)).fetchone() for digest in given.tokens)


def _existing(connection: sqlite3.Connection, given: ImportedSession) -> Existing | None:
    row = connection.execute(_EXISTING, (given.user_id, given.device_id)).fetchone()
    if row is None:
        return None
    digests = connection.execute("SELECT digest FROM imported_tokens WHERE session_id = ?", row[:1])
    session_id, generation = row
    return Existing(session_id, generation, frozenset(digest for (digest,) in digests))
