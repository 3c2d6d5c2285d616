"""Tests for the token stores."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from synapse_login_module import testing
from synapse_login_module.errors import (
    ConfigError,
    ExpiredToken,
    ReusedToken,
    StoreUnavailable,
    SupersededToken,
    UnknownToken,
)
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
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.stores import MemoryTokenStore, SQLiteTokenStore, sqlite, sqlite_file
from synapse_login_module.stores.derived import DerivedTokenStore
from synapse_login_module.stores.memory import MemoryDatabase
from synapse_login_module.stores.rows import LoginTokenRow, Rows
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.stores.sqlite_rows import SQLiteRows
from synapse_login_module.stores.sqlite_schema import MIGRATIONS, migrate
from synapse_login_module.tokens.format import KEY_SIZE, SALT_SIZE, KeyRing, TokenKind, parse
from tests.stores.test_group_commit import ThreadCalls
from tests.support.folders import temporary_folder

T = TypeVar("T")

if TYPE_CHECKING:
    Mixin = SynchronousTestCase
else:
    Mixin = object

ALICE = "@alice:example.com"
FIRST_KEY, SECOND_KEY = b"1" * KEY_SIZE, b"2" * KEY_SIZE


class MemoryTokenStoreTests(
    testing.TokenStoreContract, testing.LinksContract, testing.TokenKeysContract, TestCase
):
    """The contract, kept in memory."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        return MemoryTokenStore(None, testing.environment(clock=clock, policy=policy))


class SQLiteTokenStoreTests(
    testing.TokenStoreContract, testing.LinksContract, testing.TokenKeysContract, TestCase
):
    """The contract, kept in a file."""

    def make_store(self, policy: TokenPolicy, clock: Clock) -> ITokenStore:
        path = Path(self.mktemp())
        environment = testing.environment(reactor=reactor, clock=clock, policy=policy)
        store = SQLiteTokenStore(path, environment)
        store.startService()
        self.addCleanup(store.stopService)
        return store


def refresh_token(pair: TokenPair) -> str:
    """Return the refresh token of a pair that has one."""
    assert pair.refresh_token is not None
    return pair.refresh_token


def generation(kind: TokenKind, token: str) -> tuple[int, int]:
    """Return the key id and the generation in a token."""
    parsed = parse(kind, token)
    assert parsed is not None
    return parsed.key_id, parsed.generation


class DerivedTokenStoreTests(SynchronousTestCase):
    """Tests of derived tokens, over any database."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.database = MemoryDatabase()
        self.store = self.store_with({1: FIRST_KEY})

    def store_with(self, keys: dict[int, bytes], policy: TokenPolicy | None = None) -> ITokenStore:
        """Make a store over the same rows with these keys, as after a restart."""
        return DerivedTokenStore(
            self.database,
            KeyRing(keys),
            policy or TokenPolicy(),
            self.clock.seconds,
            os.urandom,
        )

    def issue(self, store: ITokenStore | None = None, **more: Any) -> Login:
        """Log in."""
        arguments = {
            "user_id": ALICE,
            "device_id": None,
            "display_name": None,
            "refreshable": True,
            "with_refresh_token": True,
            **more,
        }
        return self.successResultOf((store or self.store).issue(**arguments))

    def refresh(self, store: ITokenStore, pair: TokenPair, strict: bool = False) -> TokenPair:
        """Refresh, with success."""
        return self.successResultOf(testing.refresh(store, refresh_token(pair), None, strict))

    def expires_at(self, store: ITokenStore, access_token: str) -> int | None:
        """Use an access token, and return when it expires."""
        used = self.successResultOf(store.session_for_access_token(access_token, True))
        return used.access_expires_at

    def test_short_page(self) -> None:
        """A short page does not take a query for each session that is over."""
        store = self.store_with({1: FIRST_KEY}, TokenPolicy(nonrefreshable_access_token=1000))
        for _ in range(250):
            self.issue(store, refreshable=False, with_refresh_token=False)
        self.clock.advance(2)
        living = [self.issue(store).device_id for _ in range(3)]
        reads: list[object] = []
        read = self.database.read

        def counted(work: Callable[[Rows], Any]) -> Deferred[Any]:
            reads.append(work)
            return read(work)

        self.patch(self.database, "read", counted)
        (first,) = self.successResultOf(store.sessions(ALICE, most=1))
        self.assertEqual(len(reads), 3)
        rest = self.successResultOf(store.sessions(ALICE, first, most=2))
        self.assertEqual(sorted(each.device_id for each in (first, *rest)), sorted(living))

    def test_when_an_access_token_expires(self) -> None:
        """The session of an access token says when that token expires, of either living pair."""
        store = self.store_with({1: FIRST_KEY}, TokenPolicy(refreshable_access_token=5000))
        start = int(self.clock.seconds() * 1000)
        first = self.issue(store).tokens
        self.clock.advance(1)
        second = self.refresh(store, first)
        for _ in range(2):
            self.assertEqual(self.expires_at(store, first.access_token), start + 5000)
            self.clock.advance(3)
        self.assertEqual(self.expires_at(store, second.access_token), start + 6000)
        self.clock.advance(60)
        self.assertEqual(self.expires_at(store, second.access_token), start + 6000)

    def test_access_token_that_never_expires(self) -> None:
        """An access token without a lifetime expires with its session, or never."""
        lasting = self.issue(refreshable=False, with_refresh_token=False).tokens.access_token
        self.assertIsNone(self.expires_at(self.store, lasting))
        start = int(self.clock.seconds() * 1000)
        brief = self.store_with({1: FIRST_KEY}, TokenPolicy(session=9000))
        self.assertEqual(self.expires_at(brief, lasting), start + 9000)

    def test_new_tokens_under_the_newest_key(self) -> None:
        """New sessions, refreshed pairs and login tokens are made under the newest key."""
        old = self.issue().tokens
        self.assertEqual(generation(TokenKind.ACCESS, old.access_token), (1, 0))
        store = self.store_with({1: FIRST_KEY, 2: SECOND_KEY})
        new = self.refresh(store, old)
        self.assertEqual(generation(TokenKind.ACCESS, new.access_token), (2, 1))
        self.assertEqual(generation(TokenKind.REFRESH, refresh_token(new)), (2, 1))
        fresh = self.issue(store).tokens
        self.assertEqual(generation(TokenKind.ACCESS, fresh.access_token), (2, 0))
        token = self.successResultOf(store.make_login_token(ALICE)).token
        self.assertEqual(generation(TokenKind.LOGIN, token), (2, 0))

    def test_old_tokens_stay_good(self) -> None:
        """Tokens under an old key are valid until the key is retired."""
        pair, other = self.issue().tokens, self.issue().tokens
        login_token = self.successResultOf(self.store.make_login_token(ALICE)).token
        both = self.store_with({1: FIRST_KEY, 2: SECOND_KEY})
        self.successResultOf(both.session_for_access_token(pair.access_token, False))
        self.issue(both, login_token=login_token)
        self.refresh(both, other)
        self.assertTrue(self.database.retire_key(1))
        new_alone = self.store_with({2: SECOND_KEY})
        self.failureResultOf(
            new_alone.session_for_access_token(pair.access_token, True), ExpiredToken
        )
        self.failureResultOf(
            testing.refresh(new_alone, refresh_token(pair), None, False), ExpiredToken
        )

    def test_another_session_by_now(self) -> None:
        """A presented token is unknown once another session has the number of its session."""
        login = self.issue()
        presented = self.successResultOf(self.store.present(refresh_token(login.tokens)))
        session = self.database.session(int(presented.session.handle))
        assert session is not None
        self.database.delete(session.session_id)
        self.database.insert(session._replace(user_id="@bob:example.com", salt=b"x" * SALT_SIZE))
        self.failureResultOf(self.store.refresh(presented, None, False), UnknownToken)

    def test_retired_since(self) -> None:
        """A presented token is expired once its key has been retired."""
        presented = self.successResultOf(self.store.present(refresh_token(self.issue().tokens)))
        self.assertTrue(self.database.retire_key(1))
        store = self.store_with({1: FIRST_KEY, 2: SECOND_KEY})
        self.failureResultOf(store.refresh(presented, None, False), ExpiredToken)

    def test_lost_answer_across_a_new_key(self) -> None:
        """A pair whose response was lost is repeated unchanged, although a key was added since."""
        old = self.issue().tokens
        lost = self.refresh(self.store, old)
        rotated = self.store_with({1: FIRST_KEY, 2: SECOND_KEY})
        for _ in range(2):
            again = self.refresh(rotated, old)
            self.assertEqual(
                (again.access_token, again.refresh_token),
                (lost.access_token, lost.refresh_token),
            )
        self.assertEqual(
            generation(TokenKind.ACCESS, self.refresh(rotated, again).access_token), (2, 2)
        )

    def test_lost_answer_across_a_removed_key(self) -> None:
        """A pair whose response was lost is repeated under another key if its own was retired."""
        old = self.issue().tokens
        rotated = self.store_with({1: FIRST_KEY, 2: SECOND_KEY})
        self.refresh(rotated, old)
        self.assertTrue(self.database.retire_key(2))
        again = self.refresh(self.store, old)
        self.assertEqual(generation(TokenKind.ACCESS, again.access_token), (1, 1))
        self.successResultOf(self.store.session_for_access_token(again.access_token, False))
        self.refresh(self.store, again, strict=True)

    def test_stolen_rows(self) -> None:
        """The rows without the key make no valid token, and the key without the rows makes none."""
        pair = self.issue().tokens
        (row,) = self.database.sessions(None)
        forger = KeyRing({1: SECOND_KEY})
        forged = forger.derive(TokenKind.ACCESS, 1, row.session_id, 0, row.salt)
        self.failureResultOf(self.store.session_for_access_token(forged, True), UnknownToken)
        guessed = KeyRing({1: FIRST_KEY}).derive(TokenKind.ACCESS, 1, row.session_id, 0, bytes(16))
        self.failureResultOf(self.store.session_for_access_token(guessed, True), UnknownToken)
        good = KeyRing({1: FIRST_KEY}).derive(TokenKind.ACCESS, 1, row.session_id, 0, row.salt)
        self.assertEqual(good, pair.access_token)

    def test_one_row_a_session(self) -> None:
        """A session is one row, however often it is refreshed."""
        pair = self.issue().tokens
        for strict in (True, False) * 50:
            pair = self.refresh(self.store, pair, strict)
        (row,) = self.database.sessions(None)
        self.assertEqual(row.generation, 100)

    def test_replay_of_any_age(self) -> None:
        """The very first refresh token is recognised after a hundred refreshes."""
        first = pair = self.issue().tokens
        for _ in range(100):
            pair = self.refresh(self.store, pair, strict=True)
        failure = self.failureResultOf(
            testing.refresh(self.store, refresh_token(first), None, False), ReusedToken
        )
        assert isinstance(failure.value, ReusedToken)
        self.assertEqual(failure.value.user_id, ALICE)
        (row,) = self.database.sessions(None)
        self.assertEqual((row.generation, row.issued_at), (1 << 32, self.clock.seconds() * 1000))

    def test_dead_access_token_never_revokes(self) -> None:
        """An expired access token is rejected however old it is, and ends nothing."""
        first = pair = self.issue().tokens
        for _ in range(10):
            pair = self.refresh(self.store, pair, strict=True)
        self.clock.advance(10_000)
        self.failureResultOf(
            self.store.session_for_access_token(first.access_token, True), ExpiredToken
        )
        self.refresh(self.store, pair, strict=True)

    def test_access_token_of_any_age_beside_a_refresh_token(self) -> None:
        """Beside a refresh token, an access token of the same session of any age is accepted."""
        first = pair = self.issue().tokens
        for _ in range(3):
            pair = self.refresh(self.store, pair, strict=True)
        self.clock.advance(10_000)
        self.successResultOf(
            testing.refresh(self.store, refresh_token(pair), first.access_token, True)
        )

    def test_clock_stepping_back(self) -> None:
        """A clock that is set back an hour ends no session and makes no dead token valid."""
        store = self.store_with({1: FIRST_KEY}, TokenPolicy(refresh_token=60_000, session=600_000))
        old = self.issue(store).tokens
        pair = self.refresh(store, old, strict=True)
        self.clock.advance(-3600)
        self.successResultOf(store.session_for_access_token(pair.access_token, False))
        self.failureResultOf(
            testing.refresh(store, refresh_token(old), None, True), SupersededToken
        )
        pair = self.refresh(store, pair, strict=True)
        again = self.refresh(store, self.issue(store).tokens)
        self.refresh(store, again)

    def test_what_is_left(self) -> None:
        """``expires_in_ms`` is the remaining lifetime, which ends with the session."""
        policy = TokenPolicy(
            refreshable_access_token=300_000,
            nonrefreshable_access_token=900_000,
            session=600_000,
        )
        store = self.store_with({1: FIRST_KEY}, policy)
        self.assertEqual(self.issue(store, refreshable=False).tokens.expires_in_ms, 600_000)
        pair = self.issue(store).tokens
        self.assertEqual(pair.expires_in_ms, 300_000)
        self.clock.advance(400)
        self.assertEqual(self.refresh(store, pair).expires_in_ms, 200_000)

    def test_devices(self) -> None:
        """A generated device ID has ten capital letters, and no two are the same."""
        names = [self.issue().device_id for _ in range(50)]
        for name in names:
            self.assertRegex(name, r"\A[A-Z]{10}\Z")
        self.assertEqual(len(set(names)), 50)

    def test_taken_number(self) -> None:
        """A session never gets the number of another, even when it is drawn twice."""
        noise = iter([b"\0\0\0\7", b"s" * 16, b"\0\0\0\7", b"\0\0\0\7", b"\0\0\0\x09", b"t" * 16])
        store = DerivedTokenStore(
            self.database,
            KeyRing({1: FIRST_KEY}),
            TokenPolicy(),
            self.clock.seconds,
            lambda size: next(noise),
        )
        for device_id in ("PHONE", "TABLET"):
            self.issue(store, device_id=device_id)
        numbers = [row.session_id for row in self.database.sessions(None)]
        self.assertEqual(len(set(numbers)), 2)

    def test_oldest_first(self) -> None:
        """Sessions are listed oldest first, with numbers that grow with time."""
        devices = []
        for _ in range(5):
            devices.append(self.issue().device_id)
            self.clock.advance(1)
        listed = self.successResultOf(self.store.sessions(ALICE))
        self.assertEqual([each.device_id for each in listed], devices)


class OvertakenDatabase(MemoryDatabase):
    """Rows that another server changes just before a compare-and-swap.

    :ivar overtake: makes the change, once.
    """

    overtake: Callable[[], object] | None = None

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Make the change, and then compare and swap."""
        overtake, self.overtake = self.overtake, None
        if overtake is not None:
            overtake()
        return super().compare_and_swap(old, new)


class OvertakenTests(SynchronousTestCase):
    """Tests of a row that another client changes between the decision and the write."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.database = OvertakenDatabase()
        self.store = DerivedTokenStore(
            self.database, KeyRing({1: FIRST_KEY}), TokenPolicy(), self.clock.seconds, os.urandom
        )
        login = self.successResultOf(self.store.issue(ALICE, None, None, True, True))
        self.pair = login.tokens

    def refresh(self, strict: bool) -> Deferred[TokenPair]:
        """Refresh with the first refresh token."""
        return testing.refresh(self.store, refresh_token(self.pair), None, strict)

    def overtaken_by(self, strict: bool) -> list[TokenPair]:
        """Let another client refresh first; return the list that gets its pair."""
        won: list[TokenPair] = []
        self.database.overtake = lambda: won.append(self.successResultOf(self.refresh(strict)))
        return won

    def test_by_a_strict_refresh(self) -> None:
        """A refresh that a strict refresh overtakes loses the race, on either path."""
        for strict in (True, False):
            won = self.overtaken_by(strict=True)
            failure = self.failureResultOf(self.refresh(strict), SupersededToken)
            self.assertIs(failure.type, SupersededToken)
            (self.pair,) = won
        self.successResultOf(self.store.session_for_access_token(self.pair.access_token, False))

    def test_by_a_lenient_refresh(self) -> None:
        """A refresh that a lenient refresh overtakes gets the same pair, on either path."""
        for strict in (True, False):
            won = self.overtaken_by(strict=False)
            pair = self.successResultOf(self.refresh(strict))
            self.assertEqual(won, [pair])
            self.pair = pair

    def test_first_use(self) -> None:
        """A first use that a refresh overtakes confirms nothing, and is rejected."""
        pair = self.successResultOf(self.refresh(strict=False))
        self.pair = pair
        self.overtaken_by(strict=True)
        self.failureResultOf(
            self.store.session_for_access_token(pair.access_token, False), ExpiredToken
        )

    def test_by_a_logout(self) -> None:
        """A refresh that a logout overtakes does not bring the session back."""
        (session,) = self.successResultOf(self.store.sessions(None))
        self.database.overtake = lambda: self.store.revoke(session)
        self.failureResultOf(self.refresh(strict=False), UnknownToken)
        self.assertEqual(self.database.sessions(None), [])


class LostCommitTests(SynchronousTestCase):
    """Tests of a database that runs work and then cannot commit it."""

    def test_present(self) -> None:
        """What was read in a transaction that was not committed is not remembered."""
        database = MemoryDatabase()
        clock = Clock()
        store = DerivedTokenStore(
            database, KeyRing({1: FIRST_KEY}), TokenPolicy(), clock.seconds, os.urandom
        )
        token = refresh_token(
            self.successResultOf(store.issue(ALICE, None, None, True, True)).tokens
        )
        link = Link(ALICE, "ldap", "alice")

        def lose(work: Callable[[Rows], Any]) -> Deferred[Any]:
            database.insert_link(link, 0, ())
            work(database)
            database.delete_link(link)
            return fail(StoreUnavailable("the disk is full"))

        patch = self.patch(database, "run", lose)
        self.failureResultOf(store.present(token), StoreUnavailable)
        patch.restore()
        self.assertIsNone(self.successResultOf(store.present(token)).session.link)


class MemoryConfigTests(SynchronousTestCase):
    """Tests of the configuration of the store in memory."""

    def test_nothing(self) -> None:
        """It has no keys."""
        self.assertTrue(IPluginClass.providedBy(MemoryTokenStore))
        MemoryTokenStore.parse_config({}, Path())
        with self.assertRaises(ConfigError) as raised:
            MemoryTokenStore.parse_config({"path": "x"}, Path())
        self.assertEqual(raised.exception.path, "path")


class SQLiteTestCase(SynchronousTestCase):
    """Tests of stores on one file, without a reactor.

    :cvar delegated: whether a homeserver delegates to the processes of the stores.
    """

    delegated = False

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.path = self.folder / "sessions.db"
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.calls = ThreadCalls()
        self.keys = {1: FIRST_KEY}

    def environment(self) -> Environment:
        """Make an environment with the keys of the test."""
        environment = testing.environment(
            reactor=self.calls, clock=self.clock, delegated=self.delegated
        )
        return replace(environment, keys=KeyRing(self.keys))

    def open(self, start: bool = True) -> SQLiteTokenStore:
        """Make a store on the file."""
        store = SQLiteTokenStore(self.path, self.environment())
        if start:
            store.startService()
            self.addCleanup(self.close, store)
        return store

    def close(self, store: SQLiteTokenStore) -> None:
        """Stop a store, if it runs."""
        if store.running:
            store.stopService()

    def wait_for(self, deferred: Deferred[T]) -> T:
        """Wait for a Deferred, and return its result."""
        self.calls.wait_for(deferred)
        return self.successResultOf(deferred)

    def wait_for_failure(self, deferred: Deferred[Any], error: type[Exception]) -> Exception:
        """Wait for a Deferred to fail, and return its error."""
        self.calls.wait_for(deferred)
        value = self.failureResultOf(deferred, error).value
        assert isinstance(value, Exception)
        return value

    def issue(
        self, store: ITokenStore, device_id: str | None = None, login_token: str | None = None
    ) -> Login:
        """Log in."""
        return self.wait_for(store.issue(ALICE, device_id, None, True, True, login_token))

    def select(self, query: str, path: Path | None = None) -> list[Any]:
        """Run a query over another connection."""
        connection = sqlite3.connect(path or self.path)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


class SQLiteFileTests(SQLiteTestCase):
    """Tests of the file."""

    def test_interfaces(self) -> None:
        """The store is a plugin and a service."""
        self.assertTrue(IPluginClass.providedBy(SQLiteTokenStore))
        self.assertTrue(IService.providedBy(self.open()))

    def test_mode(self) -> None:
        """Only its owner may read the file and those beside it, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        self.issue(self.open())
        modes = {
            name: stat.S_IMODE((self.folder / name).stat().st_mode)
            for name in os.listdir(self.folder)
        }
        self.assertEqual(modes["sessions.db"], 0o600)
        self.assertEqual(set(modes.values()), {0o600})

    def test_mode_is_the_owners(self) -> None:
        """An existing file keeps its permissions."""
        self.open(start=False)
        self.path.chmod(0o640)
        self.issue(self.open())
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)

    def test_durable(self) -> None:
        """Every connection is in WAL mode, and waits for the disk at each commit."""
        made: list[sqlite3.Connection] = []

        def watched(path: Path, **given: Any) -> sqlite3.Connection:
            made.append(connect(path, **given))
            return made[-1]

        for module in (sqlite, sqlite_file):
            self.patch(module, "connect", watched)
        store = self.open()
        self.wait_for(store.ping())
        self.assertEqual(len(made), 2)
        self.assertEqual(made[1].execute("PRAGMA synchronous").fetchone(), (2,))
        self.assertEqual(made[1].execute("PRAGMA journal_mode").fetchone(), ("wal",))
        self.assertEqual(self.select("PRAGMA journal_mode"), [("wal",)])

    def test_others_see_it(self) -> None:
        """An acknowledged write is in the file, where another connection reads it."""
        store = self.open()
        login = self.issue(store, "PHONE")
        self.assertEqual(
            self.select("SELECT user_id, device_id, generation, confirmed FROM sessions"),
            [(ALICE, "PHONE", 0, 1)],
        )
        self.wait_for(testing.refresh(store, refresh_token(login.tokens), None, False))
        self.assertEqual(self.select("SELECT generation, confirmed FROM sessions"), [(1, 0)])

    def test_no_token_in_the_file(self) -> None:
        """No token, and no end of a token, is in the file or beside it."""
        store = self.open()
        login = self.issue(store)
        pair = self.wait_for(testing.refresh(store, refresh_token(login.tokens), None, True))
        login_token = self.wait_for(store.make_login_token(ALICE)).token
        raw = b"".join((self.folder / name).read_bytes() for name in os.listdir(self.folder))
        self.assertIn(ALICE.encode("ascii"), raw)
        for kind, token in (
            (TokenKind.ACCESS, login.tokens.access_token),
            (TokenKind.ACCESS, pair.access_token),
            (TokenKind.REFRESH, refresh_token(pair)),
            (TokenKind.LOGIN, login_token),
        ):
            parsed = parse(kind, token)
            assert parsed is not None
            self.assertNotIn(parsed.mac, raw)
            self.assertNotIn(token[6:].encode("ascii"), raw)
        self.assertNotIn(FIRST_KEY, raw)

    def test_reopened(self) -> None:
        """Sessions and login tokens outlive the process."""
        store = self.open()
        login = self.issue(store, "PHONE")
        login_token = self.wait_for(store.make_login_token(ALICE)).token
        used = self.wait_for(store.make_login_token(ALICE)).token
        self.issue(store, login_token=used)
        self.close(store)
        store = self.open()
        session = self.wait_for(store.session_for_access_token(login.tokens.access_token, False))
        self.assertEqual((session.user_id, session.device_id), (ALICE, "PHONE"))
        self.wait_for(testing.refresh(store, refresh_token(login.tokens), None, True))
        self.assertEqual(self.wait_for(store.login_token_owner(login_token)), ALICE)
        self.wait_for_failure(store.login_token_owner(used), UnknownToken)

    def test_lost_answer_across_a_restart_with_a_new_key(self) -> None:
        """A pair whose response was lost is repeated unchanged after a restart with a new key."""
        store = self.open()
        old = self.issue(store).tokens
        lost = self.wait_for(testing.refresh(store, refresh_token(old), None, False))
        self.close(store)
        self.keys = {1: FIRST_KEY, 2: SECOND_KEY}
        store = self.open()
        again = self.wait_for(testing.refresh(store, refresh_token(old), None, False))
        self.assertEqual(
            (again.access_token, again.refresh_token), (lost.access_token, lost.refresh_token)
        )
        self.assertEqual(self.select("SELECT key_id FROM sessions"), [(1,)])
        new = self.wait_for(testing.refresh(store, refresh_token(again), None, False))
        self.assertEqual(generation(TokenKind.ACCESS, new.access_token), (2, 2))
        self.assertEqual(self.select("SELECT key_id FROM sessions"), [(2,)])

    def test_expired_login_tokens_are_swept(self) -> None:
        """Issuing a login token deletes those that have expired, and no others."""
        store = self.open()
        self.wait_for(store.make_login_token(ALICE))
        self.clock.advance(60)
        live = self.wait_for(store.make_login_token(ALICE)).token
        self.clock.advance(60)
        self.wait_for(store.make_login_token(ALICE))
        self.assertEqual(self.select("SELECT count(*) FROM login_tokens"), [(2,)])
        self.assertEqual(self.wait_for(store.login_token_owner(live)), ALICE)

    def test_any_text(self) -> None:
        """Any text is kept as the display name of a device, quotes and all."""
        store = self.open()
        for device_id in ("'; DROP TABLE sessions; --", '"', "é\U0001f34c", "%", "a" * 512):
            login = self.issue(store, device_id)
            session = self.wait_for(
                store.session_for_access_token(login.tokens.access_token, False)
            )
            self.assertEqual(session.device_id, device_id)


class SQLiteServiceTests(SQLiteTestCase):
    """Tests of starting and stopping."""

    def test_waits_for_the_start(self) -> None:
        """Requests from before the start wait for it."""
        store = self.open(start=False)
        asked = store.ping()
        self.assertNoResult(asked)
        store.startService()
        self.addCleanup(self.close, store)
        self.wait_for(asked)

    def test_keys_on_one_thread(self) -> None:
        """The key file is read on the thread of the database only."""
        threads: list[str] = []

        def read_again() -> None:
            threads.append(threading.current_thread().name)

        ring = KeyRing(self.keys, read_again)
        store = SQLiteTokenStore(self.path, replace(self.environment(), keys=ring))
        store.startService()
        self.addCleanup(self.close, store)
        token = refresh_token(self.issue(store).tokens)
        self.wait_for(store.present(token))
        parsed = parse(TokenKind.REFRESH, token)
        assert parsed is not None
        strange = KeyRing({2: SECOND_KEY}).derive(
            TokenKind.REFRESH, 2, parsed.session_id, 0, b"s" * SALT_SIZE
        )
        self.wait_for_failure(store.present(strange), UnknownToken)
        self.assertEqual(set(threads), {"sqlite"})

    def test_moved_away(self) -> None:
        """No thread makes the file anew when it is moved away: everybody could read that one."""
        store = self.open()
        self.wait_for(store.ping())
        for each in self.path.parent.glob(f"{self.path.name}*"):
            each.rename(each.with_name(f"moved-{each.name}"))
        for index in range(500):  # more rows than between two checkpoints
            self.wait_for(store.issue("@alice:example.com", f"D{index}", None, True, True))
        self.wait_for_failure(store.sessions(None), StoreUnavailable)
        self.assertFalse(self.path.exists())

    def test_no_thread_before_the_start(self) -> None:
        """Until the start no connection is open, because the process may fork before it."""
        made: list[Path] = []

        def watched(path: Path, **given: Any) -> sqlite3.Connection:
            made.append(path)
            return connect(path, **given)

        self.open(start=False)
        for module in (sqlite, sqlite_file):
            self.patch(module, "connect", watched)
        store = self.open(start=False)
        self.assertEqual(len(made), 1)
        self.assertEqual(sorted(os.listdir(self.folder)), ["sessions.db"])
        store.startService()
        self.addCleanup(self.close, store)
        self.wait_for(store.ping())
        self.assertEqual(len(made), 2)

    def test_stopped(self) -> None:
        """``stopService`` finishes the requests under way. Later requests fail."""
        store = self.open()
        under_way = [store.issue(ALICE, None, None, True, True) for _ in range(20)]
        self.close(store)
        self.assertEqual(self.select("SELECT count(*) FROM sessions"), [(20,)])
        self.calls.deliver_all()
        for each in under_way:
            self.successResultOf(each)
        self.failureResultOf(store.ping(), StoreUnavailable)

    def test_clean_file(self) -> None:
        """After the stop all data is in the one file."""
        store = self.open()
        self.issue(store)
        self.close(store)
        self.assertEqual(os.listdir(self.folder), ["sessions.db"])

    def test_unavailable(self) -> None:
        """A file that cannot be used any more makes the store unavailable; no request hangs."""
        store = self.open(start=False)
        self.path.unlink()
        self.path.mkdir()
        store.startService()
        self.addCleanup(self.close, store)
        self.wait_for_failure(store.ping(), StoreUnavailable)
        self.wait_for_failure(store.issue(ALICE, None, None, True, True), StoreUnavailable)
        self.path.rmdir()
        self.open(start=False)
        self.wait_for(store.ping())


class SQLiteConfigTests(SQLiteTestCase):
    """Tests of the configuration."""

    def problem(self, config: dict[str, Any] | None = None) -> ConfigError:
        """Return why the store cannot be used; the error is one line."""
        with self.assertRaises(ConfigError) as raised:
            SQLiteTokenStore.parse_config(config or {"path": "sessions.db"}, self.folder)
        error: ConfigError = raised.exception
        self.assertNotIn("\n", str(error))
        return error

    def test_path(self) -> None:
        """The path is relative to the configuration, and no file is created yet."""
        parsed = SQLiteTokenStore.parse_config({"path": "sessions.db"}, self.folder)
        self.assertEqual(parsed, self.path)
        self.assertEqual(os.listdir(self.folder), [])

    def test_good_file(self) -> None:
        """A file of this program is accepted, and checking does not change it."""
        self.open(start=False)
        before = self.path.read_bytes()
        SQLiteTokenStore.parse_config({"path": "sessions.db"}, self.folder)
        self.assertEqual(self.path.read_bytes(), before)

    def test_keys(self) -> None:
        """It has the key ``path`` and no other."""
        self.assertEqual(self.problem({"file": "x"}).path, "path")
        self.assertEqual(self.problem({"path": "x", "file": "y"}).path, "file")
        self.assertEqual(self.problem({"path": 5}).path, "path")

    def test_no_folder(self) -> None:
        """A folder that does not exist is a mistake in the configuration."""
        error = self.problem({"path": "missing/sessions.db"})
        self.assertEqual(error.path, "path")
        self.assertIn("missing", error.problem)

    def test_no_database(self) -> None:
        """A file that is not a database is rejected, and left as it is."""
        for content in (b"users:\n  alice: {}\n" * 100, os.urandom(4096), b"hello"):
            self.path.write_bytes(content)
            self.assertEqual(self.problem().path, "path")
            with self.assertRaises(ConfigError):
                self.open(start=False)
            self.assertEqual(self.path.read_bytes(), content)

    def test_folder(self) -> None:
        """A folder is rejected."""
        self.path.mkdir()
        self.assertEqual(self.problem().path, "path")

    def test_newer_schema(self) -> None:
        """A file of a newer program is rejected, naming both versions, and left as it is."""
        self.open(start=False)
        connection = sqlite3.connect(self.path)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        connection.close()
        error = self.problem()
        self.assertEqual(error.path, "path")
        self.assertIn(str(len(MIGRATIONS) + 1), error.problem)
        with self.assertRaises(ConfigError):
            self.open(start=False)
        self.assertEqual(self.select("PRAGMA user_version"), [(len(MIGRATIONS) + 1,)])


class MigrationTests(SynchronousTestCase):
    """Tests of migrating from one version of the schema to the next."""

    first = ("CREATE TABLE things (name TEXT)", "INSERT INTO things VALUES ('old')")
    second = (
        "ALTER TABLE things ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'",
        "INSERT INTO things VALUES ('new', 'red')",
    )

    def setUp(self) -> None:
        self.connection = connect(Path(self.mktemp()))
        self.addCleanup(self.connection.close)

    def version(self) -> int:
        """Return the version of the file."""
        version: int = self.connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    def things(self) -> list[Any]:
        """Read the table."""
        return self.connection.execute("SELECT * FROM things").fetchall()

    def test_new_file(self) -> None:
        """A new file goes through every migration, in order."""
        migrate(self.connection, (self.first, self.second))
        self.assertEqual(self.things(), [("old", "grey"), ("new", "red")])
        self.assertEqual(self.version(), 2)

    def test_older_file(self) -> None:
        """An older file goes through the migrations that it lacks, once."""
        migrate(self.connection, (self.first,))
        self.assertEqual((self.things(), self.version()), ([("old",)], 1))
        for _ in range(2):
            migrate(self.connection, (self.first, self.second))
            self.assertEqual(self.things(), [("old", "grey"), ("new", "red")])
            self.assertEqual(self.version(), 2)

    def test_broken_step(self) -> None:
        """A migration that fails leaves the file unchanged."""
        migrate(self.connection, (self.first,))
        for broken in ("nonsense", "INSERT INTO nowhere VALUES (1)"):
            with self.assertRaises(sqlite3.OperationalError):
                migrate(self.connection, (self.first, (*self.second, broken)))
            self.assertEqual((self.things(), self.version()), ([("old",)], 1))
        migrate(self.connection, (self.first, self.second))
        self.assertEqual(self.version(), 2)

    def test_newer_file(self) -> None:
        """A newer file is rejected and left as it is."""
        migrate(self.connection, (self.first, self.second))
        with self.assertRaises(ConfigError) as raised:
            migrate(self.connection, (self.first,))
        self.assertEqual(raised.exception.path, "path")
        self.assertEqual(self.version(), 2)
        self.assertFalse(self.connection.in_transaction)

    def test_two_at_once(self) -> None:
        """Once a migration has read the version, no other process can change the file."""
        path = Path(self.mktemp())
        connect(path).close()
        intruder = sqlite3.connect(path, timeout=0, isolation_level=None)
        self.addCleanup(intruder.close)
        refused: list[str] = []

        class Watched(sqlite3.Connection):
            def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                cursor = super().execute(sql, *arguments)
                if sql == "PRAGMA user_version":
                    try:
                        intruder.execute("BEGIN IMMEDIATE")
                    except sqlite3.OperationalError as error:
                        refused.append(str(error))
                return cursor

        connection = sqlite3.connect(path, isolation_level=None, factory=Watched)
        self.addCleanup(connection.close)
        migrate(connection, (self.first,))
        self.assertEqual(refused, ["database is locked"])

    def test_own_schema(self) -> None:
        """The schema of this program has every table, and the index that a login needs."""
        migrate(self.connection)
        self.assertEqual(self.version(), len(MIGRATIONS))
        (plan,) = self.connection.execute(
            "EXPLAIN QUERY PLAN SELECT session_id FROM sessions"
            " WHERE user_id = 'x' AND device_id = 'y'"
        ).fetchall()
        self.assertIn("INDEX", plan[-1])


class RowsContract(Mixin):
    """The tests of every implementation of ``Rows``."""

    rows: Rows

    def a_session(self, session_id: int = 7, **changes: Any) -> Session:
        """Make a session."""
        return Session(
            session_id=session_id,
            user_id=ALICE,
            device_id="PHONE",
            display_name=None,
            salt=b"s" * 16,
            key_id=1,
            generation=3,
            confirmed=False,
            created_at=1_000,
            issued_at=2_000,
            access_expires_at=None,
            previous_expires_at=3_000,
        )._replace(**changes)

    def test_round_trip(self) -> None:
        """A session is read as it was written, in every field."""
        for confirmed in (True, False):
            session = self.a_session(confirmed=confirmed, display_name="mine", session_id=2**63 - 1)
            self.rows.insert(session)
            read = self.rows.session(2**63 - 1)
            assert read is not None
            self.assertEqual(read, session)
            self.assertIs(read.confirmed, confirmed)
            self.rows.delete(2**63 - 1)
        self.assertIsNone(self.rows.session(8))

    def test_put_replaces_the_device(self) -> None:
        """A session replaces the earlier one of its user and device, and no other."""
        self.rows.insert(self.a_session(7))
        self.rows.insert(self.a_session(8, device_id="phone"))
        self.rows.insert(self.a_session(9, user_id="@bob:example.com"))
        self.rows.insert(self.a_session(10))
        self.assertEqual([each.session_id for each in self.rows.page(None, 0, 9)], [8, 9, 10])
        self.assertEqual([each.session_id for each in self.rows.sessions(ALICE)], [8, 10])
        self.assertEqual(self.rows.sessions("@ALICE:example.com"), [])

    def test_page(self) -> None:
        """Pages of all sessions, or of a user's, follow the numbers of the sessions."""
        users = (ALICE, "@bob:example.com")
        for number in (9, 4, 7, 5, 8):
            user_id = users[number % 2]
            self.rows.insert(self.a_session(number, user_id=user_id, device_id=str(number)))
        pages: Sequence[tuple[str | None, int, int, Sequence[int]]] = (
            (None, 0, 3, [4, 5, 7]),
            (None, 6, 9, [7, 8, 9]),
            (None, 9, 9, []),
            (users[1], 0, 2, [5, 7]),
            (users[1], 7, 2, [9]),
            (users[0], 3, 9, [4, 8]),
            ("@carol:example.com", 0, 9, []),
        )
        for wanted, after, most, found in pages:
            read = self.rows.page(wanted, after, most)
            self.assertEqual([each.session_id for each in read], found)

    def test_swap(self) -> None:
        """A row is swapped only if it is unchanged, and so only once."""
        old = self.a_session()
        new = self.a_session(
            key_id=2,
            generation=4,
            confirmed=True,
            issued_at=5_000,
            access_expires_at=6_000,
            previous_expires_at=None,
        )
        self.rows.insert(old)
        self.assertIs(self.rows.compare_and_swap(old, new), True)
        self.assertEqual(self.rows.session(7), new)
        self.assertIs(self.rows.compare_and_swap(old, new), False)
        self.assertEqual(self.rows.session(7), new)

    def test_swap_what_changed(self) -> None:
        """A row that differs in a column that a refresh or a first use changes is not swapped."""
        old = self.a_session()
        for changed in (
            self.a_session(generation=4),
            self.a_session(confirmed=True),
            self.a_session(issued_at=2_001),
        ):
            self.rows.insert(changed)
            self.assertIs(self.rows.compare_and_swap(old, self.a_session(generation=9)), False)
            self.assertEqual(self.rows.session(7), changed)
            self.rows.delete(7)
        self.assertIs(self.rows.compare_and_swap(old, self.a_session(generation=9)), False)
        self.assertIsNone(self.rows.session(7))

    def test_swap_spares_others(self) -> None:
        """A swap changes no other row."""
        self.rows.insert(self.a_session(7))
        self.rows.insert(self.a_session(8, device_id="TABLET"))
        self.rows.compare_and_swap(self.a_session(7), self.a_session(7, generation=4))
        self.assertEqual(self.rows.session(8), self.a_session(8, device_id="TABLET"))

    def test_drop(self) -> None:
        """A session can be deleted, more than once too, and its device is free again."""
        self.rows.insert(self.a_session())
        for _ in range(2):
            self.rows.delete(7)
            self.assertIsNone(self.rows.session(7))
        self.rows.insert(self.a_session(8))
        self.assertEqual([each.session_id for each in self.rows.sessions(ALICE)], [8])

    def test_drop_user(self) -> None:
        """All sessions of a user can be deleted, and their number is returned."""
        self.rows.insert(self.a_session(7))
        self.rows.insert(self.a_session(8, device_id="TABLET"))
        self.rows.insert(self.a_session(9, user_id="@bob:example.com"))
        self.assertEqual(self.rows.delete_user(ALICE), 2)
        self.assertEqual(self.rows.delete_user(ALICE), 0)
        self.assertEqual([each.session_id for each in self.rows.page(None, 0, 9)], [9])

    def test_links(self) -> None:
        """A link is found by its user and its account. Deleting it deletes login tokens too."""
        alice, bob = Link(ALICE, "ldap", "1"), Link("@bob:example.com", "ldap", "2")
        for link in (bob, alice):
            self.rows.insert_link(link, 1_000, ())
        self.assertEqual(self.rows.links(), [alice, bob])
        both = self.rows.links_of(ALICE, Claim(("sql", "ldap"), "2"))
        self.assertEqual(sorted(both), [alice, bob])
        self.assertEqual(set(self.rows.links_of(ALICE, Claim(("ldap",), "1"))), {alice})
        for claim in (Claim(("ldap",), "3"), Claim(("sql",), "1")):
            self.assertEqual(self.rows.links_of(None, claim), [])
        for number, user_id in enumerate((ALICE, bob.user_id), 1):
            self.rows.insert_login_token(LoginTokenRow(number, user_id, b"s" * 16, 500), 0)
        self.rows.delete_link(alice)
        self.assertEqual(self.rows.links(), [bob])
        self.assertIsNone(self.rows.login_token(1))
        self.assertIsNotNone(self.rows.login_token(2))
        instead = Link(ALICE, "ldap", "2")
        self.rows.insert_link(instead, 2_000, [bob])
        self.assertEqual(self.rows.links(), [instead])
        self.assertIsNone(self.rows.login_token(2))

    def test_session_with_link(self) -> None:
        """Inserting a session can insert its user's link, which is then read with its owner."""
        link = Link(ALICE, "ldap", "1")
        self.assertIsNone(self.rows.owner(7))
        self.rows.insert(self.a_session(), link, new=True)
        self.rows.insert(self.a_session(8, device_id="TABLET"), link)
        self.rows.insert(self.a_session(9, user_id="@bob:example.com"))
        self.assertEqual(self.rows.owner(7), (self.a_session(), link))
        self.assertEqual(self.rows.owner(8), (self.a_session(8, device_id="TABLET"), link))
        bob = self.a_session(9, user_id="@bob:example.com")
        self.assertEqual(self.rows.owner(9), (bob, None))

    def test_keys(self) -> None:
        """Keys are inserted if their ids are free, and can be retired."""
        first, second, other = (
            TokenKey(key_id, fingerprint)
            for key_id, fingerprint in ((1, "a"), (65535, "b"), (1, "c"))
        )
        self.assertEqual(self.rows.token_keys(), [])
        self.rows.insert_keys([first])
        self.rows.insert_keys([second, other])
        self.assertEqual(self.rows.token_keys(), [first, second])
        self.assertIs(self.rows.retire_key(2), False)
        for _ in range(2):
            self.assertIs(self.rows.retire_key(65535), True)
        self.assertEqual(self.rows.token_keys(), [first, second._replace(retired=True)])

    def test_notes(self) -> None:
        """A device is reserved once it is noted, and until a session on it begins."""
        self.rows.insert(self.a_session(7))
        self.rows.insert(self.a_session(8, device_id="TABLET"))
        self.rows.insert(self.a_session(9, device_id="LAPTOP"))
        self.rows.delete(7, 5_000)
        self.rows.delete(7, 6_000)
        self.assertIs(self.rows.is_reserved(ALICE, "PHONE"), True)
        self.assertIs(self.rows.is_reserved(ALICE, "TABLET"), False)
        self.assertEqual(self.rows.delete_user(ALICE, 5_000), 2)
        self.rows.delete_device(ALICE, "WATCH", 5_000)
        for number, device in enumerate(("PHONE", "TABLET", "LAPTOP", "WATCH"), 11):
            self.assertIs(self.rows.is_reserved(ALICE, device), True, device)
            self.rows.insert(self.a_session(number, device_id=device), reserved=True)
            self.assertIs(self.rows.is_reserved(ALICE, device), False)
        self.assertEqual(len(self.rows.sessions(ALICE)), 4)
        self.rows.delete_device(ALICE, "WATCH", 5_000)
        self.assertEqual(len(self.rows.sessions(ALICE)), 3)

    def test_login_tokens(self) -> None:
        """A login token can be deleted once. Inserting one deletes those that have expired."""
        early, late = (
            LoginTokenRow(token_id, ALICE, b"s" * 16, expires_at)
            for token_id, expires_at in ((1, 100), (2, 101))
        )
        self.rows.insert_login_token(early, 0)
        self.rows.insert_login_token(late, 0)
        self.assertEqual(self.rows.login_token(1), early)
        self.rows.insert_login_token(LoginTokenRow(3, ALICE, b"s" * 16, 500), 100)
        self.assertIsNone(self.rows.login_token(1))
        self.assertEqual(self.rows.login_token(2), late)
        self.assertIs(self.rows.delete_login_token(2), True)
        self.assertIs(self.rows.delete_login_token(2), False)
        self.assertIsNone(self.rows.login_token(2))


class MemoryRowsTests(RowsContract, SynchronousTestCase):
    """Rows in memory."""

    def setUp(self) -> None:
        self.rows = MemoryDatabase()


class SQLiteRowsTests(RowsContract, SynchronousTestCase):
    """Rows in SQLite."""

    def setUp(self) -> None:
        connection = connect(Path(self.mktemp()))
        self.addCleanup(connection.close)
        migrate(connection)
        self.rows = SQLiteRows(connection)


class RaceTests(SQLiteTestCase):
    """Tests of two stores on one file, like two processes."""

    def setUp(self) -> None:
        super().setUp()
        self.first, self.second = self.open(), self.open()

    def outcomes(self, ask: Callable[[ITokenStore], Deferred[Any]]) -> tuple[list[Any], list[type]]:
        """Ask both stores at the same time; return the results and the classes of the errors."""
        asked = [ask(store) for store in (self.first, self.second)]
        self.calls.wait_for(*asked)
        answers: list[Any] = []
        errors: list[type] = []
        for each in asked:
            each.addCallbacks(answers.append, lambda failure: errors.append(failure.type))
        return answers, errors

    def test_strict(self) -> None:
        """Of two strict refreshes of one session one wins, and the session lives."""
        for _ in range(20):
            pair = self.issue(self.first).tokens
            answers, errors = self.outcomes(
                lambda store, pair=pair: testing.refresh(store, refresh_token(pair), None, True)  # type: ignore[misc]
            )
            self.assertEqual((len(answers), errors), (1, [SupersededToken]))
            self.wait_for(self.second.session_for_access_token(answers[0].access_token, False))
            self.wait_for(testing.refresh(self.first, refresh_token(answers[0]), None, True))

    def test_lenient(self) -> None:
        """Two lenient refreshes of one session get the same pair: the chain does not fork."""
        for _ in range(20):
            pair = self.issue(self.first).tokens
            answers, errors = self.outcomes(
                lambda store, pair=pair: testing.refresh(store, refresh_token(pair), None, False)  # type: ignore[misc]
            )
            self.assertEqual(errors, [])
            self.assertEqual(len({each.access_token for each in answers}), 1)
            self.assertEqual(len({each.refresh_token for each in answers}), 1)

    def test_login_token(self) -> None:
        """A login token begins one session, whichever store gets it first."""
        for _ in range(20):
            token = self.wait_for(self.first.make_login_token(ALICE)).token
            answers, errors = self.outcomes(
                lambda store, token=token: store.issue(ALICE, None, None, True, True, token)  # type: ignore[misc]
            )
            self.assertEqual((len(answers), errors), (1, [UnknownToken]))
            self.wait_for(
                self.second.session_for_access_token(answers[0].tokens.access_token, False)
            )

    def test_same_device(self) -> None:
        """Of two logins on one device one session is left, and its tokens are valid."""
        for _ in range(20):
            answers, errors = self.outcomes(
                lambda store: store.issue(ALICE, "PHONE", None, True, True)
            )
            self.assertEqual((len(answers), errors), (2, []))
            self.assertEqual(len(self.wait_for(self.first.sessions(ALICE))), 1)
            good = 0
            for login in answers:
                looked = self.second.session_for_access_token(login.tokens.access_token, False)
                self.calls.wait_for(looked)
                looked.addErrback(lambda failure: failure.trap(UnknownToken) and None)
                good += self.successResultOf(looked) is not None
            self.assertEqual(good, 1)

    def test_revoked_elsewhere(self) -> None:
        """A session revoked at one store is unknown to the other at once."""
        login = self.issue(self.first)
        session = self.wait_for(
            self.second.session_for_access_token(login.tokens.access_token, False)
        )
        self.wait_for(self.second.revoke(session))
        self.wait_for_failure(
            self.first.session_for_access_token(login.tokens.access_token, True), UnknownToken
        )
