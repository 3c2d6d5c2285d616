"""Tests for the keys of several servers on one store."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import (
    ExpiredToken,
    KeyUnavailable,
    SessionMismatch,
    UnknownToken,
)
from synapse_login_module.model import TokenKey, TokenPair, TokenPolicy
from synapse_login_module.stores.derived import DerivedTokenStore
from synapse_login_module.stores.keys import LIFETIME
from synapse_login_module.stores.memory import MemoryDatabase
from synapse_login_module.stores.ping import LASTS
from synapse_login_module.stores.rows import Rows
from synapse_login_module.testing.sessions import refresh
from synapse_login_module.tokens.format import KEY_SIZE, KeyRing, KeySet, TokenKind, parse

T = TypeVar("T")

ALICE = "@alice:example.com"
ONE, TWO, OTHER = b"1" * KEY_SIZE, b"2" * KEY_SIZE, b"o" * KEY_SIZE


class CountingDatabase(MemoryDatabase):
    """Rows that count requests.

    :ivar runs: the pieces of work.
    :ivar reads: the number of times that the keys were read.
    """

    runs = reads = 0

    def run(self, work: Callable[[Rows], T]) -> Deferred[T]:
        self.runs += 1
        return super().run(work)

    def token_keys(self) -> list[TokenKey]:
        self.reads += 1
        return super().token_keys()


class OneWriteDatabase(CountingDatabase):
    """Rows that accept one write of a piece of work, like those of PostgreSQL."""

    writes_once = True


class Machine:
    """A server and its key file.

    :ivar file: the current content of the file.
    """

    def __init__(self, database: MemoryDatabase, clock: Clock, file: KeySet) -> None:
        self.file = file
        self.database = database
        ring = KeyRing(file.keys, lambda: self.file, file.waiting)
        self.store = DerivedTokenStore(database, ring, TokenPolicy(), clock.seconds, os.urandom)


class KeysTestCase(SynchronousTestCase):
    """Two servers, A and B, with one store and a key file each."""

    database_class: type[CountingDatabase] = CountingDatabase

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.database = self.database_class()
        self.a = self.machine(KeySet({1: ONE}))
        self.b = self.machine(KeySet({1: ONE}))

    def machine(self, file: KeySet) -> Machine:
        return Machine(self.database, self.clock, file)

    def log_in(self, at: Machine) -> TokenPair:
        return self.successResultOf(at.store.issue(ALICE, None, None, True, True)).tokens

    def refresh(self, at: Machine, pair: TokenPair, strict: bool = False) -> TokenPair:
        assert pair.refresh_token is not None
        access_token = pair.access_token if strict else None
        return self.successResultOf(refresh(at.store, pair.refresh_token, access_token, strict))

    def use(self, at: Machine, pair: TokenPair) -> None:
        self.successResultOf(at.store.session_for_access_token(pair.access_token, False))

    def all_fail(self, at: Machine, pair: TokenPair, *errors: type[Exception]) -> list[str]:
        """Check that every use of a pair fails with these errors; return their messages."""
        assert pair.refresh_token is not None
        failures = [
            self.failureResultOf(each, *errors)
            for each in (
                at.store.session_for_access_token(pair.access_token, True),
                at.store.present(pair.refresh_token),
                refresh(at.store, pair.refresh_token, None, False),
                refresh(at.store, pair.refresh_token, pair.access_token, True),
            )
        ]
        return [str(each.value) for each in failures]

    def key_of(self, pair: TokenPair) -> int:
        parsed = parse(TokenKind.ACCESS, pair.access_token)
        assert parsed is not None
        return parsed.key_id


class RotationTests(KeysTestCase):
    """Tests of rotating in two steps."""

    def test_no_refusal_on_the_way(self) -> None:
        """A is rotated, B gets the file, both activate it: every token is valid at both."""
        pairs = [self.log_in(self.a), self.log_in(self.b)]

        def everywhere() -> None:
            for at in (self.a, self.b, self.b, self.a):
                pairs.append(self.log_in(at))
                for each in pairs:
                    self.use(self.a, each)
                    self.use(self.b, each)
                pairs[:] = [self.refresh(at, each, at is self.a) for each in pairs]
            self.clock.advance(LIFETIME + 1)

        everywhere()
        waiting = KeySet({1: ONE, 2: TWO}, {2})
        signing = KeySet({1: ONE, 2: TWO})
        for a, b in ((waiting, self.b.file), (waiting, waiting), (signing, waiting)):
            self.a.file, self.b.file = a, b
            everywhere()
        self.b.file = signing
        everywhere()
        everywhere()
        self.assertEqual({self.key_of(each) for each in pairs}, {2})

    def test_signs_without_a_login(self) -> None:
        """Refreshes use a key that was activated, even without any login."""
        pair = self.log_in(self.a)
        self.a.file = KeySet({1: ONE, 2: TWO})
        self.clock.advance(LIFETIME + 1)
        pair = self.refresh(self.a, self.refresh(self.a, pair))
        self.assertEqual(self.key_of(pair), 2)

    def test_known_before_it_signs(self) -> None:
        """The fingerprint of a key is in the store before the first token under the key."""
        self.log_in(self.a)
        self.a.file = KeySet({1: ONE, 2: TWO})
        inserted: list[int] = []
        before: list[list[int]] = []
        insert = self.database.insert

        def watched_insert(*arguments: object, **named: object) -> None:
            before.append(sorted(self.database._keys))
            insert(*arguments, **named)  # type: ignore[arg-type]

        self.patch(self.database, "insert", watched_insert)
        inserted.append(self.key_of(self.log_in(self.a)))
        self.assertEqual((inserted, before), ([2], [[1, 2]]))


class OneWriteRotationTests(RotationTests):
    """Tests of the same, where a piece of work writes once."""

    database_class = OneWriteDatabase


class ForgottenTests(KeysTestCase):
    """Tests of a key file that was not copied to B before A signed with a new key."""

    def setUp(self) -> None:
        super().setUp()
        self.old = self.log_in(self.b)
        self.a.file = KeySet({1: ONE, 2: TWO})
        self.new = self.log_in(self.a)

    def test_unavailable(self) -> None:
        """B fails as unavailable, and does not reject the tokens, from the first token on."""
        (said,) = set(self.all_fail(self.b, self.new, KeyUnavailable))
        self.assertIn("token key 2 is in use, and this server does not have it", said)
        self.use(self.a, self.new)

    def test_access_token(self) -> None:
        """The same for an access token beside a refresh token that B can verify."""
        moved = self.refresh(self.a, self.refresh(self.a, self.old))
        assert self.old.refresh_token is not None
        failed = refresh(self.b.store, self.old.refresh_token, moved.access_token, True)
        self.failureResultOf(failed, KeyUnavailable)

    def test_login_token(self) -> None:
        """The same for a login token."""
        made = self.successResultOf(self.a.store.make_login_token(ALICE))
        self.failureResultOf(self.b.store.login_token_owner(made.token), KeyUnavailable)
        begun = self.b.store.issue(ALICE, None, None, True, True, made.token)
        self.failureResultOf(begun, KeyUnavailable)
        self.successResultOf(self.a.store.login_token_owner(made.token))

    def test_no_second_pair(self) -> None:
        """B makes no pair where A's response may have been lost, because the chain would fork."""
        lost = self.refresh(self.a, self.old)
        assert self.old.refresh_token is not None
        failed = refresh(self.b.store, self.old.refresh_token, None, False)
        self.failureResultOf(failed, KeyUnavailable)
        self.assertEqual(self.refresh(self.a, self.old), lost)

    def test_the_rest_goes_on(self) -> None:
        """B serves the tokens that it can verify, and signs with its own key."""
        self.all_fail(self.b, self.new, KeyUnavailable)
        pair = self.refresh(self.b, self.old)
        self.assertEqual(self.key_of(pair), 1)
        self.use(self.a, pair)
        self.use(self.a, self.log_in(self.b))
        self.successResultOf(self.b.store.ping())

    def test_mended(self) -> None:
        """Once the key file is copied, B accepts the tokens at once, and no session was lost."""
        self.all_fail(self.b, self.new, KeyUnavailable)
        self.b.file = self.a.file
        self.use(self.b, self.new)
        self.refresh(self.b, self.refresh(self.b, self.new))

    def test_said_once(self) -> None:
        """The log says it once, and says when it is over."""
        with capturedLogs() as events:
            for _ in range(3):
                self.all_fail(self.b, self.new, KeyUnavailable)
                self.clock.advance(LIFETIME + 1)
            self.b.file = self.a.file
            self.use(self.b, self.new)
            self.clock.advance(LIFETIME + 1)
            self.use(self.b, self.new)
        lines = [str(event.get("problem", event["log_format"])) for event in events]
        self.assertEqual(len(lines), 2, lines)
        self.assertIn("key 2 is in use", lines[0])
        self.assertIn("again", lines[1])

    def test_said_at_the_start(self) -> None:
        """A server that starts without the key logs that before any token is presented."""
        late = self.machine(KeySet({1: ONE}))
        with capturedLogs() as events:
            self.successResultOf(late.store.share_token_keys())
        (event,) = events
        self.assertIn("token key 2 is in use", str(event["problem"]))
        self.assertIn("retire-key 2", str(event["problem"]))

    def test_logged_out(self) -> None:
        """The tokens of a session that is over are expired at B too, not unavailable."""
        self.assertEqual(self.successResultOf(self.a.store.revoke_all(ALICE)), 2)
        self.all_fail(self.b, self.new, UnknownToken)


class OtherKeyTests(KeysTestCase):
    """Tests of a server B that has another key of the same id."""

    def setUp(self) -> None:
        super().setUp()
        self.pair = self.log_in(self.a)
        self.c = self.machine(KeySet({1: OTHER}))

    def test_signs_nothing(self) -> None:
        """B makes no token of any kind, and is not healthy."""
        self.failureResultOf(self.c.store.issue(ALICE, None, None, True, True), KeyUnavailable)
        self.failureResultOf(self.c.store.make_login_token(ALICE), KeyUnavailable)
        (said,) = set(self.all_fail(self.c, self.pair, KeyUnavailable))
        self.assertIn("token key 1 here is not the token key 1 in use", said)
        self.failureResultOf(self.c.store.ping(), KeyUnavailable)
        self.assertEqual(len(self.database.token_keys()), 1)
        self.use(self.a, self.pair)
        self.refresh(self.a, self.pair)

    def test_mended(self) -> None:
        """With the right file B works as the others, without a restart."""
        self.all_fail(self.c, self.pair, KeyUnavailable)
        self.c.file = self.a.file
        self.use(self.c, self.pair)
        self.use(self.a, self.log_in(self.c))
        self.successResultOf(self.c.store.ping())

    def test_lost_for_good(self) -> None:
        """When every server has lost the key file, a new key signs, and the lost one is retired."""
        self.c.file = KeySet({1: OTHER, 2: TWO})
        fresh = self.log_in(self.c)
        self.all_fail(self.c, self.pair, KeyUnavailable)
        self.assertTrue(self.successResultOf(self.c.store.retire_token_key(1)))
        self.clock.advance(LIFETIME + 1)
        self.all_fail(self.c, self.pair, ExpiredToken, SessionMismatch)
        self.use(self.c, fresh)

    def test_replaced_in_a_request(self) -> None:
        """A token that was verified under another key of the id is verified again with the file
        that has come meanwhile.
        """
        assert self.pair.refresh_token is not None
        parsed = parse(TokenKind.REFRESH, self.pair.refresh_token)
        assert parsed is not None
        self.successResultOf(self.a.store.present(self.pair.refresh_token))
        session = self.database.session(parsed.session_id)
        assert session is not None
        forged = KeyRing({1: OTHER}).derive(
            TokenKind.REFRESH, 1, parsed.session_id, parsed.generation, session.salt
        )
        own, self.a.file = self.a.file, KeySet({1: OTHER})
        self.failureResultOf(self.a.store.issue(ALICE, None, None, True, True), KeyUnavailable)
        presented = self.successResultOf(self.a.store.present(forged))
        self.a.file = own
        self.clock.advance(LIFETIME + 1)
        self.failureResultOf(self.a.store.refresh(presented, None, True), UnknownToken)
        self.refresh(self.a, self.pair)

    def test_presented_elsewhere(self) -> None:
        """What a store with another key has verified is verified again."""
        assert self.pair.refresh_token is not None
        presented = self.successResultOf(self.a.store.present(self.pair.refresh_token))
        failed = self.c.store.refresh(presented, None, True)
        self.failureResultOf(failed, KeyUnavailable)

    def test_found_out_by_a_token(self) -> None:
        """A token that a server cannot verify has the store's keys read before it is time."""
        b = self.machine(KeySet({1: ONE, 2: OTHER}, {2}))
        self.use(b, self.pair)
        self.a.file = KeySet({1: ONE, 2: TWO})
        self.all_fail(b, self.log_in(self.a), KeyUnavailable)


class RetiredTests(KeysTestCase):
    """Tests of retiring a key."""

    def setUp(self) -> None:
        super().setUp()
        self.old = self.log_in(self.a)
        self.a.file = self.b.file = KeySet({1: ONE, 2: TWO})
        self.new = self.log_in(self.a)
        self.use(self.b, self.old)
        self.assertTrue(self.successResultOf(self.a.store.retire_token_key(1)))
        self.a.file = KeySet({2: TWO})

    def test_over_everywhere(self) -> None:
        """Its tokens expire on every machine within seconds, even where the file has the key."""
        self.clock.advance(LIFETIME + 1)
        for at in (self.a, self.b):
            self.use(at, self.new)
            self.all_fail(at, self.old, ExpiredToken, SessionMismatch)
        self.assertEqual(len(self.successResultOf(self.a.store.sessions(None))), 2)

    def test_at_once(self) -> None:
        """Without the key in the file, the key never counts as missing, and no log line says so."""
        with capturedLogs() as events:
            self.log_in(self.a)
            self.all_fail(self.a, self.old, ExpiredToken, SessionMismatch)
        self.assertEqual(events, [])

    def test_logged_out(self) -> None:
        """The tokens of a session without a row are unknown, not expired."""
        self.successResultOf(self.a.store.revoke_all(ALICE))
        self.clock.advance(LIFETIME + 1)
        self.all_fail(self.a, self.old, UnknownToken)

    def test_line_deleted_by_hand(self) -> None:
        """A key that was removed from the file by hand counts as missing, not as retired."""
        self.a.file = KeySet({2: TWO, 3: OTHER})
        pair = self.log_in(self.a)
        self.a.file = KeySet({2: TWO, 4: ONE})
        with capturedLogs() as events:
            self.log_in(self.a)
            (said,) = set(self.all_fail(self.a, pair, KeyUnavailable))
        self.assertIn("retire-key 3", said)
        self.assertEqual(len(events), 1, events)

    def test_healthy_again(self) -> None:
        """A check alone notices that another key signs, or that the right file is here."""
        self.b.file = KeySet({1: ONE})
        self.clock.advance(LIFETIME + 1)
        self.failureResultOf(self.b.store.issue(ALICE, None, None, True, True), KeyUnavailable)
        self.failureResultOf(self.b.store.ping(), KeyUnavailable)
        self.b.file = KeySet({1: ONE, 7: TWO})
        self.clock.advance(LASTS)
        self.successResultOf(self.b.store.ping())

    def test_cost_of_checks(self) -> None:
        """However many checks there are, the keys are read once in a while for them."""
        self.b.file = KeySet({1: ONE})
        self.clock.advance(LIFETIME + 1)
        self.failureResultOf(self.b.store.issue(ALICE, None, None, True, True), KeyUnavailable)
        self.database.reads = 0
        for _ in range(20):
            self.failureResultOf(self.b.store.ping(), KeyUnavailable)
        self.assertEqual(self.database.reads, 1)
        self.clock.advance(LASTS)
        self.failureResultOf(self.b.store.ping(), KeyUnavailable)
        self.assertEqual(self.database.reads, 2)

    def test_signs_elsewhere(self) -> None:
        """A server whose signing key is retired makes no tokens until another key signs."""
        self.b.file = KeySet({1: ONE})
        self.clock.advance(LIFETIME + 1)
        self.failureResultOf(self.b.store.issue(ALICE, None, None, True, True), KeyUnavailable)
        self.b.file = self.a.file
        self.use(self.a, self.log_in(self.b))


class CostTests(KeysTestCase):
    """The cost of comparing keys."""

    database_class = OneWriteDatabase

    def test_nothing_further(self) -> None:
        """A refresh, a use of an access token and a login take one piece of work each."""
        pair = self.log_in(self.a)
        pair = self.refresh(self.a, pair)
        self.database.runs = self.database.reads = 0
        for _ in range(10):
            pair = self.refresh(self.a, pair)
            self.use(self.a, pair)
            self.log_in(self.a)
        self.assertEqual((self.database.runs, self.database.reads), (30, 0))

    def test_junk(self) -> None:
        """Forged tokens of any key are unknown, and the keys are not read for them."""
        pair = self.log_in(self.a)
        self.use(self.b, pair)
        parsed = parse(TokenKind.ACCESS, pair.access_token)
        assert parsed is not None
        self.database.reads = 0
        for key_id in range(2, 200):
            forger = KeyRing({key_id: OTHER})
            for session_id in (parsed.session_id, 12345):
                token = forger.derive(TokenKind.ACCESS, key_id, session_id, 0, bytes(16))
                self.failureResultOf(
                    self.b.store.session_for_access_token(token, True), UnknownToken
                )
        self.assertEqual(self.database.reads, 0)

    def test_cost_of_junk(self) -> None:
        """Text that is not a token is rejected without asking the database.

        A forged token costs one piece of work, which changes nothing.
        """
        pair = self.log_in(self.a)
        rows = self.database.sessions(None)
        self.database.runs = 0
        for junk in ("", "x", "syt_QQ_x_y", pair.access_token[:-1], f"{pair.access_token}A"):
            for answer in (
                self.a.store.session_for_access_token(junk, True),
                self.a.store.present(junk),
            ):
                self.failureResultOf(answer, UnknownToken)
        self.assertEqual(self.database.runs, 0)
        for number in range(1, 101):
            token = KeyRing({1: OTHER}).derive(TokenKind.ACCESS, 1, number, 0, bytes(16))
            self.failureResultOf(self.a.store.session_for_access_token(token, True), UnknownToken)
        self.assertEqual(self.database.runs, 100)
        self.assertEqual(self.database.sessions(None), rows)

    def test_retired(self) -> None:
        """The keys are not read for each token of a retired key either."""
        pair = self.log_in(self.a)
        self.a.file = KeySet({1: ONE, 2: TWO})
        self.log_in(self.a)
        self.successResultOf(self.a.store.retire_token_key(1))
        self.clock.advance(LIFETIME + 1)
        self.failureResultOf(
            self.a.store.session_for_access_token(pair.access_token, True), ExpiredToken
        )
        self.database.reads = 0
        for _ in range(10):
            self.failureResultOf(
                self.a.store.session_for_access_token(pair.access_token, True), ExpiredToken
            )
        self.assertEqual(self.database.reads, 0)

    def test_read_every_few_seconds(self) -> None:
        """The store's keys are read once each LIFETIME, however many requests there are."""
        pair = self.log_in(self.a)
        self.database.reads = 0
        for _ in range(20):
            self.clock.advance(LIFETIME / 2)
            for _ in range(5):
                self.use(self.a, pair)
        self.assertLessEqual(self.database.reads, 10)
        self.assertGreater(self.database.reads, 5)


class RestoredTests(KeysTestCase):
    """Tests of a restored store that does not know a key that signs now."""

    def test_known_again(self) -> None:
        """The store knows the key again once it signs."""
        self.a.file = self.b.file = KeySet({1: ONE, 2: TWO})
        self.log_in(self.a)
        del self.database._keys[2]
        self.clock.advance(LIFETIME + 1)
        self.log_in(self.a)
        self.log_in(self.a)
        self.assertEqual([key.key_id for key in self.database.token_keys()], [1, 2])
