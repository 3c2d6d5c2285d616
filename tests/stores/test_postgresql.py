"""Tests for the PostgreSQL store, on a server of the tests' own."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.application.service import IService
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from synapse_login_module import stores, testing
from synapse_login_module.errors import ConfigError, StoreUnavailable, SupersededToken, UnknownToken
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import (
    Claim,
    Link,
    Login,
    Session,
    TokenKey,
    TokenPair,
    TokenPolicy,
)
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.database import PostgreSQLDatabase
from synapse_login_module.stores.postgresql.operations import Found
from synapse_login_module.stores.postgresql.optimistic import execute_on
from synapse_login_module.stores.postgresql.schema import MIGRATIONS, Migration, migrate
from synapse_login_module.stores.postgresql.statements import Fetch, Store
from synapse_login_module.stores.postgresql.store import PostgreSQLTokenStore
from synapse_login_module.stores.postgresql.work import PoolLimits
from synapse_login_module.stores.rows import LoginTokenRow, Rows
from synapse_login_module.tokens.format import KEY_SIZE, KeyRing
from tests.chaos.cutting import CuttingProxy
from tests.stores.test_stores import RowsContract
from tests.support import REPOSITORY
from tests.support.certificates import Authority
from tests.support.folders import temporary_folder
from tests.support.postgresql import PostgreSQL, shared_postgresql
from tests.support.stores import start_in_postgresql
from tests.support.waiting import until

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")

reactor = cast(Any, global_reactor)

ALICE = "@alice:example.com"
TIMEOUT = 30.0
KEYS = KeyRing({1: b"1" * KEY_SIZE})


class PostgreSQLTokenStoreTests(
    testing.TokenStoreContract, testing.LinksContract, testing.TokenKeysContract, TestCase
):
    """The contract, kept in PostgreSQL."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        return start_in_postgresql(self, testing.environment(clock=clock, policy=policy))


class OneByOneRows:
    """Rows whose every call is a piece of work of its own, over a connection that blocks."""

    writes_once = True

    def __init__(self, connection: Any) -> None:
        self._libpq = connection.pgconn

    def _do(self, work: Callable[[Rows], T]) -> T:
        found: Found = {}
        while (tried := execute_on(work, found)).absent:
            fetch = Fetch(tried.absent)
            found.update(fetch.found(self._run(fetch.statements)))
        if tried.write is not None:
            store = Store([tried.write])
            assert store.written(self._run(store.statements)) == [True]
        return cast(T, tried.result)

    def _run(self, statements: Sequence[Statement]) -> list[Any]:
        results = []
        for each in statements:
            values = [v.encode() if isinstance(v, str) else v for v in each.values]
            formats = [int(isinstance(v, bytes)) for v in each.values]
            result = self._libpq.exec_params(
                each.sql, values, param_formats=formats, result_format=1
            )
            assert not result.error_message, result.error_message
            results.append(result)
        return results

    def session(self, session_id: int) -> Session | None:
        return self._do(lambda rows: rows.session(session_id))

    def is_free(self, session_id: int) -> bool:
        return self._do(lambda rows: rows.is_free(session_id))

    def reread(self, session_id: int) -> Session | None:
        return self._do(lambda rows: rows.reread(session_id))

    def together(self, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
        return first(), second()

    def owner(self, session_id: int) -> tuple[Session, Link | None] | None:
        return self._do(lambda rows: rows.owner(session_id))

    def links_of(self, user_id: str | None, claim: Claim | None) -> list[Link]:
        return self._do(lambda rows: rows.links_of(user_id, claim))

    def links(self) -> list[Link]:
        return self._do(lambda rows: rows.links())

    def insert_link(self, link: Link, linked_at: int, instead_of: Sequence[Link]) -> None:
        self._do(lambda rows: rows.insert_link(link, linked_at, instead_of))

    def delete_link(self, link: Link) -> None:
        self._do(lambda rows: rows.delete_link(link))

    def sessions(self, user_id: str) -> list[Session]:
        return self._do(lambda rows: rows.sessions(user_id))

    def page(self, user_id: str | None, after: int, most: int) -> list[Session]:
        return self._do(lambda rows: rows.page(user_id, after, most))

    def insert(
        self,
        session: Session,
        link: Link | None = None,
        new: bool = False,
        reserved: bool = False,
    ) -> None:
        self._do(lambda rows: rows.insert(session, link, new, reserved))

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        return self._do(lambda rows: rows.compare_and_swap(old, new))

    def delete(self, session_id: int, note: int | None = None) -> None:
        self._do(lambda rows: rows.delete(session_id, note))

    def delete_user(self, user_id: str, note: int | None = None) -> int:
        return self._do(lambda rows: rows.delete_user(user_id, note))

    def delete_device(self, user_id: str, device_id: str, note: int) -> None:
        self._do(lambda rows: rows.delete_device(user_id, device_id, note))

    def is_reserved(self, user_id: str, device_id: str) -> bool:
        return self._do(lambda rows: rows.is_reserved(user_id, device_id))

    def token_keys(self) -> list[TokenKey]:
        return self._do(lambda rows: rows.token_keys())

    def insert_keys(self, keys: Sequence[TokenKey]) -> None:
        self._do(lambda rows: rows.insert_keys(keys))

    def retire_key(self, key_id: int) -> bool:
        return self._do(lambda rows: rows.retire_key(key_id))

    def login_token(self, token_id: int) -> LoginTokenRow | None:
        return self._do(lambda rows: rows.login_token(token_id))

    def insert_login_token(self, row: LoginTokenRow, now: int) -> None:
        self._do(lambda rows: rows.insert_login_token(row, now))

    def delete_login_token(self, token_id: int) -> bool:
        return self._do(lambda rows: rows.delete_login_token(token_id))


class PostgreSQLRowsTests(RowsContract, SynchronousTestCase):
    """Rows in PostgreSQL."""

    def setUp(self) -> None:
        shared_postgresql().new_database("rows")
        self.connection = shared_postgresql().connect("rows")
        self.addCleanup(self.connection.close)
        migrate(self.connection)
        self.rows = OneByOneRows(self.connection)

    def written(self, old: Session, new: Session) -> bool:
        """Return whether the swap's statement finds the row unchanged."""
        store = Store([execute_on(lambda rows: rows.compare_and_swap(old, new), _found(old)).write])  # type: ignore[list-item]
        (written,) = store.written(OneByOneRows(self.connection)._run(store.statements))
        return written

    def test_swap_what_changed_since(self) -> None:
        """A row that changed after it was read is not swapped. An unchanged row is swapped once."""
        old = self.a_session()
        for changed in (
            self.a_session(generation=4),
            self.a_session(confirmed=True),
            self.a_session(issued_at=2_001),
        ):
            self.rows.insert(changed)
            self.assertIs(self.written(old, self.a_session(generation=9)), False)
            self.assertEqual(self.rows.session(7), changed)
        self.rows.insert(old)
        for first in (True, False):
            self.assertIs(self.written(old, self.a_session(generation=9)), first)

    def test_hot_statements_use_the_key(self) -> None:
        """The statements of a refresh use the primary key, however many refreshes share them."""
        self.connection.execute(
            "INSERT INTO synapse_login_sessions SELECT i, 0, 0, 0, NULL, NULL, 1, true, '', 'u',"
            " i::text FROM generate_series(1, 20000) i"
        )
        self.connection.execute("ANALYZE synapse_login_sessions")
        sessions = [self.a_session(number) for number in range(1, 51)]
        found = {key: row for each in sessions for key, row in _found(each).items()}
        swaps = [
            execute_on(
                lambda rows, s=s: rows.compare_and_swap(s, s._replace(generation=4)),  # type: ignore[misc]
                found,
            ).write
            for s in sessions
        ]
        for statement in (
            *Fetch(list(found)).statements,
            *Store(cast(Any, swaps)).statements,
        ):
            explained = Statement(b"EXPLAIN " + statement.sql, statement.values)
            (result,) = OneByOneRows(self.connection)._run([explained])
            plan = b"\n".join(result.get_value(row, 0) for row in range(result.ntuples))
            self.assertIn(b"synapse_login_sessions_pkey", plan)
            self.assertNotIn(b"Seq Scan", plan)

    def test_writes_once(self) -> None:
        """Work that writes twice raises, because the two writes would not be atomic."""

        def work(rows: Rows) -> None:
            rows.delete(1)
            rows.delete(2)

        tried = execute_on(work, {})
        tried.result.trap(RuntimeError)
        self.assertIsNone(tried.write)


def _found(session: Session) -> Found:
    """Return the row as if it had been fetched."""
    tried = execute_on(lambda rows: rows.session(session.session_id), {})
    (key,) = tried.absent
    return {key: session}


def refresh_token(pair: TokenPair) -> str:
    """Return the refresh token of a pair that has one."""
    assert pair.refresh_token is not None
    return pair.refresh_token


class PostgreSQLCase(TestCase):
    """Stores on one database, which is empty at first.

    :ivar clock: the wall clock of the stores.
    :ivar folder: the folder of the configuration.
    :cvar delegated: whether a homeserver delegates to the servers of the stores.
    """

    timeout = 120
    folder = Path()
    delegated = False

    def setUp(self) -> None:
        self.server = self.make_server()
        self.dsn = self.server.new_database("stores")
        self.clock = Clock()
        self.clock.advance(1_000_000_000)

    def make_server(self) -> PostgreSQL:
        """Return the server: the shared one, which no test stops."""
        return shared_postgresql()

    def build(self, dsn: str | None = None, **config: Any) -> PostgreSQLTokenStore:
        """Make a store that is not started."""
        parsed = PostgreSQLTokenStore.parse_config({"dsn": dsn or self.dsn, **config}, self.folder)
        environment = testing.environment(
            reactor=reactor, clock=self.clock, delegated=self.delegated
        )
        return PostgreSQLTokenStore(parsed, replace(environment, keys=KEYS))

    def open(self, dsn: str | None = None, **config: Any) -> PostgreSQLTokenStore:
        """Make a store that is stopped after the test."""
        store = self.build(dsn, **config)
        store.startService()
        self.addCleanup(store.stopService)
        return store

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Query the database of the stores."""
        return self.server.query(sql, values, "stores")

    async def issue(self, store: ITokenStore, device_id: str | None = None) -> Login:
        """A login."""
        return await store.issue(ALICE, device_id, None, True, True)

    async def many(self, store: ITokenStore, count: int) -> list[TokenPair]:
        """Begin ``count`` sessions."""
        return [each.tokens for each in await gatherResults([_issue(store) for _ in range(count)])]

    async def unavailable(self, deferred: Deferred[Any]) -> str:
        """Check that a Deferred fails because the database does; return the error's text."""
        with self.assertRaises(StoreUnavailable) as raised:
            await deferred
        return str(raised.exception)


def _issue(store: ITokenStore) -> Deferred[Login]:
    return store.issue(ALICE, None, None, True, True)


class RaceTests(PostgreSQLCase):
    """Tests of two stores on one database, like two processes."""

    def setUp(self) -> None:
        super().setUp()
        self.first, self.second = self.open(), self.open()

    async def outcomes(
        self, ask: Callable[[ITokenStore], Deferred[Any]]
    ) -> tuple[list[Any], list[type]]:
        """Ask both stores at the same time; return the results and the classes of the errors."""
        asked = [ask(each) for each in (self.first, self.second)]
        results = await DeferredList(asked, consumeErrors=True)
        answers = [result for good, result in results if good]
        return answers, [result.type for good, result in results if not good]

    async def test_strict(self) -> None:
        """Of two strict refreshes of one session one wins, and the session lives."""
        for _ in range(20):
            pair = (await self.issue(self.first)).tokens
            answers, errors = await self.outcomes(
                lambda store, pair=pair: testing.refresh(store, refresh_token(pair), None, True)  # type: ignore[misc]
            )
            self.assertEqual((len(answers), errors), (1, [SupersededToken]))
            await self.second.session_for_access_token(answers[0].access_token, False)
            await testing.refresh(self.first, refresh_token(answers[0]), None, True)

    async def test_lenient(self) -> None:
        """Two lenient refreshes of one session get the same pair: the chain does not fork."""
        for _ in range(20):
            pair = (await self.issue(self.first)).tokens
            answers, errors = await self.outcomes(
                lambda store, pair=pair: testing.refresh(store, refresh_token(pair), None, False)  # type: ignore[misc]
            )
            self.assertEqual(errors, [])
            self.assertEqual(len({each.refresh_token for each in answers}), 1)

    async def test_within_one_store(self) -> None:
        """Refreshes of one session that share a transaction race as any others do."""
        pair = (await self.issue(self.first)).tokens
        asked = [testing.refresh(self.first, refresh_token(pair), None, True) for _ in range(10)]
        results = await DeferredList(asked, consumeErrors=True)
        self.assertEqual([good for good, _ in results].count(True), 1)

    async def test_login_token(self) -> None:
        """A login token begins one session, whichever store gets it first."""
        for number in range(20):
            token = (await self.first.make_login_token(ALICE)).token
            answers, errors = await self.outcomes(
                lambda store, token=token: store.issue(ALICE, None, None, True, True, token)  # type: ignore[misc]
            )
            self.assertEqual((len(answers), errors), (1, [UnknownToken]))
            self.assertEqual(len(await self.first.sessions(ALICE)), number + 1)

    async def test_same_device(self) -> None:
        """Of two logins on one device one session is left, and its tokens are valid."""
        for _ in range(20):
            answers, errors = await self.outcomes(
                lambda store: store.issue(ALICE, "PHONE", None, True, True)
            )
            self.assertEqual((len(answers), errors), (2, []))
            self.assertEqual(len(await self.first.sessions(ALICE)), 1)
            looked = [
                self.second.session_for_access_token(each.tokens.access_token, False)
                for each in answers
            ]
            results = await DeferredList(looked, consumeErrors=True)
            self.assertEqual([good for good, _ in results].count(True), 1)

    async def test_login_for_a_login_token(self) -> None:
        """Of two logins that consume one login token at once, only one inserts a session."""
        for number in range(20):
            token = LoginTokenRow(number + 1, ALICE, b"s" * 16, 2**60)
            await self.first._postgresql.run(partial(_insert_login_token, token))
            sessions = [_a_session(number * 2 + 1), _a_session(number * 2 + 2)]
            asked = [
                store._postgresql.run(partial(_log_in_with, token, session))
                for store, session in zip((self.first, self.second), sessions, strict=True)
            ]
            self.assertEqual(sorted(await gatherResults(asked)), [False, True])
            self.assertEqual(len(await self.first.sessions(ALICE)), number + 1)

    async def test_revoked_elsewhere(self) -> None:
        """A session revoked at one store is unknown to the other at once, despite its cache."""
        login = await self.issue(self.first)
        session = (await self.first.present(refresh_token(login.tokens))).session
        await self.second.revoke(session)
        with self.assertRaises(UnknownToken):
            await testing.refresh(self.first, refresh_token(login.tokens), None, True)
        with self.assertRaises(UnknownToken):
            await self.first.session_for_access_token(login.tokens.access_token, True)

    async def test_refreshed_elsewhere(self) -> None:
        """A cached session never causes a rejection or a revocation."""
        old = (await self.issue(self.first)).tokens
        await self.first.present(refresh_token(old))
        new = await testing.refresh(self.second, refresh_token(old), None, True)
        self.clock.advance(60)
        await testing.refresh(self.first, refresh_token(new), None, True)

    async def test_serialisable(self) -> None:
        """Where every transaction is serializable, serialization failures are retried."""
        self.query("ALTER DATABASE stores SET default_transaction_isolation = 'serializable'")
        first, second = self.open(connections=3, batch=8), self.open(connections=3, batch=8)
        pairs = await self.many(first, 40)
        for _ in range(5):
            refreshed = []
            for store in (first, second):
                refreshed.append(
                    await_all(
                        [testing.refresh(store, refresh_token(p), None, False) for p in pairs]
                    )
                )
            one, other = await gatherResults(refreshed)
            self.assertEqual(one, other)
            pairs = one


def _a_session(number: int) -> Session:
    salt = b"s" * 16
    return Session(number, ALICE, f"D{number}", None, salt, 1, 0, True, number, 0, None, None)


def _insert_login_token(token: LoginTokenRow, rows: Rows) -> None:
    rows.insert_login_token(token, 0)


def _log_in_with(token: LoginTokenRow, session: Session, rows: Rows) -> bool:
    if not rows.delete_login_token(token.token_id):
        return False
    rows.insert(session)
    return True


def await_all(deferreds: Sequence[Deferred[TokenPair]]) -> Deferred[list[TokenPair]]:
    """Wait for all; return the pairs without their remaining lifetimes."""
    return gatherResults(deferreds, consumeErrors=True).addCallback(
        lambda pairs: [pair._replace(expires_in_ms=None) for pair in pairs]
    )


class BatchTests(PostgreSQLCase):
    """Tests of how work shares transactions."""

    def transactions(self) -> int:
        """Count the transactions that wrote the rows last."""
        ((number,),) = self.query("SELECT count(DISTINCT xmin::text) FROM synapse_login_sessions")
        return cast(int, number)

    async def refresh_all(self, store: ITokenStore, count: int) -> None:
        """Begin ``count`` sessions, and refresh them all at once."""
        pairs = await self.many(store, count)
        await gatherResults(
            [testing.refresh(store, refresh_token(each), None, True) for each in pairs]
        )

    async def test_many_in_one(self) -> None:
        """Refreshes that come together are committed together."""
        await self.refresh_all(self.open(connections=1), 100)
        self.assertEqual(self.transactions(), 1)

    async def test_bounded(self) -> None:
        """A transaction never has more pieces of work than ``batch``, down to one."""
        await self.refresh_all(self.open(connections=2, batch=1), 30)
        self.assertEqual(self.transactions(), 30)

    async def test_bad_neighbour(self) -> None:
        """Values that the database rejects fail alone, without the others in the batch."""
        store = self.open(connections=1)
        pairs = await self.many(store, 10)
        asked = [testing.refresh(store, refresh_token(each), None, True) for each in pairs]
        for user_id in ("@a\0b:example.com", "@\ud800:example.com"):
            bad = store.issue(user_id, None, None, True, True)
            self.assertIn("invalid byte sequence", await self.unavailable(bad))
        await gatherResults(asked)

    async def test_connections(self) -> None:
        """No more connections are opened than allowed, and they stay open."""
        store = self.open(connections=3, batch=1)
        for _ in range(5):
            await self.refresh_all(store, 20)
            self.assertLessEqual(self.connections(), 3)
        self.assertGreater(self.connections(), 0)

    def connections(self) -> int:
        """Count the connections of the stores."""
        ((number,),) = self.query(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'synapse-login'"
        )
        return cast(int, number)

    async def test_much_at_once(self) -> None:
        """A statement that does not fit into the socket's buffer is sent as there is room."""
        store = self.open()
        name = "x" * 8_000_000
        await store.issue(ALICE, "PHONE", name, True, True)
        (session,) = await store.sessions(ALICE)
        self.assertEqual(session.display_name, name)

    async def test_odd_texts(self) -> None:
        """Texts are read as they were written."""
        store = self.open()
        for user_id in ("@a'b\"c\\d{e},f:example.com", "@é\U0001f916%s$1:example.com", "NULL"):
            login = await store.issue(user_id, "{}", "NULL", True, True)
            session = await store.session_for_access_token(login.tokens.access_token, False)
            self.assertEqual((session.user_id, session.device_id), (user_id, "{}"))
            self.assertEqual(session.display_name, "NULL")

    async def test_deadlock(self) -> None:
        """When PostgreSQL cancels the store's transaction for a deadlock, the store retries it."""
        self.query("ALTER DATABASE stores SET deadlock_timeout = '50ms'")
        store = self.open(connections=1)
        pairs = await self.many(store, 2)
        ids = [
            number
            for (number,) in self.query(
                "SELECT session_id FROM synapse_login_sessions ORDER BY session_id"
            )
        ]
        touch = "UPDATE synapse_login_sessions SET display_name = 'x' WHERE session_id = %s"
        with self.server.connect("stores") as other:
            other.execute("SET deadlock_timeout = '1h'")
            other.execute("BEGIN")
            other.execute(touch, [ids[1]])
            asked = [testing.refresh(store, refresh_token(each), None, True) for each in pairs]
            await until(lambda: self.query("SELECT 1 FROM pg_locks WHERE NOT granted"))
            touching = other.pgconn
            touching.send_query(b"%b" % (touch % ids[0]).encode())
            await until(lambda: (touching.consume_input(), not touching.is_busy())[1])
            while touching.get_result() is not None:
                pass
            other.execute("COMMIT")
        await gatherResults(asked)
        self.assertEqual(
            self.query("SELECT DISTINCT generation, display_name FROM synapse_login_sessions"),
            [(1, "x")],
        )


class OutageTests(PostgreSQLCase):
    """Tests with a server of their own, which fails in every way."""

    def make_server(self) -> PostgreSQL:
        server = PostgreSQL()
        self.addCleanup(server.remove)
        return server

    async def refresh(self, store: ITokenStore, pair: TokenPair) -> TokenPair:
        """A strict refresh."""
        return await testing.refresh(store, refresh_token(pair), pair.access_token, True)

    async def test_restart(self) -> None:
        """Refreshes during a restart wait for its end; none is lost or done twice."""
        store = self.open(timeout="30s")
        pairs = await self.many(store, 20)
        stopping = False

        async def go_on(pair: TokenPair) -> int:
            rounds = after = 0
            while after < 5:
                pair = await self.refresh(store, pair)
                rounds += 1
                after += stopping
            return rounds

        load = gatherResults([Deferred.fromCoroutine(go_on(each)) for each in pairs])
        await deferLater(reactor, 0.1)
        for end in (self.server.stop, self.server.kill):
            end()
            await deferLater(reactor, 0.05)
            self.server.start()
            await deferLater(reactor, 0.1)
        stopping = True
        rounds = await load
        generations = self.query("SELECT sum(generation)::int FROM synapse_login_sessions")
        self.assertEqual(generations, [(sum(rounds),)])

    async def test_down(self) -> None:
        """While the server is down every request fails in time; then requests succeed."""
        store = self.open(timeout=300)
        pair = (await self.issue(store)).tokens
        self.server.stop()
        for _ in range(3):
            problem = await self.unavailable(store.ping())
            self.assertEqual(problem, "the database did not answer in 0.3 seconds")
        self.server.start()
        await self.until_reached(store)
        await self.refresh(store, pair)

    async def until_reached(self, store: ITokenStore) -> None:
        """Send a request until it succeeds."""
        deadline = reactor.seconds() + TIMEOUT
        while reactor.seconds() < deadline:
            try:
                await store.ping()
            except StoreUnavailable:
                continue
            return
        self.fail("it stays away")

    async def test_held(self) -> None:
        """While the server hangs, requests fail within their timeout, and beyond the queue at once.

        Requests succeed again once the server goes on.
        """
        store = self.open(timeout=500, connections=2, queue=20)
        pairs = await self.many(store, 5)
        self.server.hold()
        self.addCleanup(self.server.release)
        for _ in range(3):
            asked = [store.link_of(ALICE) for _ in range(200)]
            refused = sum(each.called for each in asked)
            self.assertGreaterEqual(refused, 200 - 20)
            problems = {await self.unavailable(each) for each in asked}
            self.assertIn("the database did not answer in 0.5 seconds", problems)
            self.assertLessEqual(len(store._postgresql._waiting), 20)
        self.server.release()
        await self.until_reached(store)
        await gatherResults([_refresh(store, each) for each in pairs])

    async def test_held_connections(self) -> None:
        """Once one connection does not answer, the idle connections are not tried one by one."""
        store = self.open(timeout=500, connections=3, batch=1)
        await self.many(store, 10)
        await until(lambda: len(store._postgresql._idle) == 3)
        idle = set(self.server.backends())
        self.assertEqual(len(idle), 3)
        self.server.hold()
        self.addCleanup(self.server.release)
        await self.unavailable(store.ping())
        # The request times out before its connection does. An answer in between keeps that.
        await until(lambda: not store._postgresql._idle)
        self.server.release()
        # Another one may have been opened since, for the keys that are read now and then.
        await until(lambda: not idle & set(self.server.backends()))

    async def test_dead_backend(self) -> None:
        """Killing a backend breaks every connection, and loses no session."""
        store = self.open(timeout="30s")
        pairs = await self.many(store, 10)
        for pid in self.server.backends():
            os.kill(pid, signal.SIGKILL)
            break
        await gatherResults([_refresh(store, each) for each in pairs])

    async def test_cut_while_idle(self) -> None:
        """Requests succeed after a connection was cut while it was idle."""
        store = self.open()
        pairs = await self.many(store, 10)
        for pid in self.server.backends():
            self.server.query("SELECT pg_terminate_backend(%s)", [pid])
        await until(lambda: not self.server.backends())
        await gatherResults([_refresh(store, each) for each in pairs])

    def behind_proxy(self) -> tuple[CuttingProxy, ITokenStore]:
        """Make a store whose connections can be cut after a commit, behind a proxy."""
        proxy = CuttingProxy(self.server.port)
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.close()))
        self.open()  # makes the tables, so that the proxied store does not block for that
        dsn = self.dsn.replace(str(self.server.port), str(proxy.port))
        parsed = PostgreSQLTokenStore.parse_config({"dsn": dsn, "timeout": "30s"}, Path())
        self.patch(sys.modules[PostgreSQLTokenStore.__module__], "_prepare", lambda *given: None)
        environment = testing.environment(reactor=reactor, clock=self.clock)
        store = PostgreSQLTokenStore(parsed, replace(environment, keys=KEYS))
        store.startService()
        self.addCleanup(store.stopService)
        return proxy, store

    async def test_cut_after_the_commit(self) -> None:
        """When the response to a commit is lost, the store finds out whether it was made.

        The client gets the pair that was written, on either path.
        """
        proxy, store = self.behind_proxy()
        for strict in (True, False):
            pairs = await self.many(store, 10)
            proxy.cuts += 1
            made = proxy.made
            asked = [testing.refresh(store, refresh_token(each), None, strict) for each in pairs]
            new = await gatherResults(asked)
            self.assertEqual(proxy.made, made + 1)
            await gatherResults([_refresh(store, each) for each in new])
        self.assertEqual(
            self.query("SELECT DISTINCT generation FROM synapse_login_sessions"), [(2,)]
        )

    async def test_cut_after_the_commit_of_logins(self) -> None:
        """A login whose connection is cut begins one session, and the client gets its tokens."""
        proxy, store = self.behind_proxy()
        await self.many(store, 1)
        proxy.writes = b"INSERT INTO synapse_login_sessions"
        proxy.cuts += 1
        made = proxy.made
        pairs = await self.many(store, 10)
        self.assertEqual(proxy.made, made + 1)
        self.assertEqual(self.query("SELECT count(*) FROM synapse_login_sessions"), [(11,)])
        await gatherResults([_refresh(store, each) for each in pairs])

    async def test_no_primary_any_more(self) -> None:
        """A server that turned read-only is disconnected, and tried again later.

        Its rows are not trusted, because they may be out of date.
        """
        store = self.open(timeout="30s", connections=3)
        pair, *others = await self.many(store, 3)
        self.server.take_writes(False)
        asked: list[Deferred[Any]] = [
            store.ping(),
            Deferred.fromCoroutine(self.refresh(store, pair)),
            *(store.session_for_access_token(each.access_token, False) for each in others),
        ]
        await deferLater(reactor, 0.3)
        self.assertEqual([each.called for each in asked], [False] * 4)
        self.server.take_writes(True)
        await gatherResults(asked)

    async def test_tables_gone(self) -> None:
        """A database without its tables is an outage whose error says why."""
        store = self.open()
        self.query("DROP TABLE synapse_login_sessions")
        self.assertIn("does not exist", await self.unavailable(store.ping()))

    async def test_stop(self) -> None:
        """Stopping finishes the waiting requests and closes the connections. Later ones fail."""
        store = self.build(connections=2)
        store.startService()
        await store.share_token_keys()
        asked = [_issue(store) for _ in range(50)]
        await maybeDeferred(store.stopService)
        self.assertEqual(len(await gatherResults(asked)), 50)
        await until(lambda: not self.server.backends())
        self.assertEqual(await self.unavailable(store.ping()), "the store is closed")
        await maybeDeferred(store.stopService)

    async def test_stop_while_down(self) -> None:
        """Stopping takes no longer than the timeout of the requests."""
        store = self.build(timeout=300)
        store.startService()
        await store.ping()
        self.server.stop()
        asked = store.link_of(ALICE)
        await maybeDeferred(store.stopService)
        self.assertIn("did not answer", await self.unavailable(asked))

    async def test_lost_at_once(self) -> None:
        """A connection that is lost before its first use is replaced."""
        made: list[Any] = []

        def connect() -> Any:
            made.append(self.server.connect("stores"))
            if len(made) == 1:
                made[0].close()
            return made[-1]

        self.build()
        database = PostgreSQLDatabase(connect, reactor, PoolLimits(1, 10, 10, TIMEOUT))
        self.addCleanup(database.stop)
        self.assertIsNone(await database.run(lambda rows: rows.session(1)))
        self.assertEqual(len(made), 2)

    def test_no_answer(self) -> None:
        """A connection that does not open in time is closed, even while its error is referenced."""
        gc.disable()
        self.addCleanup(gc.enable)
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            port = deaf.getsockname()[1]
            dsn = f"host=127.0.0.1 port={port} connect_timeout=2"
            config = PostgreSQLTokenStore.parse_config({"dsn": dsn}, self.folder)
            with self.assertRaises(Exception) as raised:
                config.connect()
            peer, _ = deaf.accept()
            with peer:
                peer.settimeout(5)
                while peer.recv(1000):
                    pass
        self.assertIn("timeout", str(raised.exception))

    def test_unreachable_at_the_start(self) -> None:
        """A server that is down fails the start, with one line that shows no password."""
        self.server.stop()
        with self.assertRaises(ConfigError) as raised:
            self.build(f"{self.dsn} password=swordfish")
        problem = str(raised.exception)
        self.assertTrue(problem.startswith("dsn: cannot use the database: "), problem)
        self.assertIn("Connection refused", problem)
        self.assertNotIn("swordfish", problem)


def _refresh(store: ITokenStore, pair: TokenPair) -> Deferred[TokenPair]:
    return testing.refresh(store, refresh_token(pair), None, True)


class AccessTests(PostgreSQLCase):
    """Tests of passwords, certificates and privileges."""

    def make_server(self) -> PostgreSQL:
        server = PostgreSQL()
        self.addCleanup(server.remove)
        return server

    def setUp(self) -> None:
        super().setUp()
        self.folder = temporary_folder(self)

    def make_role(self, grants: str = "") -> str:
        """Make a role with a password and no rights; return its connection string."""
        self.query("CREATE ROLE service LOGIN PASSWORD 'swordfish'")
        self.query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        if grants:
            self.query(grants)
        return self.dsn.replace("user=postgres", "user=service")

    def problem(self, dsn: str, **config: Any) -> str:
        """Return the error of building a store."""
        with self.assertRaises(ConfigError) as raised:
            self.build(dsn, **config)
        problem = str(raised.exception)
        self.assertNotIn("\n", problem)
        self.assertNotIn("swordfish", problem)
        return problem

    async def test_password_file(self) -> None:
        """With SCRAM and a password file, the file is read for each connection."""
        dsn = self.make_role("CREATE SCHEMA service AUTHORIZATION service")
        self.server.ask_password("service")
        password = self.folder / "password"
        for wrong in ("wrong\n", "swordfishes\n"):
            password.write_text(wrong)
            self.assertIn(
                "password authentication failed", self.problem(dsn, password_file="password")
            )
        password.write_text("swordfish\n")
        store = self.open(dsn, password_file="password", timeout="30s")
        await self.issue(store)
        self.query("ALTER ROLE service PASSWORD 'haddock'")
        password.write_text("haddock\n")
        for pid in self.server.backends():
            self.server.query("SELECT pg_terminate_backend(%s)", [pid])
        await self.issue(store)

    async def test_certificates(self) -> None:
        """A certificate of another authority or for another host is rejected.

        A good one is accepted. The authority's certificate is found beside the configuration.
        """
        authority = Authority()
        authority.write(self.folder / "ca.pem")
        Authority("Somebody else").write(self.folder / "other.pem")
        for hosts, trusted, problem in (
            (["127.0.0.1"], "other.pem", "certificate verify failed"),
            (["elsewhere.example"], "ca.pem", "does not match host name"),
            (["127.0.0.1"], "ca.pem", None),
        ):
            self.server.use_certificate(authority.sign(*hosts))
            dsn = f"{self.dsn} sslmode=verify-full sslrootcert={trusted}"
            if problem is not None:
                self.assertIn(problem, self.problem(dsn))
                continue
            store = self.open(dsn)
            pairs = await self.many(store, 100)
            await gatherResults([_refresh(store, each) for each in pairs])
            await store.issue(ALICE, "PHONE", "x" * 1_000_000, True, True)
            ((encrypted,),) = self.query(
                "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                " WHERE application_name = 'synapse-login'"
            )
            self.assertIs(encrypted, True)

    def test_unverified(self) -> None:
        """It warns of a server on another machine whose certificate is not checked."""
        far = PostgreSQLTokenStore.parse_config({"dsn": "host=db.example.com"}, self.folder)
        near = PostgreSQLTokenStore.parse_config({"dsn": self.dsn}, self.folder)
        environment = replace(testing.environment(reactor=reactor), keys=KEYS)
        for parsed, warnings in (
            (near, []),
            (
                replace(far, connect=near.connect),
                [
                    "token_store: anyone in between can pose as db.example.com: set"
                    " sslmode=verify-full in dsn"
                ],
            ),
        ):
            with capturedLogs() as events:
                PostgreSQLTokenStore(parsed, environment)
            self.assertEqual([formatEvent(event) for event in events], warnings)

    async def test_own_schema(self) -> None:
        """A role that owns a schema of its name, and has no other right, is enough."""
        dsn = self.make_role("CREATE SCHEMA service AUTHORIZATION service")
        await self.issue(self.open(dsn))
        self.assertEqual(
            self.query("SELECT DISTINCT schemaname FROM pg_tables WHERE tableowner = 'service'"),
            [("service",)],
        )

    async def test_rows_alone(self) -> None:
        """Where the tables exist, a role that may read and write rows is enough."""
        self.build()
        dsn = self.make_role(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO service"
        )
        store = self.open(dsn)
        await _refresh(store, (await self.issue(store)).tokens)

    def test_not_all_rows(self) -> None:
        """A missing right to a table, such as a new one, fails the start with one line."""
        self.build()
        dsn = self.make_role(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO service"
        )
        self.build(dsn)
        for table in (
            "synapse_login_limits",
            "synapse_login_links",
            "synapse_login_device_notes",
            "synapse_login_name_reservations",
        ):
            self.query(f"REVOKE UPDATE ON {table} FROM service")
            self.assertEqual(self.problem(dsn), f"dsn: this role may not UPDATE rows of {table}")
            self.query(f"GRANT UPDATE ON {table} TO service")
        self.build(dsn)

    def test_nothing_allowed(self) -> None:
        """Where the tables do not exist and may not be created, the start fails with one line."""
        self.assertEqual(
            self.problem(self.make_role()),
            "dsn: the tables are not there, or of an older version, and this role may not make"
            " them: permission denied for schema public",
        )


class SchemaTests(PostgreSQLCase):
    """Tests of migrating from one version of the schema to the next."""

    first = ("CREATE TABLE things (name TEXT)", "INSERT INTO things VALUES ('old')")
    second = (
        "ALTER TABLE things ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'",
        "INSERT INTO things VALUES ('new', 'red')",
    )

    def migrate(self, *migrations: Migration) -> None:
        """Migrate the database."""
        with self.server.connect("stores") as connection:
            migrate(connection, migrations)

    def state(self) -> tuple[int, list[Any]]:
        """Return the version of the database, and the rows of its table."""
        ((version,),) = self.query("SELECT version FROM synapse_login_schema")
        return version, self.query("SELECT * FROM things")

    def test_new(self) -> None:
        """A new database goes through every migration, in order."""
        self.migrate(self.first, self.second)
        self.assertEqual(self.state(), (2, [("old", "grey"), ("new", "red")]))

    def test_older(self) -> None:
        """An older database goes through the migrations that it lacks, once."""
        self.migrate(self.first)
        self.assertEqual(self.state(), (1, [("old",)]))
        for _ in range(2):
            self.migrate(self.first, self.second)
            self.assertEqual(self.state(), (2, [("old", "grey"), ("new", "red")]))

    def test_broken_step(self) -> None:
        """A migration that fails leaves the database unchanged."""
        self.migrate(self.first)
        for broken in ("nonsense", "INSERT INTO nowhere VALUES (1)"):
            with self.assertRaisesRegex(Exception, "nonsense|nowhere"):
                self.migrate(self.first, (*self.second, broken))
            self.assertEqual(self.state(), (1, [("old",)]))

    def test_newer(self) -> None:
        """A newer database is rejected, naming both versions, and left as it is."""
        self.migrate(self.first, self.second)
        with self.assertRaises(ConfigError) as raised:
            self.migrate(self.first)
        problem = "dsn: the schema is version 2; this program knows 1"
        self.assertEqual(str(raised.exception), problem)
        self.assertEqual(self.state(), (2, [("old", "grey"), ("new", "red")]))

    def test_eight_at_once(self) -> None:
        """Of eight processes that start at once one creates the tables, and all start."""
        start = (
            "import sys; from pathlib import Path; from synapse_login_module import testing;"
            " from synapse_login_module.stores import PostgreSQLTokenStore as Store;"
            " config = Store.parse_config({'dsn': sys.argv[1], 'timeout': '60s'}, Path());"
            " print('ready', flush=True); sys.stdin.read();"
            " Store(config, testing.environment())"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", start, self.dsn],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for _ in range(8)
        ]
        for each in processes:
            assert each.stdout is not None
            each.stdout.readline()
        for each in processes:
            assert each.stdin is not None
            each.stdin.close()
            each.stdin = None
        said = [each.communicate(timeout=TIMEOUT)[1] for each in processes]
        self.assertEqual([each.returncode for each in processes], [0] * 8, said)
        self.assertEqual(
            self.query("SELECT version FROM synapse_login_schema"), [(len(MIGRATIONS),)]
        )


class ConfigTests(SynchronousTestCase):
    """Tests of its configuration, which connect to no database."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        (self.folder / "password").write_text("swordfish\n")

    def problem(self, **config: Any) -> str:
        """Check that a configuration is invalid; return the error, which is one line."""
        with self.assertRaises(ConfigError) as raised:
            PostgreSQLTokenStore.parse_config({"dsn": "dbname=x", **config}, self.folder)
        problem = str(raised.exception)
        self.assertNotIn("\n", problem)
        self.assertNotIn("swordfish", problem)
        return problem

    def test_interfaces(self) -> None:
        """The store is a plugin and a service, and has a name beside the other stores."""
        self.assertTrue(IPluginClass.providedBy(PostgreSQLTokenStore))
        self.assertTrue(IService.implementedBy(PostgreSQLTokenStore))
        self.assertIs(stores.PostgreSQLTokenStore, PostgreSQLTokenStore)
        self.assertRaises(AttributeError, lambda: stores.NoSuchStore)

    def test_good(self) -> None:
        """A connection string of either form is enough."""
        for dsn in ("host=db.example.com dbname=x", "postgresql://login@db.example.com/x"):
            parsed = PostgreSQLTokenStore.parse_config({"dsn": dsn}, self.folder)
            self.assertEqual(parsed.pool_limits.timeout, 5.0)
        PostgreSQLTokenStore.parse_config(
            {
                "dsn": "dbname=x",
                "password_file": "password",
                "connections": 2,
                "batch": 1,
                "queue": 10,
                "timeout": "2s",
            },
            self.folder,
        )

    def test_connection_string(self) -> None:
        """A malformed connection string is rejected, and not quoted."""
        for dsn in ("swordfish", "swordfish=1", "dbname='x swordfish"):
            self.assertEqual(self.problem(dsn=dsn), "dsn: not a PostgreSQL connection string")
        # libpq takes what follows the first @ for the host.
        problem = self.problem(dsn="postgresql://user:p@swordfish@localhost/db")
        self.assertEqual(problem, "dsn: an @ in the user or the password must be written as %40")

    def test_password_file(self) -> None:
        """The password file must exist and hold a password, and excludes another password."""
        self.assertEqual(
            self.problem(dsn="password=swordfish", password_file="password"),
            "password_file: dsn holds a password already",
        )
        self.assertIn("No such file", self.problem(password_file="missing"))
        for content in (b"", b"\nsecret\n", b"a\0b"):
            (self.folder / "odd").write_bytes(content)
            self.assertIn("no password in its first line", self.problem(password_file="odd"))
        (self.folder / "odd").write_bytes(b"\xff\n")
        self.assertIn("not UTF-8", self.problem(password_file="odd"))

    def test_numbers(self) -> None:
        """Limits are positive whole numbers."""
        for key in ("connections", "batch", "queue", "timeout"):
            for value in (0, -1, "x"):
                self.assertTrue(self.problem(**{key: value}).startswith(f"{key}: "))

    def test_keys(self) -> None:
        """It has no other key."""
        self.assertEqual(
            self.problem(password="swordfish"), "password: unknown key: did you mean password_file?"
        )

    def test_no_driver(self) -> None:
        """Without psycopg the error says what to install."""
        self.patch(sys, "modules", {**sys.modules, "psycopg": None})
        self.assertIn("[postgres]", self.problem())
