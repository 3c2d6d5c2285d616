"""Reading sessions on the reactor's thread, where that is faster than to wake another thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred, execute, fail
from twisted.logger import Logger

from synapse_login_module.common.lru import Recent
from synapse_login_module.errors import LoginServiceError
from synapse_login_module.stores.derived import DerivedTokenStore
from synapse_login_module.stores.rows import Rows
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.tokens.format import ParsedToken, TokenKind, parse

A = TypeVar("A")
T = TypeVar("T")

_REMEMBERED = 10_000
_CACHE = 512


class ReadsWarmSessions(DerivedTokenStore):
    """The part of a store in an SQLite file that finds the sessions of access tokens.

    A session is found by its primary key. That takes the reactor's thread some microseconds if the
    pages are in memory, as they are once the session has been read. So the first time it is read on
    the store's thread, and from then on here. Nothing is cached: each time SQLite reads the row
    that was committed last, and it neither waits for a writer nor delays one. Work that has to
    write runs on the store's thread, as does all that fails here.
    """

    _warm_log = Logger()
    _connection: sqlite3.Connection | None = None

    def _open_warm(self, path: Path, rows: Callable[[sqlite3.Connection], Rows]) -> None:
        """Open a connection for the reactor's thread. Without it, all is read as before."""
        self._warm: Recent[int, None] = Recent(_REMEMBERED)
        try:
            connection = connect(path, timeout=0, creates=False)
            for pragma in ("query_only = ON", f"cache_size = -{_CACHE}"):
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            self._warm_log.warn(
                "sessions are read on the store's thread alone: {problem}", problem=str(error)
            )
            return
        self._connection, self._warm_rows = connection, rows(connection)

    def _close_warm(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _with_token(
        self,
        kind: TokenKind,
        token: str,
        work: Callable[[Rows, ParsedToken], T],
        finish: Callable[[T], A],
    ) -> Deferred[A]:
        """Run work that begins with a token, on this thread if the token's session is warm."""
        if kind is not TokenKind.ACCESS or self._connection is None:
            return super()._with_token(kind, token, work, finish)
        parsed = parse(kind, token)
        # A key that is not known to be shared may have to be read from its file.
        if parsed and parsed.session_id in self._warm and self._shared.is_shared(parsed.key_id):
            self._shared.follow()
            try:
                found = work(self._warm_rows, parsed)
            except LoginServiceError as error:
                return fail(error)
            except sqlite3.Error:
                pass  # It writes, or the file is locked for recovery.
            else:
                return execute(finish, found)

        def remember(result: A) -> A:
            if parsed:
                self._warm.remember(parsed.session_id, None)
            return result

        return super()._with_token(kind, token, work, finish).addCallback(remember)
