"""The links in Synapse's database, for commands, which run outside Synapse.

Commands do not touch sessions, since a running Synapse caches tokens. To have sessions ended, a
command writes a wish in the same transaction. Synapse's main process carries it out within seconds,
or at its next start.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from synapse_login_module.errors import ConfigError, StoreUnavailable
from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import Claim, Link
from synapse_login_module.synapse import link_rows, user_tables

T = TypeVar("T")

_TIMEOUT = 5.0
_ROUNDS = 5
_AGAIN = ("40001", "40P01")
"""SQLSTATEs after which a transaction is tried again: serialization failure and deadlock."""


class CursorRows:
    """Runs statements in one transaction; see :class:`.user_tables.SQLRows`.

    :param cursor: a DB-API cursor within the transaction.
    :param mark: the placeholder for a value that the driver takes: ``?`` or ``%s``.
    """

    def __init__(self, cursor: Any, mark: str) -> None:
        self._cursor = cursor
        self._mark = mark

    def fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query; return its rows."""
        self._cursor.execute(sql.replace("?", self._mark), values)
        return list(self._cursor.fetchall())

    def write(self, sql: str, *values: object) -> int:
        """Run a statement; return how many rows it changed."""
        self._cursor.execute(sql.replace("?", self._mark), values)
        return int(self._cursor.rowcount)


class _Undone(Exception):
    """Raised at the end of work that is undone.

    :param result: what the work returned.
    """

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result


def make_tables(rows: CursorRows) -> None:
    """Make the tables of links and of wishes, unless they exist."""
    for statement in link_rows.CREATE:
        rows.write(statement)


class SynapseDatabase:
    """Synapse's database, whether Synapse runs or not.

    :param name: ``sqlite3`` or ``psycopg2``, as ``name`` in homeserver.yaml.
    :param arguments: the arguments of the connection, as ``args`` in homeserver.yaml.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        if name not in ("sqlite3", "psycopg2"):
            raise ConfigError("database.name", f"{name} is neither sqlite3 nor psycopg2")
        self._is_sqlite = name == "sqlite3"
        self._arguments = arguments

    def transaction(self, work: Callable[[CursorRows], T]) -> T:
        """Do some work in one transaction. ``work`` is called again after a serialization failure.

        :raise StoreUnavailable: when the database cannot be reached or written to.
        """
        for left in reversed(range(_ROUNDS)):
            try:
                with self._sqlite() if self._is_sqlite else self._postgresql() as rows:
                    return work(rows)
            except StoreUnavailable:
                raise
            except Exception as error:
                if getattr(error, "pgcode", None) in _AGAIN and left:
                    continue
                if not self._is_error(error):
                    raise
                raise StoreUnavailable(" ".join(str(error).split())) from None
        raise AssertionError

    def rehearse(self, work: Callable[[CursorRows], T]) -> T:
        """Do some work like :meth:`transaction` does, and undo it.

        The work finds this package's tables even if the module has never run.
        """

        def undone(rows: CursorRows) -> None:
            if not self._has_tables(rows):
                make_tables(rows)
            raise _Undone(work(rows))

        try:
            self.transaction(undone)
        except _Undone as done:
            result: T = done.result
            return result
        raise AssertionError

    def _has_tables(self, rows: CursorRows) -> bool:
        if self._is_sqlite:
            found = rows.fetch("SELECT name FROM sqlite_master WHERE name = 'synapse_login_admins'")
        else:
            found = rows.fetch("SELECT to_regclass('synapse_login_admins')::TEXT")
        return any(name is not None for (name,) in found)

    def _is_error(self, error: Exception) -> bool:
        if self._is_sqlite:
            return isinstance(error, sqlite3.Error)
        import psycopg2

        return isinstance(error, psycopg2.Error)

    @contextmanager
    def _sqlite(self) -> Iterator[CursorRows]:
        path = Path(self._arguments["database"])
        if not path.exists():
            raise StoreUnavailable(
                f"there is no {path}; a relative path is relative to the folder that Synapse"
                " runs in, so run the command there"
            )
        # A mistyped path must not make an empty database.
        uri = f"file:{quote(str(path.absolute()))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=_TIMEOUT, isolation_level=None)
        try:
            cursor = connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            yield CursorRows(cursor, "?")
            cursor.execute("COMMIT")
        finally:
            connection.close()

    @contextmanager
    def _postgresql(self) -> Iterator[CursorRows]:
        import psycopg2

        arguments = {k: v for k, v in self._arguments.items() if not k.startswith("cp_")}
        connection = psycopg2.connect(**arguments)
        try:
            connection.set_session(isolation_level="REPEATABLE READ")
            with connection, connection.cursor() as cursor:
                yield CursorRows(cursor, "%s")
        finally:
            connection.close()


@implementer(ILinks)
class DatabaseLinks:
    """The links in Synapse's database; see :class:`~synapse_login_module.interfaces.ILinks`.

    It blocks: every Deferred has fired when a method returns.

    :param database: the database. The tables are made if they do not exist.
    :param names: by the current name of each provider, that name and its former ones.
    :param password_removed: called with each user whose link and local password were removed.
        ``None`` keeps local passwords. A local password does not count while the account is
        linked. Without the link it would, and the person who has just lost access may have set it.
    :param now: returns the time in milliseconds since the epoch.
    """

    def __init__(
        self,
        database: SynapseDatabase,
        names: Mapping[str, tuple[str, ...]],
        password_removed: Callable[[str], None] | None,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._database = database
        self._names = names
        self._password_removed = password_removed
        self._now = now
        database.transaction(make_tables)

    def link_of(self, user_id: str) -> Deferred[Link | None]:
        """Find the link of a user ID."""

        def work(rows: CursorRows) -> Link | None:
            row = link_rows.row_of_user(rows, user_id)
            return None if row is None or row.pending else row.link

        return self._run(work)

    def linked_user(self, claim: Claim) -> Deferred[str | None]:
        """Find the user ID of a provider's account."""

        def work(rows: CursorRows) -> str | None:
            row = link_rows.row_of_claim(rows, claim)
            return None if row is None or row.pending else row.user_id

        return self._run(work)

    def links(self) -> Deferred[list[Link]]:
        """List all links."""
        return self._run(link_rows.all_links)

    def link(self, link: Link, replace: bool) -> Deferred[None]:
        """Link a user ID. With ``replace``, the sessions that exist are to end: those of the user,
        and those of users whose links gave way.
        """

        def work(rows: CursorRows) -> list[str]:
            replaced = {row.user_id: row.locked for row in self._put(rows, link, replace)}
            if replace:
                for user_id, was_locked in {link.user_id: False, **replaced}.items():
                    link_rows.insert_wish(rows, user_id, "relinked", was_locked, self._now())
            return self._remove_passwords(rows, replaced.keys() - {link.user_id})

        return self._run(work).addCallback(self._tell_removed)

    def unlink(self, user_id: str) -> Deferred[Link | None]:
        """Delete the link of a user ID, and have the user's sessions ended."""

        def work(rows: CursorRows) -> tuple[Link | None, list[str]]:
            row = link_rows.row_of_user(rows, user_id)
            if row is None or row.pending:
                return None, []
            link_rows.insert_wish(rows, row.user_id, "unlinked", row.locked, self._now())
            link_rows.delete_link(rows, user_id)
            return row.link, self._remove_passwords(rows, [user_id])

        def done(result: tuple[Link | None, list[str]]) -> Link | None:
            link, removed = result
            self._tell_removed(removed)
            return link

        return self._run(work).addCallback(done)

    def held(self, ended: bool) -> Deferred[list[link_rows.HeldLink]]:
        """List the links of accounts that the brake holds.

        :param ended: whether to have the sessions of these accounts ended.
        """

        def work(rows: CursorRows) -> list[link_rows.HeldLink]:
            held = link_rows.held_links(rows)
            for each in held if ended else ():
                link_rows.insert_wish(rows, each.user_id, "gone", False, self._now())
            return held

        return self._run(work)

    def _remove_passwords(self, rows: CursorRows, user_ids: Iterable[str]) -> list[str]:
        """Remove the local passwords of users whose links are gone; list the users who had one."""
        if self._password_removed is None:
            return []
        return [user_id for user_id in user_ids if user_tables.remove_password(rows, user_id)]

    def _tell_removed(self, user_ids: Iterable[str]) -> None:
        """Report the users whose passwords were removed, after the commit."""
        for user_id in user_ids:
            assert self._password_removed is not None
            self._password_removed(user_id)

    def _put(self, rows: CursorRows, link: Link, replace: bool) -> list[link_rows.LinkRow]:
        names = self._names.get(link.provider, (link.provider,))
        return link_rows.set_link(rows, link, replace, self._now(), names[1:])

    def _run(self, work: Callable[[CursorRows], T]) -> Deferred[T]:
        done: Deferred[T] = execute(self._database.transaction, work)
        return done
