"""Tests for links in PostgreSQL: their cost, and two servers that share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.errors import AccountNotLinked, UnknownToken
from synapse_login_module.model import Claim, Link, Login, Session
from synapse_login_module.stores.linking import linked_login
from synapse_login_module.stores.postgresql.connection import PipelineConnection, Statement
from synapse_login_module.stores.postgresql.operations import Insert, LinksKey, OwnerKey
from synapse_login_module.stores.postgresql.optimistic import execute_on
from synapse_login_module.stores.postgresql.schema import MIGRATIONS, migrate
from synapse_login_module.stores.postgresql.statements import Fetch, Store
from synapse_login_module.stores.rows import Rows
from tests.stores import test_postgresql
from tests.stores.test_postgresql import ALICE, OneByOneRows, reactor, refresh_token
from tests.support.postgresql import shared_postgresql
from tests.support.stores import start_in_postgresql
from tests.support.waiting import until

BOB = "@bob:example.com"
FIRST = Claim(("ldap",), "first")
LINK = Link(ALICE, "ldap", "first")


def log_in(store: Any, claim: Claim = FIRST, user_id: str = ALICE) -> Deferred[Login]:
    """Log in with this account."""
    asked: Deferred[Login] = store.issue(user_id, None, None, True, True, claim=claim)
    return asked


class RoundTripCase(test_postgresql.PostgreSQLCase):
    """Counts round trips.

    :ivar asked: the statements of each.
    """

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[Sequence[Statement]] = []
        run = PipelineConnection.run

        def counted(connection: PipelineConnection, statements: Sequence[Statement]) -> Any:
            self.asked.append(statements[1:])
            return run(connection, statements)

        self.patch(PipelineConnection, "run", counted)

    async def cost(self, asked: Deferred[Any]) -> tuple[int, Any]:
        """Count the round trips of a request; return their number and its result."""
        before = len(self.asked)
        result = await asked
        return len(self.asked) - before, result


class RoundTripTests(RoundTripCase):
    """Tests of the number of round trips."""

    async def test_login(self) -> None:
        """Every login, even the first, makes one write and no read, as one without links."""
        store = self.open(connections=1)
        await store.share_token_keys()
        self.assertEqual((await self.cost(store.issue(ALICE, None, None, True, True)))[0], 1)
        for _ in range(2):
            self.assertEqual((await self.cost(log_in(store)))[0], 1)
        self.assertEqual(await store.links(), [LINK])

    async def test_otherwise_linked(self) -> None:
        """The link is read when the account has another user ID, or the user ID another account."""
        store = self.open(connections=1)
        await log_in(store)
        cost, login = await self.cost(log_in(store, FIRST, BOB))
        self.assertEqual((cost, login.user_id), (3, ALICE))
        asked = log_in(store, Claim(("ldap",), "second"))
        self.assertEqual((await self.cost(self.assertFailure(asked, AccountNotLinked)))[0], 2)
        self.assertEqual(await store.links(), [LINK])

    async def test_former_name(self) -> None:
        """An account that is linked under a former name of its provider gets no second link."""
        store = self.open(connections=1)
        await log_in(store)
        renamed = Claim(("directory", "ldap"), "first")
        for user_id in (ALICE, BOB):
            self.assertEqual((await log_in(store, renamed, user_id)).user_id, ALICE)
        self.assertEqual(await store.links(), [LINK])

    async def test_number_taken(self) -> None:
        """A login that draws the number of an existing session draws again, and ends no session."""
        clock = Clock()
        clock.advance(1000)
        drawn = [b"\0\0\0\2", b"\0\0\0\2", b"\0\0\0\4"]

        def random(size: int) -> bytes:
            return drawn.pop(0) if size == 4 else b"x" * size

        environment = replace(testing.environment(reactor=reactor, clock=clock), random=random)
        store = start_in_postgresql(self, environment, self.dsn, connections=1)
        for user_id in (ALICE, BOB):
            await store.issue(user_id, None, None, True, True)
        self.assertEqual(drawn, [])
        found = [session.user_id for session in await store.sessions(None)]
        self.assertEqual(found, [ALICE, BOB])

    async def test_login_token(self) -> None:
        """A login token and the new session's number are read in one round trip."""
        store = self.open(connections=1)
        token = (await store.make_login_token(ALICE)).token
        asked = store.issue(ALICE, None, None, True, True, token)
        self.assertEqual((await self.cost(asked))[0], 2)

    async def test_refresh(self) -> None:
        """A refresh reads its session and the link in one round trip; the next is one statement."""
        first, second = self.open(connections=1), self.open(connections=1)
        await second.share_token_keys()
        pair = (await log_in(first)).tokens
        read, presented = await self.cost(second.present(refresh_token(pair)))
        self.assertEqual((read, presented.session.link), (1, LINK))
        self.assertEqual(len(self.asked[-1]), 1)
        for _ in range(2):
            written, pair = await self.cost(
                testing.refresh(second, refresh_token(pair), None, True)
            )
            self.assertEqual(written, 1)
            self.assertEqual(len(self.asked[-1]), 1)
            self.assertEqual((await self.cost(second.present(refresh_token(pair))))[0], 0)

    async def test_many_logins(self) -> None:
        """Concurrent logins are written in one transaction."""
        store = self.open(connections=1)
        await store.share_token_keys()
        users = [f"@user{number}:example.com" for number in range(50)]
        claims = [Claim(("ldap",), user) for user in users]
        asked = gatherResults(map(log_in, [store] * 50, claims, users))
        self.assertEqual((await self.cost(asked))[0], 1)
        self.assertEqual(len(await store.links()), 50)


class LinkRaceTests(test_postgresql.PostgreSQLCase):
    """Tests of two stores on one database, like two processes."""

    def setUp(self) -> None:
        super().setUp()
        self.first, self.second = self.open(), self.open()

    async def at_once(self, *asked: Deferred[Any]) -> list[type | None]:
        """Return ``None`` for each success, and the class of the error otherwise."""
        results = await DeferredList(asked, consumeErrors=True)
        return [None if good else result.type for good, result in results]

    async def test_two_accounts(self) -> None:
        """Of first logins of two accounts of one name, one at each server, one succeeds."""
        for number in range(20):
            user_id = f"@user{number}:example.com"
            claims = [Claim(("ldap",), f"{name} {number}") for name in ("first", "second")]
            outcomes = await self.at_once(
                log_in(self.first, claims[0], user_id), log_in(self.second, claims[1], user_id)
            )
            self.assertEqual(set(outcomes), {None, AccountNotLinked})
            winner = claims[outcomes.index(None)]
            self.assertEqual(await self.first.linked_user(winner), user_id)
            self.assertEqual(len(await self.second.sessions(user_id)), 1)

    async def test_one_account(self) -> None:
        """First logins of one account at both servers, under two names, log in as one user."""
        for number in range(20):
            claim = Claim(("ldap",), str(number))
            names = f"@a{number}:example.com", f"@b{number}:example.com"
            logins = await gatherResults(
                [log_in(self.first, claim, names[0]), log_in(self.second, claim, names[1])]
            )
            self.assertEqual(
                {each.user_id for each in logins}, {await self.first.linked_user(claim)}
            )

    async def test_serialisable(self) -> None:
        """The same holds where every transaction is serializable."""
        self.query("ALTER DATABASE stores SET default_transaction_isolation = 'serializable'")
        self.first, self.second = self.open(), self.open()
        await self.test_two_accounts()
        await self.test_one_account()

    async def test_many_in_opposite_orders(self) -> None:
        """Servers that link the same users in opposite orders do not block each other for long."""
        users = [f"@user{number:02}:example.com" for number in range(40)]
        claims = [Claim(("ldap",), user) for user in users]
        outcomes = await self.at_once(
            *map(log_in, [self.first] * 40, claims, users),
            *map(log_in, [self.second] * 40, reversed(claims), reversed(users)),
        )
        self.assertEqual(set(outcomes), {None})
        self.assertEqual(len(await self.first.links()), 40)

    async def test_two_changes(self) -> None:
        """Of two concurrent changes of one link, each is atomic, and one link is left."""
        for _ in range(10):
            await log_in(self.first, FIRST, (await self.first.linked_user(FIRST)) or ALICE)
            outcomes = await self.at_once(
                self.first.link(Link(ALICE, "ldap", "second"), True),
                self.second.link(Link(ALICE, "ldap", "third"), True),
            )
            self.assertEqual(outcomes, [None, None])
            self.assertEqual(len(await self.first.links()), 1)
            unlinked = await gatherResults([self.first.unlink(ALICE), self.second.unlink(ALICE)])
            self.assertEqual(sorted(map(bool, unlinked)), [False, True])

    async def test_relink_meanwhile(self) -> None:
        """A login begins no session when the link that it read is changed before it writes."""
        await log_in(self.first)
        with self.server.connect("stores") as other, other.transaction():
            other.execute("UPDATE synapse_login_links SET subject = 'second'")
            asked = log_in(self.second)
            await until(lambda: self.query("SELECT 1 FROM pg_locks WHERE NOT granted"))
            other.execute("DELETE FROM synapse_login_sessions")
        with self.assertRaises(AccountNotLinked):
            await asked
        self.assertEqual(await self.first.sessions(None), [])

    async def test_login_meanwhile(self) -> None:
        """Changing a link waits for a login that is being written, and then ends its session."""
        await self.issue(self.first, "PHONE")
        await self.second.share_token_keys()
        await log_in(self.first)
        await self.second.share_token_keys()
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
        with self.server.connect("stores") as other, other.transaction():
            other.execute(
                "SELECT 1 FROM synapse_login_sessions WHERE device_id = 'PHONE' FOR UPDATE"
            )
            asked = self.second.issue(ALICE, "PHONE", None, True, True, claim=FIRST)
            await until(lambda: self.query(waiting))
            changing = self.first.link(Link(ALICE, "ldap", "second"), True)
            await until(lambda: len(self.query(waiting)) > 1)
            self.assertEqual((asked.called, changing.called), (False, False))
        login = await asked
        await changing
        self.assertEqual(await self.first.revoke_all(ALICE), 2)
        with self.assertRaises(UnknownToken):
            await self.second.session_for_access_token(login.tokens.access_token, True)


class LinkStatementTests(SynchronousTestCase):
    """Tests of the statements themselves."""

    def setUp(self) -> None:
        shared_postgresql().new_database("links")
        self.connection = shared_postgresql().connect("links")
        self.addCleanup(self.connection.close)
        migrate(self.connection)
        self.rows = OneByOneRows(self.connection)

    def test_gone_meanwhile(self) -> None:
        """A write that relies on links is not made when they have changed since they were read."""
        session = Session(7, ALICE, "PHONE", None, b"s" * 16, 1, 0, True, 1, 1, None, None)
        self.assertFalse(self.written(Insert(session, link=LINK)))
        self.rows.insert_link(Link(BOB, "ldap", "first"), 0, ())
        self.assertFalse(self.written(Insert(session, link=LINK, new=True)))
        self.assertFalse(self.written(Insert(session, link=LINK)))
        self.assertEqual(self.rows.page(None, 0, 9), [])
        self.rows.delete_link(Link(BOB, "ldap", "first"))
        self.assertTrue(self.written(Insert(session, link=LINK, new=True)))

    def written(self, write: Insert) -> bool:
        """Return whether a session was written."""
        store = Store([write])
        (written,) = store.written(self.rows._run(store.statements))
        return written

    def test_moment(self) -> None:
        """A link has the time of its user's first session."""
        session = Session(7, ALICE, "PHONE", None, b"s" * 16, 1, 0, True, 1234, 1, None, None)
        self.rows.insert(session, LINK, new=True)
        found = self.connection.execute(
            "SELECT user_id, provider, subject, linked_at FROM synapse_login_links"
        ).fetchall()
        self.assertEqual(found, [(*LINK, 1234)])

    def test_indexes(self) -> None:
        """A login and a refresh find links by an index, however many links there are."""
        self.connection.execute(
            "INSERT INTO synapse_login_links"
            " SELECT '@user' || i, 'ldap', i::text, 0 FROM generate_series(1, 20000) i"
        )
        self.connection.execute(
            "INSERT INTO synapse_login_sessions SELECT i, 0, 0, 0, NULL, NULL, 1, true, '',"
            " '@user' || i, i::text FROM generate_series(1, 20000) i"
        )
        self.connection.execute("ANALYZE synapse_login_links")
        self.connection.execute("ANALYZE synapse_login_sessions")
        claim = Claim(("ldap", "directory"), "77")
        for key, indexes in (
            (OwnerKey(77), (b"synapse_login_links_pkey", b"synapse_login_sessions_pkey")),
            (
                LinksKey("@user1", claim),
                (b"synapse_login_links_pkey", b"synapse_login_links_by_subject"),
            ),
        ):
            (statement,) = Fetch([key]).statements
            plan = self.plan(statement)
            self.assertNotIn(b"Seq Scan", plan)
            for index in indexes:
                self.assertIn(index, plan)

    def plan(self, statement: Statement) -> bytes:
        """Return the query plan of a statement."""
        (result,) = self.rows._run([Statement(b"EXPLAIN " + statement.sql, statement.values)])
        return b"\n".join(result.get_value(row, 0) or b"" for row in range(result.ntuples))

    def test_read_together(self) -> None:
        """Two reads fetch their absent rows in one round trip, whichever rows are there."""

        def work(rows: Rows) -> object:
            return rows.together(
                lambda: linked_login(ALICE, FIRST, rows.links_of(ALICE, FIRST)),
                lambda: rows.session(7),
            )

        links, session = execute_on(work, {}).absent
        self.assertEqual(links, LinksKey(ALICE, FIRST))
        for found, rest in (({links: []}, (session,)), ({session: None}, (links,))):
            self.assertEqual(execute_on(work, found).absent, rest)
        done = execute_on(work, {links: [LINK], session: None})
        self.assertEqual((done.absent, done.result[0].link), ((), LINK))

    def test_from_the_version_before(self) -> None:
        """A database of the version without links gets the table, and keeps its sessions."""
        shared_postgresql().new_database("links_before")
        with shared_postgresql().connect("links_before") as connection:
            migrate(connection, MIGRATIONS[:2])
            rows = OneByOneRows(connection)
            session = Session(7, ALICE, "PHONE", None, b"s" * 16, 1, 0, True, 1, 1, None, None)
            rows.insert(session)
            migrate(connection)
            self.assertEqual(rows.owner(7), (session, None))
            rows.insert_link(LINK, 0, ())
            self.assertEqual(rows.owner(7), (session, LINK))
