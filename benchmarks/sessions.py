"""Fills databases with any number of sessions, and makes the tokens of some of them."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random

import psycopg

from benchmarks.servers import SERVER_NAME, USER
from synapse_login_module.model import Link, Session
from synapse_login_module.providers import BcryptProvider
from synapse_login_module.stores.postgresql import schema
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.stores.sqlite_rows import SQLiteRows
from synapse_login_module.stores.sqlite_schema import migrate
from synapse_login_module.tokens import keyfile
from synapse_login_module.tokens.format import SALT_SIZE, KeyRing, TokenKind
from synapse_login_module.tokens.over import ENDED

_TRANSACTION = 50_000

_LINK = Link(f"@{USER}:{SERVER_NAME}", BcryptProvider.name, USER)
"""The link that the first login of the one real account makes."""


def fill(folder: Path, count: int, sample: int) -> list[bytes]:
    """Make ``sessions.db`` and ``token.key`` in a folder.

    :param count: the number of sessions.
    :param sample: the number of sessions for the load; all belong to the one real account.
    :return: the access and refresh token of each session of the sample, in random order.
    """
    random = Random(count)
    keys = keyfile.load_or_make(folder / "token.key", os.urandom)
    chosen = set(random.sample(range(count), min(sample, count)))
    lines = []
    with closing(connect(folder / "sessions.db")) as connection:
        migrate(connection)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -1000000")
        rows = SQLiteRows(connection)
        sessions = _sessions(count, chosen, keys.newest, random)
        while batch := list(islice(sessions, _TRANSACTION)):
            connection.execute("BEGIN")
            for session, is_chosen in batch:
                rows.insert(session)
                if is_chosen:
                    lines.append(_tokens(session, keys))
            connection.execute("COMMIT")
        rows.insert_link(_LINK, 0, ())
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    random.shuffle(lines)
    return lines


def fill_by_sql(
    folder: Path, count: int, sample: int, accounts: int, over: float, provider: str
) -> list[bytes]:
    """Make ``sessions.db`` and ``token.key`` in a folder, in a tenth of the time of :func:`fill`.

    :param count: the number of sessions.
    :param sample: the number of sessions for the load; all belong to the one real account.
    :param accounts: the number of accounts that the other sessions belong to, each with a link.
    :param over: the share of the sessions, all in the older half, that ended long ago.
    :param provider: the name of the provider that these accounts are linked to.
    :return: the access and refresh token of each session of the sample, in random order.
    """
    random = Random(count)
    keys = keyfile.load_or_make(folder / "token.key", os.urandom)
    now = int(time.time() * 1000)
    with closing(connect(folder / "sessions.db")) as connection:
        migrate(connection)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -2000000"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        values = {
            "count": count,
            "sampled": round(sample / count * _PARTS),
            "over": round(2 * over * _PARTS),
            "accounts": accounts,
            "now": now,
            "key": keys.newest,
            "ended": ENDED,
            "user": _LINK.user_id,
            "server": SERVER_NAME,
            "provider": provider,
            "salt": SALT_SIZE,
        }
        connection.execute(_INSERT_SESSIONS, values)
        connection.execute(_INSERT_LINKS, values)
        SQLiteRows(connection).insert_link(_LINK, now, ())
        connection.execute("COMMIT")
        rows = SQLiteRows(connection).sessions(_LINK.user_id)
        connection.execute("PRAGMA journal_mode = WAL")
    lines = [_tokens(session, keys) for session in rows if session.generation == 0]
    random.shuffle(lines)
    return lines


_PARTS = 1_000_000

# Sessions as logins make them: ids grow with time, and users come in random order.
_INSERT_SESSIONS = f"""
WITH RECURSIVE
    drawn(n, sampled, over, account) AS (
        VALUES (0, 0, 0, 0)
        UNION ALL
        SELECT n + 1, abs(random()) % {_PARTS} < :sampled,
            n * 2 < :count AND abs(random()) % {_PARTS} < :over, abs(random()) % :accounts
        FROM drawn WHERE n < :count
    )
INSERT INTO sessions
SELECT (:now / 1000 - :count + n) << 31 | abs(random()) % 2147483648,
    CASE WHEN sampled THEN :user
        ELSE '@user' || substr('0000000' || account, -7) || ':' || :server END,
    hex(randomblob(5)), NULL, randomblob(:salt), :key,
    CASE WHEN over AND NOT sampled THEN :ended ELSE 0 END, 1,
    :now - (:count - n) * 1000,
    CASE WHEN over AND NOT sampled THEN 0 ELSE :now - (:count - n) * 1000 END, NULL, NULL
FROM drawn WHERE n > 0
"""
_INSERT_LINKS = """
WITH RECURSIVE numbers(n) AS (
    VALUES (0) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :accounts
)
INSERT INTO links (user_id, provider, subject, linked_at, looked_at)
SELECT '@user' || substr('0000000' || n, -7) || ':' || :server, :provider,
    'user' || substr('0000000' || n, -7), :now, :now - abs(random()) % 900000
FROM numbers
"""


def bytes_on_disk(folder: Path) -> int:
    """Return the size of the database's pages in use."""
    with closing(sqlite3.connect(folder / "sessions.db")) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    used: int = (pages - free) * size
    return used


def fill_postgresql(folder: Path, dsn: str, count: int, sample: int) -> list[bytes]:
    """Fill an empty PostgreSQL database like :func:`fill`; makes ``token.key`` in the folder."""
    random = Random(count)
    keys = keyfile.load_or_make(folder / "token.key", os.urandom)
    chosen = set(random.sample(range(count), min(sample, count)))
    lines = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        schema.migrate(connection)
        columns = ", ".join(Session._fields)
        copy = f"COPY synapse_login_sessions ({columns}) FROM STDIN"
        with connection.cursor().copy(copy) as rows:
            for session, is_chosen in _sessions(count, chosen, keys.newest, random):
                rows.write_row(session)
                if is_chosen:
                    lines.append(_tokens(session, keys))
        connection.execute("INSERT INTO synapse_login_links VALUES (%s, %s, %s, 0)", _LINK)
        connection.execute("VACUUM ANALYZE synapse_login_sessions")
    random.shuffle(lines)
    return lines


def bytes_in_postgresql(dsn: str) -> int:
    """Return the size of the sessions and their indexes."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT pg_total_relation_size('synapse_login_sessions')"
        ).fetchone()
        assert row is not None
        size: int = row[0]
        return size


def _sessions(
    count: int, chosen: set[int], key_id: int, random: Random
) -> Iterator[tuple[Session, bool]]:
    """Yield sessions as logins make them: ids grow with time, users come in random order."""
    now = int(time.time() * 1000)
    second = now // 1000 - count
    for index in range(count):
        number = random.randrange(10 * count)
        is_chosen = index in chosen
        created_at = now - (count - index) * 1000
        yield (
            Session(
                session_id=(second + index) << 31 | random.getrandbits(31),
                user_id=f"@{USER if is_chosen else f'user{number:07}'}:{SERVER_NAME}",
                device_id="".join(random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=10)),
                display_name=None,
                salt=random.randbytes(SALT_SIZE),
                key_id=key_id,
                generation=0,
                confirmed=True,
                created_at=created_at,
                issued_at=created_at,
                access_expires_at=None,
                previous_expires_at=None,
            ),
            is_chosen,
        )


def _tokens(session: Session, keys: KeyRing) -> bytes:
    access, refresh = (
        keys.derive(kind, session.key_id, session.session_id, 0, session.salt)
        for kind in (TokenKind.ACCESS, TokenKind.REFRESH)
    )
    return f"{access} {refresh}".encode("ascii")
