"""The SQL that fetches and writes rows, limited to what engines that speak the protocol share.

Each refresh touches one row, by its primary key. One statement makes many refreshes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from synapse_login_module.model import Link, Session
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.key_statements import (
    FETCH_KEYS,
    insert_keys,
    keys,
    retire_key,
)
from synapse_login_module.stores.postgresql.link_statements import (
    delete_link,
    delete_login_tokens,
    encode_text,
    fetch,
    insert_link,
    read_links,
    read_text,
)
from synapse_login_module.stores.postgresql.operations import (
    CompareAndSwap,
    Delete,
    DeleteDevice,
    DeleteLink,
    DeleteLoginToken,
    Found,
    Insert,
    InsertKeys,
    InsertLink,
    InsertLoginToken,
    Key,
    LinksKey,
    LoginTokenKey,
    NewSessionKey,
    OwnerKey,
    PageKey,
    ReservationKey,
    RetireKey,
    SessionKey,
    TokenKeysKey,
    UserKey,
    Write,
)
from synapse_login_module.stores.postgresql.session_statements import (
    COLUMNS,
    RESERVED,
    array,
    delete_device,
    delete_sessions,
    device_values,
    insert_session,
)
from synapse_login_module.stores.rows import LoginTokenRow

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_SESSIONS = b"SELECT " + COLUMNS + b" FROM synapse_login_sessions "
_SESSIONS_BY_ID = _SESSIONS + b"WHERE session_id = ANY ($1::BIGINT[])"
_SESSIONS_OF_USER = _SESSIONS + b"WHERE user_id = $1::TEXT ORDER BY created_at, session_id"
_PAGE = _SESSIONS + b"WHERE session_id > $1::BIGINT ORDER BY session_id LIMIT $2::BIGINT"
# The sum keeps the planner from reading all sessions by their numbers.
_PAGE_OF_USER = (
    _SESSIONS
    + b"WHERE user_id = $3::TEXT AND session_id > $1::BIGINT"
    + b" ORDER BY session_id + 0 LIMIT $2::BIGINT"
)
_OWNERS_BY_ID = (
    b"SELECT "
    + b", ".join(b"session." + name for name in COLUMNS.split(b", "))
    + b", link.provider, link.subject FROM synapse_login_sessions AS session"
    b" LEFT JOIN synapse_login_links AS link ON link.user_id = session.user_id"
    b" WHERE session.session_id = ANY ($1::BIGINT[])"
)

_COMPARE_AND_SWAP = b"""
UPDATE synapse_login_sessions AS row
SET key_id = new.key_id, generation = new.generation, confirmed = new.confirmed,
    issued_at = new.issued_at, access_expires_at = new.access_expires_at,
    previous_expires_at = new.previous_expires_at
FROM unnest(
    $1::BIGINT[], $2::BIGINT[], $3::BOOLEAN[], $4::BIGINT[],
    $5::BIGINT[], $6::BIGINT[], $7::BOOLEAN[], $8::BIGINT[], $9::BIGINT[], $10::BIGINT[]
) AS new (
    session_id, old_generation, old_confirmed, old_issued_at,
    key_id, generation, confirmed, issued_at, access_expires_at, previous_expires_at
)
WHERE row.session_id = new.session_id AND row.generation = new.old_generation
    AND row.confirmed = new.old_confirmed AND row.issued_at = new.old_issued_at
RETURNING row.session_id
"""

_LOGIN_TOKENS_BY_ID = (
    b"SELECT token_id, user_id, salt, expires_at FROM synapse_login_tokens"
    b" WHERE token_id = ANY ($1::BIGINT[])"
)
_DELETE_EXPIRED_LOGIN_TOKENS = b"DELETE FROM synapse_login_tokens WHERE expires_at <= $1::BIGINT"
_INSERT_LOGIN_TOKEN = (
    b"INSERT INTO synapse_login_tokens (token_id, user_id, salt, expires_at)"
    b" VALUES ($1::BIGINT, $2::TEXT, $3::BYTEA, $4::BIGINT)"
)
_DELETE_LOGIN_TOKEN = (
    b"DELETE FROM synapse_login_tokens WHERE token_id = $1::BIGINT RETURNING token_id"
)


_LINK_COLUMNS = 12, 13
"""The columns of the link in ``_OWNERS_BY_ID``, after those of the session."""


class Fetch:
    """The statements that fetch rows.

    :param keys: the keys of the rows.
    :ivar statements: the statements, to be run in one pipeline.
    """

    def __init__(self, keys: Collection[Key]) -> None:
        self._keys = keys
        self._read: list[Callable[[PGresult], Found]] = []
        self.statements: list[Statement] = []
        sessions = [key.session_id for key in keys if isinstance(key, SessionKey | NewSessionKey)]
        if sessions:
            self._add(_SESSIONS_BY_ID, [array(sessions)], _sessions_found)
        owners = [key.session_id for key in keys if isinstance(key, OwnerKey)]
        if owners:
            self._add(_OWNERS_BY_ID, [array(owners)], _owners_found)
        tokens = [key.token_id for key in keys if isinstance(key, LoginTokenKey)]
        if tokens:
            self._add(_LOGIN_TOKENS_BY_ID, [array(tokens)], _login_tokens_found)
        for key in keys:
            if isinstance(key, UserKey):
                self._add_user(key)
            elif isinstance(key, PageKey):
                self._add_page(key)
            elif isinstance(key, LinksKey):
                self._add_links(key)
            elif isinstance(key, TokenKeysKey):
                self._add_token_keys(key)
            elif isinstance(key, ReservationKey):
                self._add_reservation(key)

    def found(self, results: Iterable[PGresult]) -> Found:
        """Read the rows from the results.

        :param results: the results of the statements, in their order.
        :return: the rows by key; ``None`` for a single row that does not exist.
        """
        found: Found = dict.fromkeys(self._keys)
        for read, result in zip(self._read, results, strict=True):
            found.update(read(result))
        return found

    def _add_user(self, key: UserKey) -> None:
        values = [encode_text(key.user_id)]
        self._add(_SESSIONS_OF_USER, values, lambda result: {key: _sessions(result)})

    def _add_page(self, key: PageKey) -> None:
        sql, values = _PAGE, [str(key.after), str(key.most)]
        whose: list[bytes] = []
        if key.user_id is not None:
            sql, whose = _PAGE_OF_USER, [encode_text(key.user_id)]
        self._add(sql, [*values, *whose], lambda result: {key: _sessions(result)})

    def _add_token_keys(self, key: TokenKeysKey) -> None:
        self._add(FETCH_KEYS, [], lambda result: {key: keys(result)})

    def _add_reservation(self, key: ReservationKey) -> None:
        self._add(RESERVED, device_values(key), lambda result: {key: result.ntuples == 1})

    def _add_links(self, key: LinksKey) -> None:
        statement = fetch(key)
        self._add(statement.sql, statement.values, lambda result: {key: read_links(result)})

    def _add(
        self,
        sql: bytes,
        values: Sequence[str | bytes | None],
        read: Callable[[PGresult], Found],
    ) -> None:
        self.statements.append(Statement(sql, values))
        self._read.append(read)


class Store:
    """The statements that make writes.

    :param writes: the writes, no two of them of one row.
    :ivar statements: the statements, to be run in one pipeline.
    """

    def __init__(self, writes: Sequence[Write]) -> None:
        self._writes = writes
        self._positions: dict[Write, int] = {}
        self.statements: list[Statement] = []
        # Every server locks rows in the same order, so that deadlocks are rare.
        swaps = sorted(
            (each for each in writes if isinstance(each, CompareAndSwap)),
            key=lambda swap: swap.old.session_id,
        )
        if swaps:
            self.statements.append(_compare_and_swap(swaps))
        self._swaps = bool(swaps)
        deletes = [each for each in writes if isinstance(each, Delete)]
        self.statements += delete_sessions(deletes)
        # Before the writes that consume login tokens, so that a deleted token is not accepted in
        # the same transaction.
        users = sorted({each.user_id for each in deletes if each.user_id is not None})
        self.statements += map(delete_login_tokens, users)
        others = [each for each in writes if not isinstance(each, CompareAndSwap | Delete)]
        for write in sorted(others, key=_locked_user):
            if isinstance(write, InsertLoginToken):
                self.statements += _insert_login_token(write)
                continue
            if isinstance(write, InsertKeys):
                self.statements += insert_keys(write)
                continue
            if isinstance(write, DeleteDevice):
                self.statements += delete_device(write)
                continue
            if isinstance(write, Insert):
                self.statements.append(insert_session(write))
            elif isinstance(write, DeleteLoginToken):
                self.statements.append(Statement(_DELETE_LOGIN_TOKEN, [str(write.token_id)]))
            elif isinstance(write, InsertLink):
                self.statements += insert_link(write)
            elif isinstance(write, DeleteLink):
                self.statements += delete_link(write)
            elif isinstance(write, RetireKey):
                self.statements.append(retire_key(write))
            self._positions[write] = len(self.statements) - 1

    def written(self, results: Sequence[PGresult]) -> list[bool]:
        """Return for each write whether it was made; if not, what it relied on has changed.

        :param results: the results of the statements, in their order.
        """
        swapped = {
            _integer(results[0].get_value(row, 0))
            for row in range(results[0].ntuples if self._swaps else 0)
        }

        def written(write: Write) -> bool:
            if isinstance(write, CompareAndSwap):
                return write.old.session_id in swapped
            return write not in self._positions or results[self._positions[write]].ntuples == 1

        return [written(write) for write in self._writes]


def _locked_user(write: Write) -> str:
    """Return the user ID whose rows a write locks, by which writes are ordered; ``""`` for none."""
    if isinstance(write, Insert):
        return write.session.user_id
    if isinstance(write, DeleteDevice):
        return write.user_id
    return write.link.user_id if isinstance(write, InsertLink | DeleteLink) else ""


def _compare_and_swap(swaps: Sequence[CompareAndSwap]) -> Statement:
    rows = [
        (
            each.old.session_id,
            each.old.generation,
            each.old.confirmed,
            each.old.issued_at,
            each.new.key_id,
            each.new.generation,
            each.new.confirmed,
            each.new.issued_at,
            each.new.access_expires_at,
            each.new.previous_expires_at,
        )
        for each in swaps
    ]
    return Statement(_COMPARE_AND_SWAP, [array(column) for column in zip(*rows, strict=True)])


def _insert_login_token(write: InsertLoginToken) -> list[Statement]:
    row = write.row
    return [
        Statement(_DELETE_EXPIRED_LOGIN_TOKENS, [str(write.now)]),
        Statement(
            _INSERT_LOGIN_TOKEN,
            [str(row.token_id), encode_text(row.user_id), row.salt, str(row.expires_at)],
        ),
    ]


def _sessions_found(result: PGresult) -> Found:
    found: Found = {}
    for each in _sessions(result):
        found[SessionKey(each.session_id)] = found[NewSessionKey(each.session_id)] = each
    return found


def _owners_found(result: PGresult) -> Found:
    """Read the owners, and their sessions too."""
    found: Found = {}
    for row, session in enumerate(_sessions(result)):
        found[SessionKey(session.session_id)] = session
        provider, subject = (result.get_value(row, column) for column in _LINK_COLUMNS)
        link = None
        if provider is not None:
            link = Link(session.user_id, read_text(provider), read_text(subject))
        found[OwnerKey(session.session_id)] = session, link
    return found


def _login_tokens_found(result: PGresult) -> Found:
    rows = (
        LoginTokenRow(
            _integer(result.get_value(row, 0)),
            read_text(result.get_value(row, 1)),
            result.get_value(row, 2) or b"",
            _integer(result.get_value(row, 3)),
        )
        for row in range(result.ntuples)
    )
    return {LoginTokenKey(each.token_id): each for each in rows}


def _sessions(result: PGresult) -> list[Session]:
    return [_session(result, row) for row in range(result.ntuples)]


def _session(result: PGresult, row: int) -> Session:
    value = result.get_value
    display_name = value(row, 3)
    return Session(
        session_id=_integer(value(row, 0)),
        user_id=read_text(value(row, 1)),
        device_id=read_text(value(row, 2)),
        display_name=None if display_name is None else read_text(display_name),
        salt=value(row, 4) or b"",
        key_id=_integer(value(row, 5)),
        generation=_integer(value(row, 6)),
        confirmed=value(row, 7) == b"\1",
        created_at=_integer(value(row, 8)),
        issued_at=_integer(value(row, 9)),
        access_expires_at=_integer_or_none(value(row, 10)),
        previous_expires_at=_integer_or_none(value(row, 11)),
    )


def _integer(value: bytes | None) -> int:
    assert value is not None
    return int.from_bytes(value, "big", signed=True)


def _integer_or_none(value: bytes | None) -> int | None:
    return None if value is None else _integer(value)
