"""Tests for the background work of stores."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from synapse_login_module import testing
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import Link, Session, SessionCounts, TokenKey, TokenPolicy
from synapse_login_module.plugin import Environment
from synapse_login_module.stores import MemoryTokenStore, SQLiteTokenStore, alike, ending
from synapse_login_module.stores.over_sql import was_over as was_over_sql
from synapse_login_module.stores.postgresql.schema import MIGRATIONS as POSTGRESQL_MIGRATIONS
from synapse_login_module.stores.postgresql.schema import migrate as migrate_postgresql
from synapse_login_module.stores.postgresql.store import PostgreSQLTokenStore
from synapse_login_module.stores.rows import Rows
from synapse_login_module.stores.sqlite_rows import SQLiteRows
from synapse_login_module.stores.sqlite_schema import MIGRATIONS, migrate
from synapse_login_module.tokens.format import KeyRing, TokenKind
from synapse_login_module.tokens.over import ENDED, NO_REFRESH_TOKEN, Bounds, bounds, was_over
from tests.support.postgresql import shared_postgresql
from tests.support.stores import start_in_postgresql

NOW = 1_000_000_000_000
OLD, NEW = NOW - 200_000, NOW - 50_000
POLICIES = [
    TokenPolicy(refresh_token=idle, session=absolute, keep_ended=0)
    for idle in (None, 100_000)
    for absolute in (None, 100_000)
]


def all_sessions() -> list[Session]:
    """Sessions that differ from one another in everything that decides whether they are over."""
    shapes = itertools.product(
        (0, 1, ENDED), (True, False), (OLD, NEW), (OLD, NEW), (None, OLD, NOW), (None, 0, OLD, NOW)
    )
    return [
        Session(
            session_id=number + 1,
            user_id="@alice:example.com",
            device_id=str(number),
            display_name=None,
            salt=bytes(16),
            key_id=1,
            generation=generation,
            confirmed=confirmed,
            created_at=created_at,
            issued_at=issued_at,
            access_expires_at=None if access is None else access + 1,
            previous_expires_at=previous and previous + 1,
        )
        for number, (generation, confirmed, created_at, issued_at, access, previous) in enumerate(
            shapes
        )
    ]


class OverTests(SynchronousTestCase):
    """Tests of when a session is over."""

    def test_examples(self) -> None:
        """A session is over once it was ended, is too old, or has no valid token any more."""
        policy = TokenPolicy(refresh_token=100_000, session=1_000_000)
        live = all_sessions()[0]._replace(
            generation=3,
            created_at=OLD,
            issued_at=OLD,
            access_expires_at=OLD + 5000,
            previous_expires_at=OLD + 9000,
        )
        for expected, session in (
            (True, live),
            (False, live._replace(issued_at=NOW - 99_999)),
            (False, live._replace(access_expires_at=NOW + 1)),
            (False, live._replace(access_expires_at=None)),
            (False, live._replace(confirmed=False, previous_expires_at=NOW + 1)),
            (False, live._replace(confirmed=False, previous_expires_at=None)),
            (True, live._replace(confirmed=False)),
            (True, live._replace(access_expires_at=None, created_at=NOW - 1_000_000)),
            (True, live._replace(generation=ENDED, issued_at=NOW)),
            (False, live._replace(generation=ENDED, issued_at=NOW + 1)),
            (False, live._replace(generation=0, previous_expires_at=None, issued_at=NOW)),
            (True, live._replace(generation=0, previous_expires_at=0, issued_at=NOW)),
        ):
            self.assertIs(was_over(session, bounds(policy, NOW)), expected, session._asdict())


MOMENTS = st.integers(NOW - 3, NOW + 3)
SESSIONS = st.builds(
    all_sessions()[0]._replace,
    generation=st.sampled_from([0, 1, ENDED - 1, ENDED]),
    confirmed=st.booleans(),
    created_at=MOMENTS,
    issued_at=MOMENTS,
    access_expires_at=st.none() | MOMENTS,
    previous_expires_at=st.none() | st.just(NO_REFRESH_TOKEN) | MOMENTS,
)
BOUNDS = st.builds(Bounds, MOMENTS, st.none() | MOMENTS, st.none() | MOMENTS)
SHOWN = (
    "generation", "confirmed", "created_at", "issued_at", "access_expires_at", "previous_expires_at"
)  # fmt: skip


class ConditionTests(SynchronousTestCase):
    """The SQL of whether a session was over: it agrees with the Python rule to the millisecond."""

    @given(SESSIONS, BOUNDS)
    @settings(max_examples=1000)
    def test_sqlite(self, session: Session, at: Bounds) -> None:
        """In SQLite."""
        condition = was_over_sql("?7", "?8", "?9")
        with closing(sqlite3.connect(":memory:")) as connection:
            (found,) = connection.execute(
                f"WITH sessions ({', '.join(SHOWN)}) AS (VALUES (?1, ?2, ?3, ?4, ?5, ?6))"
                f" SELECT count(*) FROM sessions WHERE {condition}",
                [*(getattr(session, name) for name in SHOWN), *at],
            ).fetchone()
        self.assertIs(bool(found), was_over(session, at))

    def test_postgresql(self) -> None:
        """In PostgreSQL."""
        condition = was_over_sql("%(ended)s::BIGINT", "%(idle)s::BIGINT", "%(absolute)s::BIGINT")
        values = ", ".join(
            f"%({name})s::{'BOOLEAN' if name == 'confirmed' else 'BIGINT'}" for name in SHOWN
        )
        connection = shared_postgresql().connect()
        self.addCleanup(connection.close)

        @given(SESSIONS, BOUNDS)
        @settings(max_examples=300)
        def agrees(session: Session, at: Bounds) -> None:
            (found,) = connection.execute(
                f"SELECT count(*) FROM (VALUES ({values})) AS sessions ({', '.join(SHOWN)})"
                f" WHERE {condition}",
                {**session._asdict(), **at._asdict()},
            ).fetchone()
            self.assertIs(bool(found), was_over(session, at))

        agrees()


FORMER = all_sessions()[0]._replace(generation=5, confirmed=True, access_expires_at=None)
RING = KeyRing({1: b"1" * 32})


def former_environment() -> Environment:
    """Make an environment with the key of that session."""
    clock = Clock()
    clock.advance(NOW / 1000)
    return replace(testing.environment(reactor=reactor, clock=clock), keys=RING)


async def goes_on(store: SQLiteTokenStore | PostgreSQLTokenStore) -> None:
    """Check that the earlier session refreshes, and that the store then knows its key."""
    token = RING.derive(TokenKind.REFRESH, 1, FORMER.session_id, 5, FORMER.salt)
    pair = await testing.refresh(store, token, None, True)
    await store.session_for_access_token(pair.access_token, False)
    (key,) = await store.token_keys()
    assert key == TokenKey(1, RING.fingerprints[1])


class AgreementContract(testing.HousekeepingContract):
    """Tests of the background work of stores of derived tokens, beyond the contract."""

    async def test_agrees(self) -> None:
        """The store deletes what is over by the rule for one row, and nothing else."""
        sessions = all_sessions()
        for policy in POLICIES:
            clock = Clock()
            clock.advance(NOW / 1000)
            store: Any = self.make_store(policy, clock)
            await gatherResults([store._database.run(_putting(each)) for each in sessions])
            after = None
            while True:
                pruned = await store.prune(after, 50, 50)
                after = pruned.after
                if after is None:
                    break
            left = await store._database.run(lambda rows: rows.page(None, 0, 1000))
            now = bounds(policy, NOW)
            expected = [each.session_id for each in sessions if not was_over(each, now)]
            self.assertEqual(sorted(each.session_id for each in left), expected)

    async def test_count_in_batches(self) -> None:
        """Sessions are counted in every batch, whether or not the last is full."""
        self.patch(ending, "_COUNTED", 3)
        clock = Clock()
        clock.advance(NOW / 1000)
        store: Any = self.make_store(TokenPolicy(), clock)
        for number in range(7):
            self.assertEqual(await store.count_sessions(), SessionCounts(number, 0))
            await store.issue("@aba:x", str(number), None, False, True)

    async def test_alike_in_batches(self) -> None:
        """Users are found in every batch of sessions and of links."""
        self.patch(alike, "BATCH", 3)
        clock = Clock()
        clock.advance(NOW / 1000)
        store: Any = self.make_store(TokenPolicy(), clock)
        spellings = ["@ABA:x", "@ABa:x", "@AbA:x", "@Aba:x", "@aBA:x", "@aBa:x", "@abA:x", "@aba:x"]
        for user_id in (*spellings[:4], "@abc:x", "@other:x"):
            for number in range(2):
                await store.issue(user_id, str(number), None, False, True)
        for user_id in (*spellings[2:], "@abb:x"):
            await store.link(Link(user_id, "sql", user_id), False)
        self.assertEqual(sorted(await store.users_alike("@aba:x")), spellings)


def _putting(session: Session) -> Any:
    def put(rows: Rows) -> None:
        rows.insert(session)

    return put


class MemoryTests(AgreementContract, TestCase):
    """In memory."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        return MemoryTokenStore(None, testing.environment(clock=clock, policy=policy))


class SQLiteTests(AgreementContract, testing.LeasesContract, TestCase):
    """In a file."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        environment = testing.environment(reactor=reactor, clock=clock, policy=policy)
        store = SQLiteTokenStore(Path(self.mktemp()), environment)
        store.startService()
        self.addCleanup(store.stopService)
        return store

    def test_migration(self) -> None:
        """Links from before the sweep count as looked at when the file was migrated."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(connection.close)
        migrate(connection, MIGRATIONS[:2])
        connection.execute("INSERT INTO links VALUES ('@alice:x', 'ldap', 'alice', 5)")
        migrate(connection)
        (row,) = connection.execute("SELECT linked_at, looked_at, held, locked FROM links")
        self.assertEqual((row[0], row[2], row[3]), (5, 0, 0))
        self.assertGreater(row[1], 1_700_000_000_000)

    async def test_sessions_of_before(self) -> None:
        """Sessions from before there were fingerprints of keys still refresh."""
        path = Path(self.mktemp())
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            migrate(connection, MIGRATIONS[:2])
            SQLiteRows(connection).insert(FORMER)
        store = SQLiteTokenStore(path, former_environment())
        store.startService()
        self.addCleanup(store.stopService)
        await goes_on(store)


class PostgreSQLTests(AgreementContract, testing.LeasesContract, TestCase):
    """In PostgreSQL."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        return start_in_postgresql(self, testing.environment(clock=clock, policy=policy))

    def test_migration(self) -> None:
        """Links from before the sweep count as looked at when the schema was migrated."""
        import psycopg

        dsn = shared_postgresql().new_database("housekeeping")
        with psycopg.connect(dsn, autocommit=True) as connection:
            migrate_postgresql(connection, POSTGRESQL_MIGRATIONS[:3])
            connection.execute(
                "INSERT INTO synapse_login_links VALUES ('@alice:x', 'ldap', 'alice', 5)"
            )
            migrate_postgresql(connection)
            row = connection.execute(
                "SELECT linked_at, looked_at, held, locked FROM synapse_login_links"
            ).fetchone()
        assert row is not None
        self.assertEqual((row[0], row[2], row[3]), (5, 0, 0))
        self.assertGreater(row[1], 1_700_000_000_000)

    async def test_sessions_of_before(self) -> None:
        """Sessions from before there were fingerprints of keys still refresh."""
        import psycopg

        dsn = shared_postgresql().new_database("housekeeping")
        with psycopg.connect(dsn, autocommit=True) as connection:
            migrate_postgresql(connection, POSTGRESQL_MIGRATIONS[:3])
            connection.execute(
                f"INSERT INTO synapse_login_sessions ({', '.join(Session._fields)})"
                f" VALUES ({', '.join(f'%({name})s' for name in Session._fields)})",
                FORMER._asdict(),
            )
        await goes_on(start_in_postgresql(self, former_environment(), dsn))

    async def test_indexes(self) -> None:
        """Sessions have two indexes only, on columns that no refresh changes: updates stay HOT."""
        clock = Clock()
        clock.advance(NOW / 1000)
        store: Any = self.make_store(TokenPolicy(), clock)
        found = await store.housekeeping.fetch(
            "SELECT COUNT(*) FROM pg_index WHERE indrelid = 'synapse_login_sessions'::regclass", []
        )
        self.assertEqual(found, [(2,)])
