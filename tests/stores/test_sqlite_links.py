"""Tests for links in an SQLite file: several processes, and files from before there were links."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from synapse_login_module.errors import AccountNotLinked
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import Claim, Link, Login
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.stores.sqlite_rows import SQLiteRows
from synapse_login_module.stores.sqlite_schema import MIGRATIONS, migrate
from synapse_login_module.testing.sessions import refresh
from tests.stores import test_stores
from tests.stores.test_stores import ALICE, refresh_token

FIRST = Claim(("ldap",), "first")


class LinkRaceTests(test_stores.SQLiteTestCase):
    """Tests of two stores on one file, like two processes."""

    def setUp(self) -> None:
        super().setUp()
        self.stores = self.open(), self.open()

    def log_in(self, store: ITokenStore, user_id: str, claim: Claim) -> Deferred[Login]:
        """Log in with an account."""
        return store.issue(user_id, None, None, True, True, claim=claim)

    def outcomes(self, *asked: Deferred[Any]) -> list[type | None]:
        """Return ``None`` for each success, and the class of the error otherwise."""
        self.calls.wait_for(*asked)
        ended: list[type | None] = []
        for each in asked:
            each.addCallbacks(lambda _: ended.append(None), lambda f: ended.append(f.type))
        return ended

    def test_two_accounts(self) -> None:
        """Of first logins of two accounts of one name, one in each process, one succeeds."""
        for number in range(20):
            user_id = f"@user{number}:example.com"
            claims = [Claim(("ldap",), f"{name} {number}") for name in ("first", "second")]
            outcomes = self.outcomes(*map(self.log_in, self.stores, [user_id] * 2, claims))
            self.assertEqual(set(outcomes), {None, AccountNotLinked})
            winner = claims[outcomes.index(None)]
            self.assertEqual(self.wait_for(self.stores[0].linked_user(winner)), user_id)
            self.assertEqual(len(self.wait_for(self.stores[1].sessions(user_id))), 1)

    def test_one_account(self) -> None:
        """First logins of one account in both processes, under two names, log in as one user."""
        for number in range(20):
            claim = Claim(("ldap",), str(number))
            names = f"@a{number}:example.com", f"@b{number}:example.com"
            asked = [self.log_in(*each, claim) for each in zip(self.stores, names, strict=True)]
            self.calls.wait_for(*asked)
            users = {self.successResultOf(each).user_id for each in asked}
            self.assertEqual(users, {self.wait_for(self.stores[0].linked_user(claim))})


class OldFileTests(test_stores.SQLiteTestCase):
    """Tests of a file from before there were links."""

    def test_sessions_go_on(self) -> None:
        """Its sessions stay without a link. Their user's next login links the user."""
        store = self.open()
        old = self.issue(store).tokens
        store.stopService()
        connection = connect(self.path)
        brought = "token_keys", "device_notes", "name_reservations", "imported_tokens"
        for table in ("links", "leases", *brought):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 1")
        connection.close()
        store = self.open()
        self.assertIsNone(self.wait_for(store.present(refresh_token(old))).session.link)
        pair = self.wait_for(refresh(store, refresh_token(old), None, True))
        self.wait_for(store.issue(ALICE, None, None, True, True, claim=FIRST))
        store.stopService()
        store = self.open()
        owner = self.wait_for(store.present(refresh_token(pair))).session
        self.assertEqual(owner.link, Link(ALICE, "ldap", "first"))

    def test_first_version(self) -> None:
        """The second version of the schema brings the table."""
        connection = connect(self.path)
        self.addCleanup(connection.close)
        migrate(connection, MIGRATIONS[:1])
        migrate(connection)
        rows = SQLiteRows(connection)
        rows.insert_link(Link(ALICE, "ldap", "first"), 1234, ())
        found = connection.execute(
            "SELECT user_id, provider, subject, linked_at FROM links"
        ).fetchall()
        self.assertEqual(found, [(ALICE, "ldap", "first", 1234)])
