"""Decisions about links, in a database of a few rows; a real Synapse is in ``test_links``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.accounts.rules import ExistingAccounts, LinkRules
from synapse_login_module.errors import LinkTaken
from synapse_login_module.model import Claim, Link
from synapse_login_module.synapse import link_rows, user_tables
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.database import CursorRows
from synapse_login_module.synapse.link_watch import SynapseLinkWatch
from synapse_login_module.synapse.linking import (
    Decision,
    Linked,
    Linker,
    NoAccount,
    NotLinked,
    ToRegister,
    Wanted,
)

_MINUTE = 60_000
_TABLES = """
    CREATE TABLE users (name TEXT UNIQUE, password_hash, is_guest DEFAULT 0, admin DEFAULT 0,
        user_type, appservice_id, deactivated DEFAULT 0, locked DEFAULT 0, creation_ts DEFAULT 0);
    CREATE TABLE access_tokens (user_id, valid_until_ms, refresh_token_id);
    CREATE TABLE pushers (user_name);
    CREATE TABLE user_external_ids (auth_provider, external_id, user_id);
    CREATE TABLE user_threepids (user_id, medium, address, validated_at, added_at,
        UNIQUE (medium, address));
"""


def uid(localpart: str) -> str:
    return f"@{localpart}:example.com"


class LinkingCase(SynchronousTestCase):
    """Helpers."""

    def setUp(self) -> None:
        connection = sqlite3.connect(":memory:")
        self.addCleanup(connection.close)
        connection.executescript(_TABLES)
        self.rows = CursorRows(connection.cursor(), "?")
        for statement in link_rows.CREATE:
            self.rows.write(statement)

    def add_user(self, localpart: str, **columns: object) -> None:
        """Have an account."""
        names = ", ".join(("name", *columns))
        marks = ", ".join("?" * (1 + len(columns)))
        self.rows.write(
            f"INSERT INTO users ({names}) VALUES ({marks})", uid(localpart), *columns.values()
        )

    def decide(
        self,
        localpart: str,
        subject: str,
        *,
        providers: tuple[str, ...] = ("ldap",),
        only: str | None = None,
        writes: bool = True,
        registers: bool = True,
        mode: ExistingAccounts = "passwordless",
        now: int = 0,
    ) -> Decision:
        """Decide a login."""
        linker = Linker(
            LinkRules(mode),
            lambda user_id: user_id.startswith("@irc_"),
            "default",
            registers,
        )
        wanted = Wanted(
            Claim(providers, subject), uid(localpart), None if only is None else uid(only), writes
        )
        return linker.decide(self.rows, wanted, now)

    def row(self, localpart: str) -> tuple[str, str, bool] | None:
        """The link of an account: provider, subject, whether it is pending."""
        row = link_rows.row_of_user(self.rows, uid(localpart))
        return None if row is None else (row.provider, row.subject, row.pending)


class DecisionTests(LinkingCase):
    """:class:`synapse_login_module.synapse.linking.Linker`."""

    def test_existing(self) -> None:
        """An ordinary account is linked once, and known from then on."""
        self.add_user("alice")
        self.assertEqual(self.decide("alice", "1"), Linked(uid("alice"), is_new=True))
        self.assertEqual(self.decide("alice", "1"), Linked(uid("alice")))
        self.assertEqual(self.decide("renamed", "1"), Linked(uid("alice")))
        self.assertEqual(self.row("alice"), ("ldap", "1", False))

    def test_another_subject(self) -> None:
        """Another subject, and the same subject of another provider, are other accounts."""
        self.add_user("alice")
        self.decide("alice", "1")
        for providers, subject in ((("ldap",), "2"), (("sql",), "1")):
            decision = self.decide("alice", subject, providers=providers)
            assert isinstance(decision, NotLinked)
            self.assertEqual(decision.problem, "it is linked to 1 of ldap")
            self.assertEqual(decision.setting, "links relink")

    def test_former_name(self) -> None:
        """A provider that was renamed goes on with its links; today's name comes first."""
        self.add_user("alice")
        self.add_user("other")
        self.decide("alice", "1", providers=("old",))
        self.assertEqual(self.decide("alice", "1", providers=("new", "old")), Linked(uid("alice")))
        link_rows.insert_link(self.rows, Link(uid("other"), "new", "1"), 0)
        self.assertEqual(self.decide("alice", "1", providers=("new", "old")), Linked(uid("other")))

    def test_no_writing(self) -> None:
        """Without permission to write, the decision is the same and nothing is written."""
        self.add_user("alice")
        self.assertEqual(self.decide("alice", "1", writes=False), Linked(uid("alice")))
        self.assertEqual(self.decide("bob", "2", writes=False), NoAccount("not_registered"))
        self.assertEqual((self.row("alice"), self.row("bob")), (None, None))

    def test_only(self) -> None:
        """An account that the address is not bound to is refused, and nothing is written."""
        self.add_user("alice")
        self.add_user("bob")
        self.assertEqual(self.decide("bob", "2", only="alice"), NoAccount("other_user"))
        self.assertEqual(self.decide("new", "3", only="alice"), NoAccount("other_user"))
        self.assertEqual((self.row("bob"), self.row("new")), (None, None))
        self.decide("bob", "2")
        self.assertEqual(self.decide("bob", "2", only="alice"), NoAccount("other_user"))
        self.assertEqual(self.decide("bob", "2", only="bob"), Linked(uid("bob")))

    def test_spelling(self) -> None:
        """The account spelled so comes first, then the only one that differs in case alone."""
        self.add_user("ALICE")
        self.assertEqual(self.decide("alice", "1"), Linked(uid("ALICE"), is_new=True))
        self.add_user("alice")
        self.assertEqual(self.decide("alice", "2"), Linked(uid("alice"), is_new=True))
        self.add_user("BOB")
        self.add_user("Bob")
        self.assertIsInstance(self.decide("bob", "3"), NotLinked)
        self.assertIsNone(self.row("bob"))

    def test_letters_of_other_alphabets(self) -> None:
        """A database that folds the case of more letters mixes up no accounts."""
        self.add_user("\u212aate")
        self.assertEqual(self.decide("kate", "1"), ToRegister(uid("kate"), 0))

    def test_extraordinary(self) -> None:
        """What makes an account no ordinary one is found in its row."""
        extraordinary: list[dict[str, object]] = [
            {"password_hash": "$2b$12$…"},
            {"password_hash": ""},
            {"appservice_id": "irc"},
            {"is_guest": 1},
            {"admin": 1},
            {"user_type": "support"},
            {"deactivated": 1},
        ]
        for number, columns in enumerate(extraordinary):
            name = f"user{number}"
            self.add_user(name, **columns)
            self.assertIsInstance(self.decide(name, name), NotLinked, columns)
            self.assertIsNone(self.row(name))
        for name, provider, linked in (
            ("sso", "oidc", False),
            ("ours", "synapse_login_module", True),
        ):
            self.add_user(name, user_type="default")
            self.rows.write(
                "INSERT INTO user_external_ids VALUES (?, ?, ?)", provider, name, uid(name)
            )
            self.assertEqual(isinstance(self.decide(name, name), Linked), linked)

    def test_reserved(self) -> None:
        """A reserved name is refused, whether there is an account or not."""
        self.add_user("irc_bob")
        for name in ("irc_bob", "irc_carol"):
            self.assertIsInstance(self.decide(name, name, mode="all"), NotLinked)
            self.assertIsNone(self.row(name))

    def test_registering(self) -> None:
        """A name is held while the account is made; then the link counts."""
        self.assertEqual(self.decide("alice", "1", now=5), ToRegister(uid("alice"), 5))
        self.assertEqual(self.row("alice"), ("ldap", "1", True))
        self.assertIsInstance(self.decide("alice", "2", now=6), NotLinked)
        self.add_user("alice")
        claim = Claim(("ldap",), "1")
        self.assertTrue(link_rows.confirm_link(self.rows, uid("alice"), claim, 7))
        self.assertEqual(self.decide("alice", "1"), Linked(uid("alice")))

    def test_not_registering(self) -> None:
        """Where none are registered, there is no account."""
        self.assertEqual(self.decide("alice", "1", registers=False), NoAccount("not_registered"))
        self.assertIsNone(self.row("alice"))

    def test_cut_off(self) -> None:
        """A registration that was cut off is taken up by the same person, whatever the rules."""
        later = 60_005
        self.decide("alice", "1", now=5)
        again = self.decide("alice", "1", now=later)
        self.assertEqual(again, ToRegister(uid("alice"), later))
        link_rows.delete_pending(self.rows, uid("alice"), 5)
        self.assertIsNotNone(self.row("alice"))
        self.add_user("alice", creation_ts=61)
        decision = self.decide("alice", "1", mode="none", now=later + 1)
        self.assertEqual(decision, Linked(uid("alice"), is_new=True))
        self.assertEqual(self.row("alice"), ("ldap", "1", False))

    def test_several_at_once(self) -> None:
        """Concurrent logins of one person share the pending link, and do not renew it."""
        self.decide("alice", "1", now=5)
        for now in (5, 9, 60_004):
            self.assertEqual(self.decide("alice", "1", now=now), ToRegister(uid("alice"), 5))

    def test_cut_off_and_taken(self) -> None:
        """But not if another person has registered the name since: it has a password."""
        self.decide("alice", "1", now=5)
        self.add_user("alice", password_hash="$2b$12$…")
        self.assertIsInstance(self.decide("alice", "1"), NotLinked)
        self.assertIsNone(self.row("alice"))
        self.decide("bob", "2", now=5)
        self.add_user("bob", password_hash="$2b$12$…")
        self.assertEqual(self.decide("bob", "3", mode="all"), Linked(uid("bob"), is_new=True))

    def test_cut_off_and_made_later(self) -> None:
        """Nor if an account without a password was made long after that."""
        for created_at, is_ours in ((98, True), (97, False), (700, True), (701, False)):
            name = f"a{created_at}"
            self.decide(name, name, now=100_000)
            self.add_user(name, creation_ts=created_at)
            decision = self.decide(name, name, mode="none", now=10**9)
            if is_ours:
                self.assertEqual(decision, Linked(uid(name), is_new=True))
            else:
                self.assertIsInstance(decision, NotLinked)
                self.assertIsNone(self.row(name))
                self.assertEqual(
                    self.decide(name, f"{name}-other", now=10**9), Linked(uid(name), is_new=True)
                )

    def test_cut_off_for_good(self) -> None:
        """A name that is reserved for an unfinished login is free after ten minutes."""
        self.decide("alice", "1")
        self.assertIsInstance(self.decide("alice", "2", now=10 * _MINUTE - 1), NotLinked)
        later = 10 * _MINUTE
        self.assertEqual(self.decide("alice", "2", now=later), ToRegister(uid("alice"), later))
        self.assertEqual(self.row("alice"), ("ldap", "2", True))

    def test_renamed_meanwhile(self) -> None:
        """A person whose name has changed gives up the name that was reserved."""
        self.decide("alice", "1", now=1)
        self.assertEqual(self.decide("alicia", "1", now=2), ToRegister(uid("alicia"), 2))
        self.assertIsNone(self.row("alice"))

    def test_linked_ahead(self) -> None:
        """An account that a person has linked ahead of its first login is made then."""
        link_rows.set_link(self.rows, Link(uid("boss"), "ldap", "1"), False, 0)
        self.assertEqual(self.decide("alice", "1"), ToRegister(uid("boss"), None))
        self.assertEqual(self.decide("alice", "1", writes=False), NoAccount("not_registered"))
        self.assertIsInstance(self.decide("boss", "2"), NotLinked)


class SetLinkTests(LinkingCase):
    """Links that a person makes."""

    def test_taken(self) -> None:
        """A link that is in the way gives way only if that is wanted, under any name too."""
        first, second = Link(uid("a"), "old", "1"), Link(uid("b"), "ldap", "2")
        self.assertEqual(link_rows.set_link(self.rows, first, False, 0), [])
        self.assertEqual(link_rows.set_link(self.rows, first, False, 0), [])
        link_rows.set_link(self.rows, second, False, 0)
        both = Link(uid("b"), "ldap", "1")
        with self.assertRaises(LinkTaken) as caught:
            link_rows.set_link(self.rows, both, False, 0, ("old",))
        self.assertIn(f"{uid('a')} is linked to 1 of old", str(caught.exception))
        gone = link_rows.set_link(self.rows, both, True, 0, ("old",))
        self.assertEqual({row.user_id for row in gone}, {uid("a"), uid("b")})
        self.assertEqual(link_rows.all_links(self.rows), [both])

    def test_pending(self) -> None:
        """A pending link is not listed, and does not prevent a link by a command."""
        self.decide("alice", "1")
        self.assertEqual(link_rows.all_links(self.rows), [])
        link = Link(uid("alice"), "ldap", "2")
        self.assertEqual(link_rows.set_link(self.rows, link, False, 0), [])
        self.assertEqual(link_rows.all_links(self.rows), [link])

    def test_wishes(self) -> None:
        """A wish that is replaced while it is carried out stays, and still unlocks."""
        link_rows.insert_wish(self.rows, uid("a"), "unlinked", True, 1)
        link_rows.insert_wish(self.rows, uid("a"), "relinked", False, 2)
        link_rows.delete_wish(self.rows, uid("a"), 1)
        wishes = [(each.user_id, each.wished_at) for each in link_rows.wishes(self.rows)]
        self.assertEqual(wishes, [(uid("a"), 2)])
        self.assertEqual(
            self.rows.fetch("SELECT reason, locked FROM synapse_login_wishes"), [("relinked", 1)]
        )
        link_rows.delete_wish(self.rows, uid("a"), 2)
        self.assertEqual(link_rows.wishes(self.rows), [])

    def test_wishes_of_gone(self) -> None:
        """Wishes for held accounts are listed apart, page by page."""
        for name in ("c", "a", "b"):
            link_rows.insert_wish(self.rows, uid(name), "gone", False, 1)
        link_rows.insert_wish(self.rows, uid("d"), "unlinked", False, 2)
        self.assertEqual([each.user_id for each in link_rows.wishes(self.rows)], [uid("d")])
        first = [each.user_id for each in link_rows.wishes_of_gone(self.rows, "", 2)]
        self.assertEqual(first, [uid("a"), uid("b")])
        rest = [each.user_id for each in link_rows.wishes_of_gone(self.rows, first[-1], 2)]
        self.assertEqual(rest, [uid("c")])


class AdministratorTests(LinkingCase):
    """Whether a linked account is an administrator's."""

    def test_changes(self) -> None:
        """It is told once that it has become one, also again."""
        self.add_user("alice")
        self.decide("alice", "1")
        said = [link_rows.set_admin(self.rows, uid("alice"), each) for each in (1, 1, 0, 1)]  # type: ignore[arg-type]
        self.assertEqual(said, [True, False, True, True])


class LocalPasswordTests(LinkingCase):
    """:func:`synapse_login_module.synapse.user_tables.local_password`."""

    def test_linked(self) -> None:
        """It is told of a link that counts."""
        self.add_user("alice", password_hash="hash")
        self.decide("new", "2")
        self.add_user("new", password_hash="hash")
        link_rows.insert_link(self.rows, Link(uid("alice"), "ldap", "1"), 0)
        found = [user_tables.local_password(self.rows, uid(name)) for name in ("alice", "new")]
        self.assertEqual([each and each.is_linked for each in found], [True, False])

    def test_spelling(self) -> None:
        """The account spelled so counts, even without a password; then the only other."""
        self.add_user("ALICE", password_hash="theirs")
        self.assertEqual(
            user_tables.local_password(self.rows, uid("alice")), (uid("ALICE"), "theirs", False)
        )
        self.add_user("alice")
        self.assertIsNone(user_tables.local_password(self.rows, uid("alice")))
        self.add_user("BOB", password_hash="1")
        self.add_user("Bob", password_hash="2")
        self.assertIsNone(user_tables.local_password(self.rows, uid("bob")))


class _Database:
    """A homeserver that has a database and nothing else."""

    def __init__(self, rows: CursorRows) -> None:
        self.rows = rows

    def transaction(self, name: str, work: Callable[[CursorRows], Any]) -> Any:
        return work(self.rows)

    def call_in_background(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return succeed(call(*arguments))


class LinkWatchTests(LinkingCase):
    """What the sweep reads."""

    def setUp(self) -> None:
        super().setUp()
        self.watch = SynapseLinkWatch(cast(Homeserver, _Database(self.rows)))
        self.users = [uid(f"user{number}") for number in range(5)]
        for user_id in self.users:
            link_rows.set_link(self.rows, Link(user_id, "ldap", user_id), False, 0)

    def due(self, limit: int, now: int) -> list[str]:
        """The users whose links are due."""
        found = self.successResultOf(self.watch.due("ldap", limit, now))
        return [each.user_id for each in found]

    def test_due_clock_set_back(self) -> None:
        """Links that were looked at in the future come first, because the clock was set back."""
        self.due(4, 60 * _MINUTE)
        ahead = self.users[:4]
        self.assertEqual(sorted(self.due(2, _MINUTE) + self.due(2, _MINUTE + 1)), ahead)
        self.assertEqual(self.due(1, _MINUTE + 2), self.users[4:])

    def test_due(self) -> None:
        """Links with the oldest looks come first. After a look they come last."""
        self.assertEqual(self.due(2, _MINUTE), self.users[:2])
        self.assertEqual(self.due(4, _MINUTE + 1), [*self.users[2:], self.users[0]])
