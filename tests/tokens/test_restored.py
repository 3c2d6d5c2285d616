"""Tests for a restored store: from a backup, or a standby that lacked the last transactions."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import (
    ExpiredToken,
    LoginServiceError,
    ReusedToken,
    UnknownToken,
)
from synapse_login_module.model import TokenPair, TokenPolicy
from synapse_login_module.stores.derived import DerivedTokenStore
from synapse_login_module.stores.memory import MemoryDatabase
from synapse_login_module.testing.sessions import refresh
from synapse_login_module.tokens.format import KEY_SIZE, KeyRing, TokenKind, parse

ALICE = "@alice:example.com"
IDLE = 60 * 60
POLICY = TokenPolicy(refreshable_access_token=60_000, refresh_token=IDLE * 1000)


class World:
    """A store that can be restored, and its clients."""

    def __init__(self, policy: TokenPolicy = POLICY) -> None:
        self.now = 1_000_000.0
        self.policy = policy
        self.random = Random(0).randbytes
        self.keys = {1: self.random(KEY_SIZE)}
        self.restore(MemoryDatabase())

    def restore(self, database: MemoryDatabase) -> None:
        """Restore these rows, as after a restart."""
        self.database = copy.deepcopy(database)
        self.store = DerivedTokenStore(
            self.database, KeyRing(self.keys), self.policy, lambda: self.now, self.random
        )

    def backup(self) -> MemoryDatabase:
        return copy.deepcopy(self.database)

    def log_in(self) -> TokenPair:
        login = outcome(self.store.issue(ALICE, None, None, True, True))
        pair: TokenPair = login.tokens
        return pair

    def refresh(self, pair: TokenPair, strict: bool = False) -> Any:
        """Refresh; return the new pair, or the error."""
        assert pair.refresh_token is not None
        access_token = pair.access_token if strict else None
        return outcome(refresh(self.store, pair.refresh_token, access_token, strict))

    def use(self, pair: TokenPair, allow_expired: bool = False) -> Any:
        return outcome(self.store.session_for_access_token(pair.access_token, allow_expired))


def outcome(deferred: Deferred[Any]) -> Any:
    """Return the result of a Deferred, or its error if that is one of this package."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.trap(LoginServiceError)
        return result.value
    return result


def generation(pair: TokenPair) -> int:
    parsed = parse(TokenKind.ACCESS, pair.access_token)
    assert parsed is not None
    return parsed.generation


STEPS = st.lists(
    st.sampled_from(
        [
            *("refresh", "strict", "lost", "use", "use", "wait", "idle"),
            *("backup", "restore", "restore", "add a key"),
        ]
    ),
    max_size=40,
)
POLICIES = st.sampled_from(
    [
        POLICY,
        TokenPolicy(refreshable_access_token=None, reuse_interval=0),
        TokenPolicy(refreshable_access_token=5_000, refresh_token=30_000, reuse_interval=1_000),
    ]
)


class HonestClientTests(SynchronousTestCase):
    """Any history, restored to any moment after the login."""

    @settings(max_examples=300)
    @given(POLICIES, STEPS, st.lists(st.integers(0, 20), min_size=40, max_size=40))
    def test_goes_on(self, policy: TokenPolicy, steps: list[str], picks: list[int]) -> None:
        """A client without a thief is never logged out, and its chain never forks.

        Of each generation under one key there is one pair.
        """
        world = World(policy)
        pair = world.log_in()
        backups = [world.backup()]
        seen: dict[tuple[int, int], set[str | None]] = {}

        def refreshed(strict: bool) -> TokenPair:
            answer = world.refresh(pair, strict)
            self.assertIsInstance(answer, TokenPair, (steps, answer))
            parsed = parse(TokenKind.ACCESS, answer.access_token)
            assert parsed is not None
            tokens = seen.setdefault((parsed.generation, parsed.key_id), set())
            tokens.add(answer.refresh_token)
            self.assertEqual(len(tokens), 1, steps)
            self.assertEqual(generation(answer), generation(pair) + 1)
            new: TokenPair = answer
            return new

        for step, pick in zip(steps, picks, strict=False):
            if step == "refresh":
                pair = refreshed(strict=False)
            elif step == "strict":
                pair = refreshed(strict=True)
            elif step == "lost":
                refreshed(strict=False)
            elif step == "use":
                if isinstance(world.use(pair), ExpiredToken):
                    pair = refreshed(strict=False)
            elif step == "wait":
                world.now += 0.5
            elif step == "idle":  # for the idle lifetime but a second, between two refreshes
                pair = refreshed(strict=False)
                idle = policy.refresh_token
                world.now += 0 if idle is None else idle / 1000 - 1
                pair = refreshed(strict=False)
            elif step == "backup":
                backups.append(world.backup())
            elif step == "restore":
                world.restore(backups[pick % len(backups)])
            else:
                world.keys[max(world.keys) + 1] = world.random(KEY_SIZE)
                world.restore(world.database)
        refreshed(strict=True)


class RestoredTests(SynchronousTestCase):
    """Tests of clients and thieves after the store was restored."""

    def setUp(self) -> None:
        self.world = World()
        self.first = self.world.log_in()
        self.second = self.world.refresh(self.first, strict=True)
        self.backup = self.world.backup()
        self.pairs = [self.second]
        for _ in range(4):
            self.pairs.append(self.world.refresh(self.pairs[-1], strict=True))
        self.world.now += IDLE / 2
        self.world.restore(self.backup)

    def test_refresh(self) -> None:
        """The newest pair can be refreshed, and with that all older pairs are dead again."""
        for strict in (True, False):
            self.world.restore(self.backup)
            new = self.world.refresh(self.pairs[-1], strict)
            self.assertEqual(generation(new), 6)
            self.world.now += 20
            self.assertNotIsInstance(self.world.use(new), Exception)
            for old in (self.first, *self.pairs):
                self.assertIsInstance(self.world.use(old, True), ExpiredToken)
            self.assertIsInstance(self.world.refresh(self.pairs[0]), ReusedToken)

    def test_use(self) -> None:
        """The newest access token counts as expired; its use supersedes older ones."""
        newest = self.pairs[-1]
        self.assertIsInstance(self.world.use(newest), ExpiredToken)
        self.assertIsInstance(self.world.use(self.pairs[0], True), ExpiredToken)
        self.assertNotIsInstance(self.world.use(newest, True), Exception)
        self.assertIsInstance(self.world.refresh(newest), TokenPair)

    def test_lost_answer(self) -> None:
        """A response that is lost after the restore is repeated unchanged."""
        lost = self.world.refresh(self.pairs[-1])
        again = self.world.refresh(self.pairs[-1])
        self.assertEqual(again.refresh_token, lost.refresh_token)
        self.assertEqual(again.access_token, lost.access_token)

    def test_thief_first(self) -> None:
        """A thief with the pair of the backup goes on until the client comes.

        Then the thief's next refresh ends the session.
        """
        stolen = self.world.refresh(self.pairs[0])
        self.assertIsInstance(stolen, TokenPair)
        mine = self.world.refresh(self.pairs[-1])
        self.assertIsInstance(mine, TokenPair)
        self.assertIsInstance(self.world.use(stolen), ExpiredToken)
        self.assertIsInstance(self.world.refresh(stolen), ReusedToken)
        self.assertIsInstance(self.world.refresh(mine), LoginServiceError)

    def test_thief_ahead(self) -> None:
        """A thief who is ahead of the client is detected when the client comes."""
        stolen = self.pairs[0]
        for _ in range(8):
            stolen = self.world.refresh(stolen)
        self.assertIsInstance(self.world.refresh(self.pairs[-1]), ReusedToken)
        self.assertIsInstance(self.world.refresh(stolen), LoginServiceError)

    def test_thief_second(self) -> None:
        """A thief who presents an old token after the client ends the session."""
        mine = self.world.refresh(self.pairs[-1])
        self.assertIsInstance(self.world.refresh(self.pairs[0]), ReusedToken)
        self.assertIsInstance(self.world.refresh(mine), LoginServiceError)

    def test_two_servers(self) -> None:
        """Of two concurrent strict refreshes one succeeds; two lenient ones get one pair."""
        for strict, winners in ((True, 1), (False, 2)):
            self.world.restore(self.backup)
            answers = [self.world.refresh(self.pairs[-1], strict) for _ in range(2)]
            won = {each for each in answers if isinstance(each, TokenPair)}
            self.assertEqual(sum(isinstance(each, TokenPair) for each in answers), winners)
            self.assertEqual(len(won), 1)

    def test_over(self) -> None:
        """A session that is too old is over, whatever its generation."""
        self.world.policy = TokenPolicy(session=IDLE * 500)
        self.world.restore(self.backup)
        self.assertIsInstance(self.world.refresh(self.pairs[-1]), ExpiredToken)
        self.assertIsInstance(self.world.use(self.pairs[-1]), ExpiredToken)

    def test_began_since(self) -> None:
        """A session that began after the backup is unknown."""
        self.world.restore(MemoryDatabase())
        self.assertIsInstance(self.world.refresh(self.pairs[-1]), UnknownToken)

    def test_said(self) -> None:
        """The log has one line about it."""
        for use in (self.world.use, self.world.refresh):
            self.world.restore(self.backup)
            with capturedLogs() as events:
                use(self.pairs[-1])
                self.world.refresh(self.pairs[-1])
            (event,) = events
            self.assertIn("older than a token", str(event["log_format"]))
            self.assertEqual(event["user_id"], ALICE)
