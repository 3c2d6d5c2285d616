"""What is fetched and written, as SQL; nothing but what engines that speak the protocol share.

Each refresh touches one row, by its primary key. Many of them go into one statement.
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
    fetch,
    insert_link,
    link_values,
    linked,
    links,
    read_text,
    text,
)
from synapse_login_module.stores.postgresql.optimistic import (
    CompareAndSwap,
    Delete,
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
    RetireKey,
    SessionKey,
    TokenKeysKey,
    UserKey,
    Write,
)
from synapse_login_module.stores.rows import LoginTokenRow

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_COLUMNS = (
    b"session_id, user_id, device_id, display_name, salt, key_id, generation, confirmed,"
    b" created_at, issued_at, access_expires_at, previous_expires_at"
)

_SESSIONS = b"SELECT " + _COLUMNS + b" FROM synapse_login_sessions "
_SESSIONS_BY_ID = _SESSIONS + b"WHERE session_id = ANY ($1::BIGINT[])"
_SESSIONS_OF_USER = _SESSIONS + b"WHERE user_id = $1::TEXT ORDER BY created_at, session_id"
_ALL_SESSIONS = _SESSIONS + b"ORDER BY created_at, session_id"
_OWNERS_BY_ID = (
    b"SELECT "
    + b", ".join(b"session." + name for name in _COLUMNS.split(b", "))
    + b", link.provider, link.subject FROM synapse_login_sessions AS session"
    b" LEFT JOIN synapse_login_links AS link ON link.user_id = session.user_id"
    b" WHERE session.session_id = ANY ($1::BIGINT[])"
)

_SWAP = b"""
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

_VALUES = (
    b"$1::BIGINT, $2::TEXT, $3::TEXT, $4::TEXT, $5::BYTEA, $6::BIGINT, $7::BIGINT, $8::BOOLEAN,"
    b" $9::BIGINT, $10::BIGINT, $11::BIGINT, $12::BIGINT"
)
_INSERT = b"INSERT INTO synapse_login_sessions (" + _COLUMNS + b") SELECT " + _VALUES
_IN_PLACE_OF_THE_DEVICES = (
    b" ON CONFLICT (user_id, device_id) DO UPDATE SET "
    + b", ".join(b"%b = excluded.%b" % (name, name) for name in _COLUMNS.split(b", "))
    + b" RETURNING session_id"
)
_PUT = _INSERT + _IN_PLACE_OF_THE_DEVICES
_PUT_FOR_LOGIN_TOKEN = (
    b"WITH used AS (DELETE FROM synapse_login_tokens WHERE token_id = $13::BIGINT"
    b" RETURNING token_id) " + _INSERT + b" FROM used" + _IN_PLACE_OF_THE_DEVICES
)
_PUT_LINKED, _PUT_WITH_LINK = (
    b"WITH %b " % linked(new, 13) + _INSERT + b" FROM linked" + _IN_PLACE_OF_THE_DEVICES
    for new in (False, True)
)

_DROP = b"DELETE FROM synapse_login_sessions WHERE session_id = ANY ($1::BIGINT[])"

_LOGIN_TOKENS_BY_ID = (
    b"SELECT token_id, user_id, salt, expires_at FROM synapse_login_tokens"
    b" WHERE token_id = ANY ($1::BIGINT[])"
)
_DROP_EXPIRED_LOGIN_TOKENS = b"DELETE FROM synapse_login_tokens WHERE expires_at <= $1::BIGINT"
_PUT_LOGIN_TOKEN = (
    b"INSERT INTO synapse_login_tokens (token_id, user_id, salt, expires_at)"
    b" VALUES ($1::BIGINT, $2::TEXT, $3::BYTEA, $4::BIGINT)"
)
_DROP_LOGIN_TOKEN = (
    b"DELETE FROM synapse_login_tokens WHERE token_id = $1::BIGINT RETURNING token_id"
)


_LINK_COLUMNS = 12, 13
"""Of an owner, those after the session's."""


class Fetch:
    """The statements that fetch what is asked for.

    :ivar statements: to be run together.
    """

    def __init__(self, keys: Collection[Key]) -> None:
        self._keys = keys
        self._absorb: list[Callable[[PGresult], Found]] = []
        self.statements: list[Statement] = []
        sessions = [key.session_id for key in keys if isinstance(key, SessionKey | NewSessionKey)]
        if sessions:
            self._add(_SESSIONS_BY_ID, [_array(sessions)], _sessions_found)
        owners = [key.session_id for key in keys if isinstance(key, OwnerKey)]
        if owners:
            self._add(_OWNERS_BY_ID, [_array(owners)], _owners_found)
        tokens = [key.token_id for key in keys if isinstance(key, LoginTokenKey)]
        if tokens:
            self._add(_LOGIN_TOKENS_BY_ID, [_array(tokens)], _login_tokens_found)
        for key in keys:
            if isinstance(key, UserKey):
                self._add_user(key)
            elif isinstance(key, LinksKey):
                self._add_links(key)
            elif isinstance(key, TokenKeysKey):
                self._add_token_keys(key)

    def found(self, results: Iterable[PGresult]) -> Found:
        """What the results hold; ``None`` for the single rows that are not there."""
        found: Found = dict.fromkeys(self._keys)
        for absorb, result in zip(self._absorb, results, strict=True):
            found.update(absorb(result))
        return found

    def _add_user(self, key: UserKey) -> None:
        def absorb(result: PGresult) -> Found:
            return {key: _sessions(result)}

        if key.user_id is None:
            self._add(_ALL_SESSIONS, [], absorb)
        else:
            self._add(_SESSIONS_OF_USER, [text(key.user_id)], absorb)

    def _add_token_keys(self, key: TokenKeysKey) -> None:
        self._add(FETCH_KEYS, [], lambda result: {key: keys(result)})

    def _add_links(self, key: LinksKey) -> None:
        statement = fetch(key)
        self._add(statement.sql, statement.values, lambda result: {key: links(result)})

    def _add(
        self,
        sql: bytes,
        values: Sequence[str | bytes | None],
        absorb: Callable[[PGresult], Found],
    ) -> None:
        self.statements.append(Statement(sql, values))
        self._absorb.append(absorb)


class Store:
    """The statements that write; no two of the writes are of one row.

    :ivar statements: to be run together.
    """

    def __init__(self, writes: Sequence[Write]) -> None:
        self._writes = writes
        self._places: dict[Write, int] = {}
        self.statements: list[Statement] = []
        # In one order everywhere, so that two servers seldom wait for one another.
        swaps = sorted(
            (each for each in writes if isinstance(each, CompareAndSwap)),
            key=lambda swap: swap.old.session_id,
        )
        if swaps:
            self.statements.append(_compare_and_swap(swaps))
        self._swaps = bool(swaps)
        drops = [each for each in writes if isinstance(each, Delete)]
        numbers = sorted(number for each in drops for number in each.session_ids)
        if numbers:
            self.statements.append(Statement(_DROP, [_array(numbers)]))
        # Before a login token is used up in the same transaction: it is not good any more.
        whose = sorted({each.user_id for each in drops if each.user_id is not None})
        self.statements += map(delete_login_tokens, whose)
        others = [each for each in writes if not isinstance(each, CompareAndSwap | Delete)]
        for write in sorted(others, key=_whose):
            if isinstance(write, InsertLoginToken):
                self.statements += _insert_login_token(write)
                continue
            if isinstance(write, InsertKeys):
                self.statements += insert_keys(write)
                continue
            if isinstance(write, Insert):
                self.statements.append(_insert(write))
            elif isinstance(write, DeleteLoginToken):
                self.statements.append(Statement(_DROP_LOGIN_TOKEN, [str(write.token_id)]))
            elif isinstance(write, InsertLink):
                self.statements += insert_link(write)
            elif isinstance(write, DeleteLink):
                self.statements += delete_link(write)
            elif isinstance(write, RetireKey):
                self.statements.append(retire_key(write))
            self._places[write] = len(self.statements) - 1

    def written(self, results: Sequence[PGresult]) -> list[bool]:
        """For each of the writes whether it found what it went by."""
        swapped = {
            _integer(results[0].get_value(row, 0))
            for row in range(results[0].ntuples if self._swaps else 0)
        }

        def written(write: Write) -> bool:
            if isinstance(write, CompareAndSwap):
                return write.old.session_id in swapped
            return write not in self._places or results[self._places[write]].ntuples == 1

        return [written(write) for write in self._writes]


def _whose(write: Write) -> str:
    """The user ID whose rows are locked, where others may lock them too."""
    if isinstance(write, Insert):
        return write.session.user_id
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
    return Statement(_SWAP, [_array(column) for column in zip(*rows, strict=True)])


def _insert(write: Insert) -> Statement:
    session = write.session
    sql = _PUT
    went_by: list[str | bytes] = []
    if write.login_token is not None:
        sql = _PUT_FOR_LOGIN_TOKEN
        went_by = [str(write.login_token)]
    elif write.link is not None:
        sql = _PUT_WITH_LINK if write.new else _PUT_LINKED
        went_by = link_values(write.link, session.created_at if write.new else None)
    return Statement(
        sql,
        [
            str(session.session_id),
            text(session.user_id),
            text(session.device_id),
            None if session.display_name is None else text(session.display_name),
            session.salt,
            str(session.key_id),
            str(session.generation),
            str(session.confirmed),
            str(session.created_at),
            str(session.issued_at),
            _number(session.access_expires_at),
            _number(session.previous_expires_at),
            *went_by,
        ],
    )


def _insert_login_token(write: InsertLoginToken) -> list[Statement]:
    row = write.row
    return [
        Statement(_DROP_EXPIRED_LOGIN_TOKENS, [str(write.now)]),
        Statement(
            _PUT_LOGIN_TOKEN,
            [str(row.token_id), text(row.user_id), row.salt, str(row.expires_at)],
        ),
    ]


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


def _array(values: Iterable[int | None]) -> str:
    """Numbers and truth values, as PostgreSQL writes an array of them."""
    return "{" + ",".join("NULL" if each is None else str(each) for each in values) + "}"


def _sessions_found(result: PGresult) -> Found:
    found: Found = {}
    for each in _sessions(result):
        found[SessionKey(each.session_id)] = found[NewSessionKey(each.session_id)] = each
    return found


def _owners_found(result: PGresult) -> Found:
    """The owners, and with them the sessions."""
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
