"""The token store in an SQLite file, which is the default."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from zope.interface import implementer, provider

from synapse_login_module.common.daemon_thread import in_daemon_thread
from synapse_login_module.config.files import is_there
from synapse_login_module.config.validation import FilePath, Strict, config_path, validate
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import Claim, Finding, Link, Session, TokenKey
from synapse_login_module.plugin import Environment, IDiagnosableClass, IPluginClass
from synapse_login_module.stores.group_commit import GroupCommitThread
from synapse_login_module.stores.imported import ImportingTokenStore
from synapse_login_module.stores.rows import LoginTokenRow, Rows
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.stores.sqlite_diagnosis import examine
from synapse_login_module.stores.sqlite_file import check, prepare
from synapse_login_module.stores.sqlite_housekeeping import SQLiteHousekeeping, SQLiteReader
from synapse_login_module.stores.sqlite_imported import SQLiteImportedTokens
from synapse_login_module.stores.sqlite_schema import version_of
from synapse_login_module.stores.sqlite_warm import ReadsWarmSessions
from synapse_login_module.stores.table_notes import TableNotes, note_again

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

_COLUMNS = (
    "session_id, user_id, device_id, display_name, salt, key_id, generation, confirmed,"
    " created_at, issued_at, access_expires_at, previous_expires_at"
)

_CONFIRMED = 7

_LINKS = "SELECT user_id, provider, subject FROM links "

_NOTE = (
    "INSERT INTO device_notes (user_id, device_id, due_at, owed)"
    " SELECT user_id, device_id, ?, 1 FROM sessions"
)
_NOTE_AGAIN = note_again("device_notes")


class SQLiteRows:
    """The rows in an open transaction; see :class:`~synapse_login_module.stores.rows.Rows`."""

    writes_once = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def session(self, session_id: int) -> Session | None:
        """Read one session."""
        row = self._execute(
            f"SELECT {_COLUMNS} FROM sessions WHERE session_id = ?", (session_id,)
        ).fetchone()
        return row and _session(row)

    def is_free(self, session_id: int) -> bool:
        """Return whether no session has a number."""
        return self.session(session_id) is None

    def reread(self, session_id: int) -> Session | None:
        """Read one session, which is never cached here."""
        return self.session(session_id)

    def together(self, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
        """Run two reads, one after the other."""
        return first(), second()

    def owner(self, session_id: int) -> tuple[Session, Link | None] | None:
        """Read one session and the link of its user."""
        session = self.session(session_id)
        if session is None:
            return None
        return session, next(iter(self.links_of(session.user_id, None)), None)

    def sessions(self, user_id: str | None) -> list[Session]:
        """Read the sessions of a user, or all sessions."""
        whose = ("", ()) if user_id is None else ("WHERE user_id = ?", (user_id,))
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM sessions {whose[0]} ORDER BY created_at, session_id", whose[1]
        )
        return [_session(row) for row in rows]

    def insert(
        self,
        session: Session,
        link: Link | None = None,
        new: bool = False,
        reserved: bool = False,
    ) -> None:
        """Insert a session, and delete the earlier one of its user and device."""
        if link is not None and new:
            self.insert_link(link, session.created_at, ())
        if reserved:
            self._execute(
                "DELETE FROM device_notes WHERE user_id = ? AND device_id = ?",
                (session.user_id, session.device_id),
            )
        self._execute(
            "DELETE FROM sessions WHERE user_id = ? AND device_id = ?",
            (session.user_id, session.device_id),
        )
        self._execute(
            f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                session.session_id,
                session.user_id,
                session.device_id,
                session.display_name,
                session.salt,
                session.key_id,
                session.generation,
                session.confirmed,
                session.created_at,
                session.issued_at,
                session.access_expires_at,
                session.previous_expires_at,
            ),
        )

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Write a session's row, unless it has changed."""
        cursor = self._execute(
            "UPDATE sessions SET key_id = ?, generation = ?, confirmed = ?, issued_at = ?,"
            " access_expires_at = ?, previous_expires_at = ?"
            " WHERE session_id = ? AND generation = ? AND confirmed = ? AND issued_at = ?",
            (
                new.key_id,
                new.generation,
                new.confirmed,
                new.issued_at,
                new.access_expires_at,
                new.previous_expires_at,
                old.session_id,
                old.generation,
                old.confirmed,
                old.issued_at,
            ),
        )
        return cursor.rowcount == 1

    def delete(self, session_id: int, note: int | None = None) -> None:
        """Delete one session."""
        if note is not None:
            self._execute(f"{_NOTE} WHERE session_id = ? {_NOTE_AGAIN}", (note, session_id))
        self._execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))

    def delete_user(self, user_id: str, note: int | None = None) -> int:
        """Delete a user's sessions and login tokens."""
        self._delete_login_tokens(user_id)
        if note is not None:
            self._execute(f"{_NOTE} WHERE user_id = ? {_NOTE_AGAIN}", (note, user_id))
        return self._execute("DELETE FROM sessions WHERE user_id = ?", (user_id,)).rowcount

    def delete_device(self, user_id: str, device_id: str, note: int) -> None:
        """Delete the session of a device, and note the device."""
        self._execute(
            "DELETE FROM sessions WHERE user_id = ? AND device_id = ?", (user_id, device_id)
        )
        self._execute(
            "INSERT INTO device_notes (user_id, device_id, due_at, owed) VALUES (?, ?, ?, 1)"
            f" {_NOTE_AGAIN}",
            (user_id, device_id, note),
        )

    def is_reserved(self, user_id: str, device_id: str) -> bool:
        """Return whether a device is reserved."""
        found = self._execute(
            "SELECT 1 FROM device_notes WHERE user_id = ? AND device_id = ? AND attempts = 0",
            (user_id, device_id),
        ).fetchone()
        return found is not None

    def links_of(self, user_id: str | None, claim: Claim | None) -> list[Link]:
        """Read the link of a user ID, and the links of a claim."""
        rows: list[Any] = []
        if user_id is not None:
            rows += self._execute(_LINKS + "WHERE user_id = ?", (user_id,))
        if claim is not None:
            for name in claim.providers:
                subject = (name, claim.subject)
                rows += self._execute(_LINKS + "WHERE provider = ? AND subject = ?", subject)
        return [Link(*row) for row in rows]

    def links(self) -> list[Link]:
        """Read all links."""
        return [Link(*row) for row in self._execute(_LINKS + "ORDER BY user_id")]

    def insert_link(self, link: Link, linked_at: int, instead_of: Sequence[Link]) -> None:
        """Insert a link, after deleting others."""
        for each in instead_of:
            self.delete_link(each)
        self._execute(
            "INSERT INTO links (user_id, provider, subject, linked_at, looked_at)"
            " VALUES (?, ?, ?, ?, ?)",
            (*link, linked_at, linked_at),
        )

    def delete_link(self, link: Link) -> None:
        """Delete a link, the login tokens of its user, and the reservation of the name."""
        self._execute("DELETE FROM name_reservations WHERE user_id = ?", (link.user_id,))
        self._execute("DELETE FROM links WHERE user_id = ?", (link.user_id,))
        self._delete_login_tokens(link.user_id)

    def token_keys(self) -> list[TokenKey]:
        """Read the keys."""
        rows = self._execute("SELECT key_id, fingerprint, retired FROM token_keys ORDER BY key_id")
        return [TokenKey(key_id, known, bool(retired)) for key_id, known, retired in rows]

    def insert_keys(self, keys: Sequence[TokenKey]) -> None:
        """Insert the keys whose ids do not exist yet."""
        for key in keys:
            self._execute(
                "INSERT INTO token_keys (key_id, fingerprint, retired) VALUES (?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                key,
            )

    def retire_key(self, key_id: int) -> bool:
        """Mark a key as retired."""
        cursor = self._execute("UPDATE token_keys SET retired = 1 WHERE key_id = ?", (key_id,))
        return cursor.rowcount == 1

    def login_token(self, token_id: int) -> LoginTokenRow | None:
        """Read one login token."""
        row = self._execute(
            "SELECT token_id, user_id, salt, expires_at FROM login_tokens WHERE token_id = ?",
            (token_id,),
        ).fetchone()
        return row and LoginTokenRow(*row)

    def insert_login_token(self, row: LoginTokenRow, now: int) -> None:
        """Insert a login token and delete the expired ones."""
        self._execute("DELETE FROM login_tokens WHERE expires_at <= ?", (now,))
        self._execute(
            "INSERT INTO login_tokens (token_id, user_id, salt, expires_at) VALUES (?, ?, ?, ?)",
            (row.token_id, row.user_id, row.salt, row.expires_at),
        )

    def delete_login_token(self, token_id: int) -> bool:
        """Delete one login token."""
        cursor = self._execute("DELETE FROM login_tokens WHERE token_id = ?", (token_id,))
        return cursor.rowcount == 1

    def _delete_login_tokens(self, user_id: str) -> None:
        self._execute("DELETE FROM login_tokens WHERE user_id = ?", (user_id,))


def _session(row: Sequence[Any]) -> Session:
    values = list(row)
    values[_CONFIRMED] = bool(values[_CONFIRMED])
    return Session(*values)


class SQLiteDatabase:
    """A :class:`~synapse_login_module.stores.rows.Database` over one file and one thread."""

    def __init__(self, path: Path, call_from_thread: Callable[..., object]) -> None:
        self.thread = GroupCommitThread(lambda: connect(path), call_from_thread)
        self.start = self.thread.start
        self.stop = self.thread.stop

    def run(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run the work on the thread, in the next transaction."""
        return self.thread.run(lambda connection: work(SQLiteRows(connection)))

    def write(self) -> Deferred[None]:
        """Write to the file without changing its content, in the next transaction."""
        return self.thread.run(_write_version_again)


def _write_version_again(connection: sqlite3.Connection) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute(f"PRAGMA user_version = {version}")


class SQLiteConfig(Strict):
    """The configuration of :class:`SQLiteTokenStore`."""

    path: FilePath


@implementer(IService)
@provider(IPluginClass, IDiagnosableClass)
class SQLiteTokenStore(ReadsWarmSessions, ImportingTokenStore, Service):
    """The store of derived tokens in an SQLite file.

    Its threads run from ``startService`` to ``stopService``. Requests from before ``startService``
    wait for it.
    """

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> Path:
        """Check ``path``; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        path = folder / validate(SQLiteConfig, config).path
        check(path)
        return path

    @staticmethod
    def require_existing(config: Path) -> None:
        """Reject a file that no server has used.

        See :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        if not config_path("path", is_there, config):
            raise ConfigError(
                "path", f"there is no {config}: the server makes it at its first start"
            )
        connection = sqlite3.connect(f"{config.absolute().as_uri()}?mode=ro", uri=True)
        try:
            if not version_of(connection):
                raise ConfigError("path", f"{config} is no database of sessions")
        finally:
            connection.close()

    @staticmethod
    def diagnose(config: Path, environment: Environment) -> Deferred[list[Finding]]:
        """Examine the file; see :class:`~synapse_login_module.plugin.IDiagnosableClass`."""
        return in_daemon_thread(environment.reactor, lambda: examine(config, environment))

    def __init__(self, config: Path, environment: Environment) -> None:
        prepare(config)
        self._path = config
        self._sqlite = SQLiteDatabase(config, environment.reactor.callFromThread)
        self._reader = SQLiteReader(lambda: connect(config), environment.reactor)
        self.housekeeping = SQLiteHousekeeping(self._reader, self._sqlite.thread)
        self.imported = SQLiteImportedTokens(self._reader, self._sqlite.thread)
        self.notes = TableNotes(self.housekeeping)
        super().__init__(
            self._sqlite,
            environment.required_keys,
            environment.policy,
            environment.clock,
            environment.random,
            environment.delegated,
        )

    def startService(self) -> None:
        """Start the threads."""
        Service.startService(self)
        self._sqlite.start()
        self._reader.start()
        self._open_warm(self._path, SQLiteRows)

    def _probe(self) -> Deferred[None]:
        """Check that the file can be written to. On a full disk it can still be read."""
        return self._sqlite.write()

    def stopService(self) -> None:
        """Run the waiting work and close the file. Blocks until then."""
        Service.stopService(self)
        self._close_warm()
        self._reader.stop()
        self._sqlite.stop()
