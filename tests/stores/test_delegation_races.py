"""Tests of what several servers that share a store note, lease and begin at the same time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import chain
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults

from synapse_login_module import testing
from synapse_login_module.errors import AccountNotLinked, HomeserverUnavailable
from synapse_login_module.model import Claim, DeviceDeletion, Link, Login, OwedDeletions
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.schema import MIGRATIONS as POSTGRESQL_MIGRATIONS
from synapse_login_module.stores.postgresql.schema import migrate as migrate_postgresql
from tests.stores import test_postgresql, test_stores
from tests.stores.test_postgresql import ALICE, OneByOneRows, refresh_token
from tests.stores.test_postgresql_links import RoundTripCase
from tests.support.waiting import until

FIRST, SECOND = Claim(("ldap",), "first"), Claim(("ldap",), "second")

MINUTE = 60

WAITING = "SELECT 1 FROM pg_locks WHERE NOT granted"
LOCK_NOTES = "SELECT 1 FROM synapse_login_device_notes FOR UPDATE"
CLAIM = (
    "UPDATE synapse_login_device_notes"
    " SET lease = 1, leased_until = due_at + 30000, attempts = attempts + 1"
)


def begin(store: Any, device_id: str = "PHONE", **changes: Any) -> Deferred[Login]:
    """Begin a session on a device that has been reserved."""
    begun: Deferred[Login] = store.issue(ALICE, device_id, None, True, True, **changes)
    return begun


def devices(*leased: list[DeviceDeletion]) -> list[str]:
    """Return the leased devices."""
    return sorted(each.device_id for found in leased for each in found)


class SQLiteRaceTests(test_stores.SQLiteTestCase):
    """Tests of two stores on one file, like two processes."""

    delegated = True

    def setUp(self) -> None:
        super().setUp()
        self.first, self.second = self.open(), self.open()

    def test_login_and_lease(self) -> None:
        """A session never begins on a device that another process has leased."""
        for number in range(20):
            device = f"D{number}"
            self.wait_for(self.first.reserve_device(ALICE, device, True))
            self.clock.advance(MINUTE)
            leased = self.second.lease_deletions(5)
            begun = begin(self.first, device)
            self.calls.wait_for(leased, begun)
            if found := self.successResultOf(leased):
                self.failureResultOf(begun, HomeserverUnavailable)
                self.assertFalse(self.wait_for(self.first.reserve_device(ALICE, device, True)))
                self.wait_for(self.second.finish_deletion(found[0]))
            else:
                self.successResultOf(begun)

    def test_stalled_login(self) -> None:
        """A process that stalls between the two steps of a login begins no session."""
        self.wait_for(self.first.reserve_device(ALICE, "PHONE", True))
        self.clock.advance(MINUTE)
        (deletion,) = self.wait_for(self.second.lease_deletions(5))
        self.wait_for_failure(begin(self.first), HomeserverUnavailable)
        self.assertFalse(self.wait_for(self.first.reserve_device(ALICE, "PHONE", True)))
        self.wait_for(self.second.finish_deletion(deletion))
        self.wait_for_failure(begin(self.first), HomeserverUnavailable)
        self.assertEqual(self.wait_for(self.first.sessions(None)), [])
        self.assertTrue(self.wait_for(self.first.reserve_device(ALICE, "PHONE", True)))
        self.wait_for(begin(self.first))

    def test_two_leases(self) -> None:
        """No device is leased by two processes."""
        for number in range(40):
            self.wait_for(self.first.delete_device(ALICE, f"D{number:02}"))
        asked = [store.lease_deletions(5) for store in (self.first, self.second) * 4]
        self.calls.wait_for(*asked)
        found = devices(*map(self.successResultOf, asked))
        self.assertEqual(found, [f"D{number:02}" for number in range(40)])

    def test_two_names(self) -> None:
        """Of two accounts that reserve a name in two processes, one gets it."""
        for number in range(10):
            user_id = f"@user{number}:example.com"
            asked = [
                store.reserve_name(user_id, claim)
                for store, claim in ((self.first, FIRST), (self.second, SECOND))
            ]
            self.calls.wait_for(*asked)
            results = self.successResultOf(DeferredList(asked, consumeErrors=True))
            self.assertEqual(sorted(good for good, _ in results), [False, True])

    def test_restart(self) -> None:
        """A note outlives the process. The next process finds a lease that has run out."""
        self.wait_for(self.first.reserve_device(ALICE, "PHONE", False))
        self.wait_for(begin(self.first))
        self.wait_for(self.first.revoke_all(ALICE))
        self.assertEqual(len(self.wait_for(self.first.lease_deletions(5))), 1)
        self.close(self.first)
        third = self.open()
        self.assertEqual(self.wait_for(third.lease_deletions(5)), [])
        self.clock.advance(30)
        self.assertEqual(devices(self.wait_for(third.lease_deletions(5))), ["PHONE"])


class OldFileTests(test_stores.SQLiteTestCase):
    """Tests of a file from before there were notes."""

    def test_sessions_of_before(self) -> None:
        """The devices of its sessions are noted when these end."""
        before = self.open()
        self.issue(before, "PHONE")
        before.stopService()
        with closing(sqlite3.connect(self.path)) as connection:
            for table in ("device_notes", "name_reservations", "imported_tokens"):
                connection.execute(f"DROP TABLE {table}")
            connection.execute("PRAGMA user_version = 4")
        self.delegated = True
        store = self.open()
        self.assertEqual(self.wait_for(store.owed_deletions()), OwedDeletions(0, None))
        self.wait_for(store.revoke_all(ALICE))
        self.assertEqual(devices(self.wait_for(store.lease_deletions(5))), ["PHONE"])
        self.wait_for(store.reserve_name(ALICE, FIRST))
        self.assertTrue(self.wait_for(store.has_reserved_name(ALICE, FIRST)))


class PostgreSQLCase(test_postgresql.PostgreSQLCase):
    """Two stores on one database, like two servers."""

    delegated = True

    def setUp(self) -> None:
        super().setUp()
        self.first, self.second = self.open(), self.open()

    async def log_in(self, store: Any, device_id: str = "PHONE", **changes: Any) -> Login:
        """Reserve a device and begin a session."""
        await store.reserve_device(ALICE, device_id, False)
        return await begin(store, device_id, **changes)

    def notes(self) -> list[tuple[str, int]]:
        """Read the devices with notes, and how often their deletion was attempted."""
        return self.query("SELECT device_id, attempts FROM synapse_login_device_notes ORDER BY 1")


class PostgreSQLRaceTests(PostgreSQLCase):
    """Tests of two servers."""

    async def test_login_and_lease(self) -> None:
        """A session never begins on a device that another server has leased."""
        await self.first.share_token_keys()
        for number in range(30):
            device = f"D{number}"
            await self.first.reserve_device(ALICE, device, True)
            self.clock.advance(MINUTE)
            asked: list[Deferred[Any]] = [
                begin(self.first, device),
                self.second.lease_deletions(5),
            ]
            (began, login), (_, leased) = await DeferredList(asked, consumeErrors=True)
            self.assertNotEqual(began, bool(leased))
            if not began:
                login.trap(HomeserverUnavailable)
                self.assertFalse(await self.first.reserve_device(ALICE, device, True))
                await self.second.finish_deletion(leased[0])
            found = await self.first.sessions(None)
            self.assertEqual(device in [each.device_id for each in found], began)

    async def test_serialisable(self) -> None:
        """The same holds where every transaction is serializable."""
        self.query("ALTER DATABASE stores SET default_transaction_isolation = 'serializable'")
        self.first, self.second = self.open(), self.open()
        await self.test_login_and_lease()
        await self.test_two_leases()
        await self.test_two_names()

    async def test_login_during_lease(self) -> None:
        """A login waits for a lease that is being written, and then begins and links nothing."""
        await self.first.share_token_keys()
        token = (await self.first.make_login_token(ALICE)).token
        kinds: list[dict[str, Any]] = [{"claim": FIRST}, {"login_token": token}, {}]
        for changes in kinds:
            await self.first.reserve_device(ALICE, "PHONE", True)
            with self.server.connect("stores") as other, other.transaction():
                other.execute(CLAIM)
                asked = begin(self.first, **changes)
                await until(lambda: self.query(WAITING))
                self.assertFalse(asked.called)
            with self.assertRaises(HomeserverUnavailable):
                await asked
            self.assertEqual(self.notes(), [("PHONE", 1)])
            self.query("DELETE FROM synapse_login_device_notes")
        self.assertEqual(await self.first.sessions(None), [])
        self.assertEqual(await self.first.links(), [])
        self.assertEqual(await self.first.login_token_owner(token), ALICE)

    async def test_reservation_during_lease(self) -> None:
        """A reservation waits for a lease that is being written, and is then refused."""
        await self.first.delete_device(ALICE, "PHONE")
        with self.server.connect("stores") as other, other.transaction():
            other.execute(CLAIM)
            asked = self.first.reserve_device(ALICE, "PHONE", True)
            await until(lambda: self.query(WAITING))
        self.assertFalse(await asked)

    async def test_claim_during_login(self) -> None:
        """A device is not leased while a login on it is being written."""
        await self.first.reserve_device(ALICE, "PHONE", True)
        self.clock.advance(MINUTE)
        with self.server.connect("stores") as other, other.transaction():
            other.execute(LOCK_NOTES)
            self.assertEqual(await self.second.lease_deletions(5), [])
        self.assertEqual(devices(await self.second.lease_deletions(5)), ["PHONE"])

    async def test_claim_during_logout(self) -> None:
        """The note of a session is not removed while the session is being ended."""
        await self.log_in(self.first)
        await self.first.withdraw_device(ALICE, "PHONE", True)
        with self.server.connect("stores") as other, other.transaction():
            other.execute("DELETE FROM synapse_login_sessions")
            other.execute("UPDATE synapse_login_device_notes SET owed = 1")
            self.assertEqual(await self.second.lease_deletions(5), [])
        self.assertEqual(self.notes(), [("PHONE", 0)])
        self.assertEqual(devices(await self.second.lease_deletions(5)), ["PHONE"])

    async def test_refresh_during_lease(self) -> None:
        """A refresh that is being written does not keep the note of its session."""
        await self.log_in(self.first)
        await self.first.withdraw_device(ALICE, "PHONE", True)
        with self.server.connect("stores") as other, other.transaction():
            other.execute("UPDATE synapse_login_sessions SET generation = generation + 1")
            self.assertEqual(await self.second.lease_deletions(5), [])
            self.assertEqual(self.notes(), [])

    async def test_other_changes(self) -> None:
        """A login that conflicts with a link leaves the reservation, and another one uses it."""
        await self.first.link(Link(ALICE, "ldap", "first"), False)
        await self.first.reserve_device(ALICE, "PHONE", False)
        with self.assertRaises(AccountNotLinked):
            await begin(self.first, claim=SECOND)
        self.assertEqual(self.notes(), [("PHONE", 0)])
        await begin(self.first, claim=FIRST)
        self.assertEqual(self.notes(), [])

    async def test_two_leases(self) -> None:
        """No device is leased by two servers, and all are leased in the end."""
        names = [f"D{number:02}" for number in range(40)]
        await gatherResults([self.first.delete_device(ALICE, name) for name in names])
        found: list[DeviceDeletion] = []
        while len(found) < len(names):
            asked: list[Deferred[Any]] = [
                store.lease_deletions(5) for store in (self.first, self.second) * 2
            ]
            leased = list(chain.from_iterable(await gatherResults(asked)))
            self.assertTrue(leased)
            found += leased
        self.assertEqual(devices(found), names)
        await gatherResults(map(self.second.finish_deletion, found))
        self.assertEqual(self.notes(), [])

    async def test_everything_at_once(self) -> None:
        """Logins, logouts and leases of one device at once leave it a session or a deletion."""
        for _ in range(20):
            await self.log_in(self.first)
            (session,) = await self.first.sessions(ALICE)
            await self.second.reserve_device(ALICE, "PHONE", False)
            asked: list[Deferred[Any]] = [
                self.first.revoke(session),
                begin(self.second),
                self.first.lease_deletions(5),
                self.second.delete_device(ALICE, "TABLET"),
            ]
            await gatherResults(asked)
            self.assertEqual(len(await self.first.sessions(ALICE)), 1)
            self.clock.advance(MINUTE)
            self.assertNotIn("PHONE", devices(await self.first.lease_deletions(5)))
            self.query("DELETE FROM synapse_login_device_notes")

    async def test_two_names(self) -> None:
        """Of two accounts that reserve a name at two servers, one gets it."""
        for number in range(20):
            user_id = f"@user{number}:example.com"
            results = await DeferredList(
                [
                    self.first.reserve_name(user_id, FIRST),
                    self.second.reserve_name(user_id, SECOND),
                ],
                consumeErrors=True,
            )
            self.assertEqual(sorted(good for good, _ in results), [False, True])
            winner = FIRST if results[0][0] else SECOND
            self.assertTrue(await self.second.has_reserved_name(user_id, winner))

    async def test_older_schema(self) -> None:
        """The devices of sessions from before there were notes are noted when these end."""
        self.dsn = self.server.new_database("stores")
        with self.server.connect("stores") as connection:
            migrate_postgresql(connection, POSTGRESQL_MIGRATIONS[:-1])
            connection.execute(
                "INSERT INTO synapse_login_sessions VALUES (7, 0, 0, 0, NULL, NULL, 1, true, '',"
                " %s, 'PHONE', NULL)",
                [ALICE],
            )
        store = self.open()
        self.assertEqual(await store.owed_deletions(), OwedDeletions(0, None))
        await store.revoke_all(ALICE)
        self.assertEqual(devices(await store.lease_deletions(5)), ["PHONE"])


class CostTests(RoundTripCase):
    """Tests of what requests cost where a homeserver delegates to the server."""

    delegated = True

    async def test_round_trips(self) -> None:
        """A login makes one more, for the reservation. A refresh and a logout cost as before."""
        store = self.open(connections=1)
        await store.share_token_keys()
        kinds: list[dict[str, Any]] = [{}, {"claim": FIRST}, {"claim": FIRST}]
        for changes in kinds:
            self.assertEqual((await self.cost(store.reserve_device(ALICE, "PHONE", True)))[0], 1)
            cost, login = await self.cost(begin(store, **changes))
            self.assertEqual((cost, len(self.asked[-1])), (1, 1))
        presented = await store.present(refresh_token(login.tokens))
        cost, pair = await self.cost(store.refresh(presented, None, True))
        self.assertEqual((cost, len(self.asked[-1])), (1, 1))
        (_, session) = await self.cost(store.session_for_access_token(pair.access_token, False))
        self.assertEqual((await self.cost(store.revoke(session)))[0], 1)
        self.assertEqual(len(self.asked[-1]), 1)
        cost, (deletion,) = await self.cost(store.lease_deletions(5))
        self.assertEqual(cost, 1)
        self.assertEqual((await self.cost(store.finish_deletion(deletion)))[0], 1)
        token = (await store.make_login_token(ALICE)).token
        await store.reserve_device(ALICE, "PHONE", True)
        self.assertEqual((await self.cost(begin(store, login_token=token)))[0], 2)

    async def test_alone(self) -> None:
        """Where no homeserver delegates, no request reads or writes a note."""
        self.delegated = False
        store = self.open(connections=1)
        login = await store.issue(ALICE, "PHONE", None, True, True, claim=FIRST)
        await testing.refresh(store, refresh_token(login.tokens), None, True)
        await store.revoke((await store.sessions(None))[0])
        await store.revoke_all(ALICE)
        await store.prune(None, 10, 10)
        for statements in self.asked:
            for statement in statements:
                self.assertNotIn(b"device_notes", statement.sql)

    async def test_indexes(self) -> None:
        """Logins, logouts and leases find notes by an index, however many there are."""
        store = self.open(connections=1)
        await store.share_token_keys()
        self.query(
            "INSERT INTO synapse_login_device_notes (user_id, device_id, due_at, owed)"
            " SELECT '@user' || i, i::text, i, 1 FROM generate_series(1, 100000) i"
        )
        self.query(
            "INSERT INTO synapse_login_sessions SELECT i, 0, 0, 0, NULL, NULL, 1, true, '',"
            " '@someone' || i, i::text FROM generate_series(1, 100000) i"
        )
        self.query("ANALYZE")
        await store.reserve_device(ALICE, "PHONE", False)
        await begin(store, claim=FIRST)
        await store.revoke((await store.sessions(ALICE))[0])
        deletions = await store.lease_deletions(20)
        self.assertEqual(len(deletions), 20)
        await store.finish_deletion(deletions[0])
        with self.server.connect("stores") as connection:
            rows = OneByOneRows(connection)
            for statement in [each for statements in self.asked for each in statements]:
                if b"device_notes" in statement.sql:
                    explained = Statement(b"EXPLAIN " + statement.sql, statement.values)
                    (result,) = rows._run([explained])
                    plan = b"\n".join(result.get_value(n, 0) for n in range(result.ntuples))
                    for table in (b"synapse_login_device_notes", b"synapse_login_sessions"):
                        self.assertNotIn(b"Seq Scan on " + table, plan, plan.decode())
