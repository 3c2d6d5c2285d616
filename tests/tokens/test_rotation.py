"""Tests for the rules of presented tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.errors import (
    ExpiredToken,
    ReusedToken,
    SessionMismatch,
    SupersededToken,
    UnknownToken,
)
from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import Session, TokenPair, TokenPolicy
from synapse_login_module.stores import MemoryTokenStore
from synapse_login_module.stores.derived import DerivedTokenStore
from synapse_login_module.stores.memory import MemoryDatabase
from synapse_login_module.tokens import over, rotation
from synapse_login_module.tokens.format import KEY_SIZE, MAX_GENERATION, KeyRing, TokenKind
from synapse_login_module.tokens.rotation import AccessOutcome, Decision, Outcome

NOW = 1_000_000_000
POLICY = TokenPolicy(refreshable_access_token=300_000, reuse_interval=10_000)
OLD_KEY, NEW_KEY = 1, 2
COLUMNS = (True, False)


def a_session(**changes: Any) -> Session:
    """Make a session in its sixth generation, made under the old key, refreshed just now."""
    return Session(
        session_id=7,
        user_id="@alice:example.com",
        device_id="PHONE",
        display_name="mine",
        salt=bytes(16),
        key_id=OLD_KEY,
        generation=5,
        confirmed=True,
        created_at=NOW - 1_000_000,
        issued_at=NOW,
        access_expires_at=NOW + 300_000,
        previous_expires_at=NOW + 100_000,
    )._replace(**changes)


def decide(
    session: Session,
    presented: int,
    strict: bool,
    now: int = NOW,
    policy: TokenPolicy = POLICY,
) -> Decision:
    """Decide one refresh, with the new key in use."""
    return rotation.refresh(session, presented, now, strict, NEW_KEY, policy)


def reused(session: Session, now: int = NOW) -> Decision:
    """Return the decision for reuse: the row stays, in a generation that no token has."""
    ended = session._replace(generation=over.ENDED, confirmed=True, issued_at=now)
    return Decision(Outcome.REUSED, ended)


def look(
    session: Session, presented: int, now: int = NOW, policy: TokenPolicy = POLICY
) -> AccessOutcome:
    """Decide one use of an access token."""
    return rotation.access(session, presented, now, policy)


class LastGenerationTests(SynchronousTestCase):
    """Tests of a session that has used up its generations."""

    def test_ends(self) -> None:
        """It expires as one whose lifetime has passed, and its row does not change."""
        for strict in COLUMNS:
            for confirmed in (True, False):
                session = a_session(generation=MAX_GENERATION, confirmed=confirmed)
                self.assertEqual(
                    decide(session, MAX_GENERATION, strict), Decision(Outcome.EXPIRED), strict
                )

    def test_lost_answer(self) -> None:
        """A lost response with the last generation is repeated."""
        session = a_session(generation=MAX_GENERATION, confirmed=False)
        self.assertIs(decide(session, MAX_GENERATION - 1, False).outcome, Outcome.REPEATED)

    def test_last_but_one(self) -> None:
        """The generation before the last can still be refreshed."""
        session = a_session(generation=MAX_GENERATION - 1)
        decision = decide(session, MAX_GENERATION - 1, True)
        assert decision.session is not None
        self.assertEqual(decision.session.generation, MAX_GENERATION)

    def test_store(self) -> None:
        """A store reports it as expired, and its last access token is valid until it expires."""
        database, keys = MemoryDatabase(), KeyRing({NEW_KEY: bytes(KEY_SIZE)})
        store = DerivedTokenStore(
            database, keys, POLICY, lambda: NOW / 1000, lambda size: b"s" * size
        )
        session = a_session(key_id=NEW_KEY, generation=MAX_GENERATION)
        database.insert(session)
        refresh, access = (
            keys.derive(kind, NEW_KEY, session.session_id, MAX_GENERATION, session.salt)
            for kind in (TokenKind.REFRESH, TokenKind.ACCESS)
        )
        for strict in COLUMNS:
            self.failureResultOf(testing.refresh(store, refresh, None, strict), ExpiredToken)
        found = self.successResultOf(store.session_for_access_token(access, allow_expired=False))
        self.assertEqual(found.user_id, session.user_id)


class CurrentTokenTests(SynchronousTestCase):
    """Tests of the row "n = g, live"."""

    def test_strict(self) -> None:
        """A strict refresh makes the next generation, confirmed at once."""
        decision = decide(a_session(), 5, strict=True, now=NOW + 1000)
        self.assertEqual(
            decision,
            Decision(
                Outcome.ROTATED,
                a_session(
                    key_id=NEW_KEY,
                    generation=6,
                    confirmed=True,
                    issued_at=NOW + 1000,
                    access_expires_at=NOW + 301_000,
                    previous_expires_at=NOW + 300_000,
                ),
            ),
        )

    def test_strict_kills_the_old_pair(self) -> None:
        """After a strict refresh both tokens of the old pair are invalid."""
        after = decide(a_session(), 5, strict=True).session
        assert after is not None
        self.assertIs(look(after, 5), AccessOutcome.SUPERSEDED)
        for strict in COLUMNS:
            self.assertIsNone(decide(after, 5, strict).session)

    def test_lenient(self) -> None:
        """A lenient refresh makes the next generation, which is not confirmed yet."""
        decision = decide(a_session(), 5, strict=False, now=NOW + 1000)
        self.assertEqual(
            decision,
            Decision(
                Outcome.ROTATED,
                a_session(
                    key_id=NEW_KEY,
                    generation=6,
                    confirmed=False,
                    issued_at=NOW + 1000,
                    access_expires_at=NOW + 301_000,
                    previous_expires_at=NOW + 300_000,
                ),
            ),
        )

    def test_lenient_keeps_the_old_pair(self) -> None:
        """After a lenient refresh the old pair is valid until the new one is first used."""
        after = decide(a_session(), 5, strict=False).session
        assert after is not None
        self.assertIs(look(after, 5), AccessOutcome.VALID)
        self.assertIs(look(after, 6), AccessOutcome.CONFIRMS)
        used = after._replace(confirmed=True)
        self.assertIs(look(used, 5), AccessOutcome.SUPERSEDED)
        self.assertIs(look(used, 6), AccessOutcome.VALID)

    def test_unconfirmed(self) -> None:
        """A refresh token confirms its own pair: the pair before that is dead."""
        for strict in COLUMNS:
            decision = decide(a_session(confirmed=False), 5, strict)
            self.assertIs(decision.outcome, Outcome.ROTATED)
            assert decision.session is not None
            self.assertEqual(decision.session.generation, 6)
            self.assertIs(look(decision.session, 4), AccessOutcome.SUPERSEDED)
            self.assertIs(decide(decision.session, 4, strict).outcome, Outcome.REUSED)

    def test_access_token_that_never_expired(self) -> None:
        """After a refresh the new access token expires, even if the old one never did."""
        decision = decide(a_session(access_expires_at=None), 5, strict=False)
        assert decision.session is not None
        self.assertEqual(decision.session.access_expires_at, NOW + 300_000)
        self.assertIsNone(decision.session.previous_expires_at)
        self.assertIs(look(decision.session, 5, NOW + 10**12), AccessOutcome.VALID)


class PreviousTokenTests(SynchronousTestCase):
    """Tests of the rows "n = g-1"."""

    def test_strict_while_unconfirmed(self) -> None:
        """The same pair is repeated, under the key of the first time, and is confirmed."""
        session = a_session(confirmed=False)
        self.assertEqual(
            decide(session, 4, strict=True, now=NOW + 1000),
            Decision(
                Outcome.REPEATED,
                session._replace(
                    confirmed=True,
                    issued_at=NOW + 1000,
                    access_expires_at=NOW + 301_000,
                ),
            ),
        )

    def test_lenient_while_unconfirmed(self) -> None:
        """The same pair is repeated, under the key of the first time, any number of times."""
        session = a_session(confirmed=False)
        for times in range(1, 5):
            decision = decide(session, 4, strict=False, now=NOW + times * 1000)
            self.assertEqual(
                decision,
                Decision(
                    Outcome.REPEATED,
                    session._replace(
                        issued_at=NOW + times * 1000,
                        access_expires_at=NOW + 300_000 + times * 1000,
                    ),
                ),
            )
            assert decision.session is not None
            session = decision.session

    def test_old_access_token_after_a_repeated_answer(self) -> None:
        """Repeating a pair leaves the expiry of the old access token."""
        after = decide(a_session(confirmed=False), 4, strict=False).session
        assert after is not None
        self.assertIs(look(after, 4, NOW + 99_999), AccessOutcome.VALID)
        self.assertIs(look(after, 4, NOW + 100_000), AccessOutcome.EXPIRED)

    def test_race(self) -> None:
        """Within the reuse interval the loser of a race is rejected, and the session lives."""
        for strict in COLUMNS:
            for now in (NOW, NOW + 9_999):
                self.assertEqual(decide(a_session(), 4, strict, now), Decision(Outcome.RACED))

    def test_after_the_race(self) -> None:
        """From the end of the reuse interval on it is reuse."""
        for strict in COLUMNS:
            later = NOW + 10_000
            self.assertEqual(decide(a_session(), 4, strict, later), reused(a_session(), later))

    def test_no_interval(self) -> None:
        """Without a reuse interval every replay is reuse, at once."""
        policy = replace(POLICY, reuse_interval=0)
        for strict in COLUMNS:
            self.assertEqual(decide(a_session(), 4, strict, policy=policy), reused(a_session()))


class OlderTokenTests(SynchronousTestCase):
    """Tests of the rows "n < g otherwise" and "any"."""

    def test_reuse(self) -> None:
        """A token from before the previous one is reuse, confirmed or not, however old it is."""
        for strict in COLUMNS:
            for confirmed in (True, False):
                for presented in range(4):
                    session = a_session(confirmed=confirmed)
                    self.assertEqual(decide(session, presented, strict), reused(session))

    def test_after_reuse(self) -> None:
        """Once reuse has ended a session, all its tokens are superseded for good.

        No more use is reuse, and no token is unknown, not even of the highest generation.
        """
        ended = over.end(a_session(), NOW)
        policy = TokenPolicy(refresh_token=1, session=1)
        for presented in (0, 4, 5, MAX_GENERATION):
            for strict in COLUMNS:
                self.assertEqual(
                    decide(ended, presented, strict, NOW + 10**9, policy), Decision(Outcome.ENDED)
                )
            self.assertIs(look(ended, presented, NOW + 10**9), AccessOutcome.SUPERSEDED)

    def test_idle(self) -> None:
        """Once the idle lifetime has passed, every refresh token expires and nothing is revoked."""
        policy = replace(POLICY, refresh_token=60_000)
        for strict in COLUMNS:
            for confirmed in (True, False):
                session = a_session(confirmed=confirmed)
                for presented in range(6):
                    self.assertEqual(
                        decide(session, presented, strict, NOW + 60_000, policy),
                        Decision(Outcome.EXPIRED),
                    )
                self.assertIs(
                    decide(session, 5, strict, NOW + 59_999, policy).outcome, Outcome.ROTATED
                )

    def test_absolute(self) -> None:
        """Once the session's lifetime has passed, every token is rejected and nothing revoked."""
        policy = replace(POLICY, session=1_060_000)
        for strict in COLUMNS:
            for presented in range(6):
                self.assertEqual(
                    decide(a_session(), presented, strict, NOW + 60_000, policy),
                    Decision(Outcome.EXPIRED),
                )
            self.assertIs(
                decide(a_session(), 5, strict, NOW + 59_999, policy).outcome, Outcome.ROTATED
            )

    def test_refresh_moves_the_idle_lifetime_alone(self) -> None:
        """A refresh restarts the idle lifetime, and not the absolute one."""
        policy = replace(POLICY, refresh_token=60_000, session=1_090_000)
        after = decide(a_session(), 5, True, NOW + 59_999, policy).session
        assert after is not None
        self.assertIs(decide(after, 6, True, NOW + 89_999, policy).outcome, Outcome.ROTATED)
        self.assertIs(decide(after, 6, True, NOW + 90_000, policy).outcome, Outcome.EXPIRED)

    def test_future(self) -> None:
        """A token that is ahead of the row shows that the row is old, so the row catches up.

        The refresh goes as for a current token. The previous access token counts as expired, since
        the time of its expiry is lost.
        """
        for strict in COLUMNS:
            for presented in (6, 7, 1_000_000):
                rotated = a_session(
                    key_id=NEW_KEY,
                    generation=presented + 1,
                    confirmed=strict,
                    issued_at=NOW + 1000,
                    access_expires_at=NOW + 301_000,
                    previous_expires_at=NOW + 1000,
                )
                for confirmed in (True, False):
                    self.assertEqual(
                        decide(a_session(confirmed=confirmed), presented, strict, NOW + 1000),
                        Decision(Outcome.CAUGHT_UP, rotated),
                    )

    def test_future_of_an_idle_row(self) -> None:
        """An old row does not know how long its session was idle. It knows how old it is."""
        policy = replace(POLICY, refresh_token=60_000, session=1_090_000)
        later = NOW + 80_000
        self.assertIs(decide(a_session(), 5, True, later, policy).outcome, Outcome.EXPIRED)
        self.assertIs(decide(a_session(), 6, True, later, policy).outcome, Outcome.CAUGHT_UP)
        self.assertEqual(
            decide(a_session(), 6, True, NOW + 90_000, policy), Decision(Outcome.EXPIRED)
        )


class AccessTests(SynchronousTestCase):
    """Tests of access tokens."""

    def test_current(self) -> None:
        """The current token is valid until it expires."""
        self.assertIs(look(a_session(), 5, NOW + 299_999), AccessOutcome.VALID)
        self.assertIs(look(a_session(), 5, NOW + 300_000), AccessOutcome.EXPIRED)

    def test_first_use(self) -> None:
        """The first use of a token confirms its pair, unless it has expired."""
        session = a_session(confirmed=False)
        self.assertIs(look(session, 5, NOW + 299_999), AccessOutcome.CONFIRMS)
        self.assertIs(look(session, 5, NOW + 300_000), AccessOutcome.EXPIRED)

    def test_previous(self) -> None:
        """The previous token is valid until it expires, while the current one is unused."""
        session = a_session(confirmed=False)
        self.assertIs(look(session, 4, NOW + 99_999), AccessOutcome.VALID)
        self.assertIs(look(session, 4, NOW + 100_000), AccessOutcome.EXPIRED)
        self.assertIs(look(a_session(), 4), AccessOutcome.SUPERSEDED)

    def test_older(self) -> None:
        """Older tokens are superseded."""
        for confirmed in (True, False):
            for presented in range(4):
                self.assertIs(
                    look(a_session(confirmed=confirmed), presented), AccessOutcome.SUPERSEDED
                )

    def test_future(self) -> None:
        """A token that is ahead of the row makes the row catch up, unless the session is over."""
        for confirmed in (True, False):
            self.assertIs(look(a_session(confirmed=confirmed), 6), AccessOutcome.AHEAD)
        policy = replace(POLICY, session=1_060_000)
        self.assertIs(look(a_session(), 6, NOW + 60_000, policy), AccessOutcome.EXPIRED)

    def test_caught_up(self) -> None:
        """The row that caught up is confirmed, and its access token expired, if any expire."""
        row = rotation.caught_up(a_session(confirmed=False), 9, NOW + 7, POLICY)
        self.assertIs(look(row, 9, NOW + 7), AccessOutcome.EXPIRED)
        self.assertIs(look(row, 8, NOW + 7), AccessOutcome.SUPERSEDED)
        self.assertIs(decide(row, 9, False, NOW + 7).outcome, Outcome.ROTATED)
        self.assertIs(decide(row, 8, False, NOW + 7).outcome, Outcome.RACED)
        self.assertIs(decide(row, 8, False, NOW + 10_007).outcome, Outcome.REUSED)
        self.assertIs(decide(row, 7, False, NOW + 7).outcome, Outcome.REUSED)
        lasting = replace(POLICY, refreshable_access_token=None)
        row = rotation.caught_up(a_session(), 9, NOW + 7, lasting)
        self.assertIs(look(row, 9, NOW + 10**12, lasting), AccessOutcome.VALID)
        row = rotation.caught_up(a_session(), 9, NOW + 7, replace(lasting, session=1_060_000))
        self.assertEqual(row.access_expires_at, NOW + 60_000)

    def test_no_expiry(self) -> None:
        """A token without an expiry is valid for ever."""
        session = a_session(access_expires_at=None)
        self.assertIs(look(session, 5, NOW + 10**12), AccessOutcome.VALID)

    def test_absolute(self) -> None:
        """No token outlives its session."""
        policy = replace(POLICY, session=1_060_000)
        session = a_session(confirmed=False, access_expires_at=None, previous_expires_at=None)
        for presented in (4, 5):
            self.assertNotEqual(
                look(session, presented, NOW + 59_999, policy), AccessOutcome.EXPIRED
            )
            self.assertIs(look(session, presented, NOW + 60_000, policy), AccessOutcome.EXPIRED)

    def test_idle(self) -> None:
        """The idle lifetime holds for refresh tokens only."""
        policy = replace(POLICY, refresh_token=1000)
        self.assertIs(look(a_session(), 5, NOW + 200_000, policy), AccessOutcome.VALID)

    def test_access_expiry(self) -> None:
        """An access token ends with its lifetime or with the session, whichever is first."""
        bounded = replace(POLICY, session=1000)
        for lifetime, policy, expected in (
            (None, POLICY, None),
            (600, POLICY, 5600),
            (None, bounded, 5500),
            (600, bounded, 5500),
            (400, bounded, 5400),
        ):
            self.assertEqual(rotation.access_expiry(5000, lifetime, 4500, policy), expected)


some_sessions = st.builds(
    a_session,
    generation=st.integers(0, 6),
    confirmed=st.booleans(),
    created_at=st.integers(NOW - 200_000, NOW),
    issued_at=st.integers(NOW - 100_000, NOW + 100_000),
    access_expires_at=st.none() | st.integers(NOW - 100_000, NOW + 300_000),
    previous_expires_at=st.none() | st.integers(NOW - 100_000, NOW + 300_000),
)
some_policies = st.builds(
    TokenPolicy,
    refreshable_access_token=st.none() | st.integers(1, 300_000),
    refresh_token=st.none() | st.integers(1, 200_000),
    session=st.none() | st.integers(1, 300_000),
    reuse_interval=st.integers(0, 100_000),
)
some_times = st.integers(NOW - 150_000, NOW + 150_000)


class PropertyTests(SynchronousTestCase):
    """Properties that hold for every row, token, time and policy."""

    @given(some_sessions, st.integers(0, 8), some_times, st.booleans(), some_policies)
    def test_refresh(
        self, session: Session, presented: int, now: int, strict: bool, policy: TokenPolicy
    ) -> None:
        """A refresh writes only where it returns a pair or ends the session.

        It advances the row by one generation. A token that is ahead of the row advances it to one
        past the token.
        """
        decision = decide(session, presented, strict, now, policy)
        if decision.outcome is Outcome.REUSED:
            self.assertEqual(decision, reused(session, now))
            return
        answered = decision.outcome in (Outcome.ROTATED, Outcome.CAUGHT_UP, Outcome.REPEATED)
        self.assertEqual(decision.session is not None, answered)
        if decision.session is None:
            return
        after = decision.session
        rotated = decision.outcome is not Outcome.REPEATED
        if decision.outcome is Outcome.CAUGHT_UP:
            self.assertGreater(presented, session.generation)
        else:
            self.assertEqual(presented, session.generation - (not rotated))
        self.assertEqual(after.generation, presented + 1)
        self.assertEqual(after.key_id, NEW_KEY if rotated else session.key_id)
        self.assertEqual(after.confirmed, strict)
        self.assertEqual(after.issued_at, now)
        self.assertEqual(
            after._replace(
                key_id=session.key_id,
                generation=session.generation,
                confirmed=session.confirmed,
                issued_at=session.issued_at,
                access_expires_at=session.access_expires_at,
                previous_expires_at=session.previous_expires_at,
            ),
            session,
        )

    @given(some_sessions, some_times, st.booleans(), some_policies)
    def test_live_tokens(
        self, session: Session, now: int, strict: bool, policy: TokenPolicy
    ) -> None:
        """At any time only the last two generations can be refreshed.

        The earlier one can only while the last is unused.
        """
        live = [
            presented
            for presented in range(session.generation + 1)
            if decide(session, presented, strict, now, policy).outcome
            in (Outcome.ROTATED, Outcome.REPEATED)
        ]
        allowed = [session.generation]
        if not session.confirmed and session.generation:
            allowed = [session.generation - 1, session.generation]
        self.assertIn(live, ([], allowed))

    @given(some_sessions, st.integers(0, 8), some_times, st.booleans(), some_policies)
    def test_columns_agree(
        self, session: Session, presented: int, now: int, first: bool, policy: TokenPolicy
    ) -> None:
        """The two columns agree on the outcome of a token, and differ only in what stays valid."""
        decisions = [decide(session, presented, strict, now, policy) for strict in COLUMNS]
        self.assertIs(decisions[0].outcome, decisions[1].outcome)
        rows = [
            decision.session and decision.session._replace(confirmed=first)
            for decision in decisions
        ]
        self.assertEqual(rows[0], rows[1])

    @given(some_sessions, some_times, some_policies)
    def test_lost_answer(self, session: Session, now: int, policy: TokenPolicy) -> None:
        """A lenient refresh can be repeated, and returns the same generation under the same key."""
        first = decide(session, session.generation, False, now, policy).session
        if first is None:
            return
        again = rotation.refresh(first, session.generation, now, False, NEW_KEY + 1, policy)
        self.assertEqual(again, Decision(Outcome.REPEATED, first))

    @given(some_sessions, st.integers(0, 1_000_000), st.booleans())
    def test_clock_stepping_back(self, session: Session, step: int, strict: bool) -> None:
        """While the clock is before the last refresh, live tokens work and races are no reuse."""
        policy = TokenPolicy(refresh_token=1, session=1, reuse_interval=1)
        now = min(session.issued_at, session.created_at) - step
        generation = session.generation
        decision = decide(session, generation, strict, now, policy)
        self.assertIs(decision.outcome, Outcome.ROTATED)
        if generation:
            expected = Outcome.RACED if session.confirmed else Outcome.REPEATED
            self.assertIs(decide(session, generation - 1, strict, now, policy).outcome, expected)


MACHINE_POLICIES = st.sampled_from(
    [
        TokenPolicy(reuse_interval=10_000),
        TokenPolicy(reuse_interval=0, refreshable_access_token=None),
        TokenPolicy(
            reuse_interval=20_000,
            refreshable_access_token=30_000,
            nonrefreshable_access_token=60_000,
        ),
        TokenPolicy(
            reuse_interval=10_000,
            refreshable_access_token=30_000,
            refresh_token=60_000,
            session=200_000,
        ),
    ]
)
PICK = st.integers(0, 1_000)
AGE = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 9])


@dataclass
class Expected:
    """The rule table for one session; ``history`` holds the pairs by generation."""

    device_id: str
    created_at: int
    issued_at: int
    history: list[TokenPair]
    expires_at: list[int | None]
    confirmed: bool = True
    over: bool = False
    reused: bool = False
    dead: set[str | None] = field(default_factory=set)

    @property
    def last(self) -> int:
        """The current generation."""
        return len(self.history) - 1

    def presented(self, age: int) -> int:
        """The generation that far back, or the first."""
        return max(0, self.last - age)


def outcome_of(deferred: Deferred[Any]) -> Any:
    """Return the result of a Deferred, or its error."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        if not result.check(UnknownToken, ExpiredToken, SessionMismatch):
            result.raiseException()
        return result.value
    return result


def tokens_of(pair: TokenPair) -> tuple[str, str | None]:
    """Return the tokens of a pair, without its lifetime."""
    return pair.access_token, pair.refresh_token


class SessionMachine(RuleBasedStateMachine):
    """Any number of clients and thieves, against the store and the table."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.random = Random(0).randbytes
        self.database = MemoryDatabase()
        self.keys = {1: self.random(KEY_SIZE)}
        self.sessions: list[Expected] = []
        self.touched: Expected | None = None

    @initialize(policy=MACHINE_POLICIES)
    def begin(self, policy: TokenPolicy) -> None:
        self.policy = policy
        self.store = self.store_over(self.database)

    def store_over(self, database: MemoryDatabase) -> DerivedTokenStore:
        return DerivedTokenStore(
            database, KeyRing(self.keys), self.policy, lambda: self.now / 1000, self.random
        )

    def probe(self, ask: Callable[[ITokenStore], Deferred[Any]]) -> Any:
        """Return what the store would return, on a copy of its rows."""
        return outcome_of(ask(self.store_over(copy.deepcopy(self.database))))

    def pick(self, which: int) -> Expected:
        self.touched = self.sessions[which % len(self.sessions)]
        return self.touched

    def ended(self, session: Expected) -> bool:
        return self.policy.session is not None and (
            self.now - session.created_at >= self.policy.session
        )

    def idle(self, session: Expected) -> bool:
        return self.policy.refresh_token is not None and (
            self.now - session.issued_at >= self.policy.refresh_token
        )

    def is_spent(self, session: Expected) -> bool:
        """Return whether no token of a session is valid any more."""
        if self.ended(session):
            return True
        lately = session.expires_at[-1:] if session.confirmed else session.expires_at[-2:]
        return self.idle(session) and all(at is not None and self.now >= at for at in lately)

    def expiry(self, session: Expected) -> int | None:
        ends = []
        if self.policy.refreshable_access_token is not None:
            ends.append(self.now + self.policy.refreshable_access_token)
        if self.policy.session is not None:
            ends.append(session.created_at + self.policy.session)
        return min(ends, default=None)

    @rule(device=st.sampled_from([None, "PHONE", "TABLET"]))
    def log_in(self, device: str | None) -> None:
        login = outcome_of(self.store.issue("@alice:example.com", device, None, True, True))
        for session in self.sessions:
            if session.device_id == login.device_id:
                session.over, session.reused = True, False
        session = Expected(login.device_id, self.now, self.now, [login.tokens], [])
        session.expires_at.append(self.expiry(session))
        self.sessions.append(session)
        self.touched = session

    @precondition(lambda self: self.sessions)
    @rule(which=PICK, age=AGE, strict=st.booleans(), accompanied=st.booleans(), access_age=AGE)
    def refresh(
        self, which: int, age: int, strict: bool, accompanied: bool, access_age: int
    ) -> None:
        session = self.pick(which)
        presented, last = session.presented(age), session.last
        token = session.history[presented].refresh_token
        assert token is not None
        access_token = session.history[session.presented(access_age)].access_token
        answer = outcome_of(
            testing.refresh(self.store, token, access_token if accompanied else None, strict)
        )
        if session.reused:
            assert type(answer) is SupersededToken, answer
        elif session.over:
            assert type(answer) is UnknownToken, answer
        elif self.idle(session) or self.ended(session):
            assert type(answer) is ExpiredToken, answer
        elif presented == last:
            assert isinstance(answer, TokenPair), answer
            seen = {
                each for one in self.sessions for pair in one.history for each in tokens_of(pair)
            }
            assert not seen & set(tokens_of(answer))
            session.history.append(answer)
            session.expires_at.append(self.expiry(session))
            session.confirmed, session.issued_at = strict, self.now
        elif presented == last - 1 and not session.confirmed:
            assert isinstance(answer, TokenPair), answer
            assert tokens_of(answer) == tokens_of(session.history[last])
            session.expires_at[last] = self.expiry(session)
            session.confirmed, session.issued_at = strict, self.now
        elif presented == last - 1 and self.now - session.issued_at < self.policy.reuse_interval:
            assert type(answer) is SupersededToken, answer
        else:
            assert type(answer) is ReusedToken, answer
            session.over = session.reused = True

    @precondition(lambda self: self.sessions)
    @rule(which=PICK, age=AGE, allow_expired=st.booleans())
    def use(self, which: int, age: int, allow_expired: bool) -> None:
        session = self.pick(which)
        presented, last = session.presented(age), session.last
        answer = outcome_of(
            self.store.session_for_access_token(
                session.history[presented].access_token, allow_expired
            )
        )
        expires_at = session.expires_at[presented]
        expired = (expires_at is not None and self.now >= expires_at) or self.ended(session)
        current = presented == last or (presented == last - 1 and not session.confirmed)
        if session.over and not session.reused:
            assert type(answer) is UnknownToken, answer
        elif session.over or not current or (expired and not allow_expired):
            assert type(answer) is ExpiredToken, answer
        else:
            assert answer.device_id == session.device_id, answer
            if presented == last and not expired:
                session.confirmed = True

    @precondition(lambda self: self.sessions)
    @rule(which=PICK, other=PICK, strict=st.booleans())
    def refresh_with_another_sessions_access_token(
        self, which: int, other: int, strict: bool
    ) -> None:
        session = self.pick(which)
        stranger = self.sessions[other % len(self.sessions)]
        token = session.history[session.last].refresh_token
        assert token is not None
        access_token = (
            stranger.history[stranger.last].access_token if stranger is not session else "x"
        )
        answer = outcome_of(testing.refresh(self.store, token, access_token, strict))
        gone = session.over and not session.reused
        assert type(answer) is (UnknownToken if gone else SessionMismatch), answer

    @precondition(lambda self: self.sessions)
    @rule(which=PICK)
    def log_out(self, which: int) -> None:
        session = self.pick(which)
        handle = outcome_of(self.store.sessions(None))
        for info in handle:
            if info.device_id == session.device_id and not session.over:
                outcome_of(self.store.revoke(info))
                session.over = True

    @rule(seconds=st.sampled_from([1, 5, 10, 20, 30, 60, 150]))
    def wait(self, seconds: int) -> None:
        self.now += seconds * 1000

    @rule(seconds=st.sampled_from([1, 10, 100]))
    def step_back(self, seconds: int) -> None:
        self.now -= seconds * 1000

    @rule()
    def add_a_key(self) -> None:
        self.keys[max(self.keys) + 1] = self.random(KEY_SIZE)
        self.store = self.store_over(self.database)

    @invariant()
    def at_most_two_refresh_tokens_live(self) -> None:
        session = self.touched
        if session is None:
            return
        answers = [
            self.probe(
                lambda store, pair=pair: testing.refresh(store, pair.refresh_token, None, False)  # type: ignore[misc]
            )
            for pair in session.history
        ]
        live = [at for at, answer in enumerate(answers) if isinstance(answer, TokenPair)]
        assert len(live) <= 2, live
        assert set(live) <= {session.last - 1, session.last}, live
        if session.confirmed:
            assert set(live) <= {session.last}, live

    @invariant()
    def nothing_dead_comes_back(self) -> None:
        session = self.touched
        if session is None:
            return
        for pair in session.history:
            refreshed = self.probe(
                lambda store, pair=pair: testing.refresh(store, pair.refresh_token, None, False)  # type: ignore[misc]
            )
            used = self.probe(
                lambda store, pair=pair: store.session_for_access_token(pair.access_token, True)  # type: ignore[misc]
            )
            for token, answer in ((pair.refresh_token, refreshed), (pair.access_token, used)):
                if token in session.dead:
                    assert isinstance(answer, Exception), (token, answer)
                elif isinstance(answer, UnknownToken | SupersededToken) or (
                    token == pair.access_token and isinstance(answer, ExpiredToken)
                ):
                    session.dead.add(token)

    @invariant()
    def live_sessions_are_listed(self) -> None:
        listed = sorted(each.device_id for each in outcome_of(self.store.sessions(None)))
        living = [each for each in self.sessions if not (each.over or self.is_spent(each))]
        assert listed == sorted(each.device_id for each in living)


class StatefulTests(SynchronousTestCase):
    """Tests of the store as its users see it."""

    def test_sessions(self) -> None:
        """Whatever its holders do, and in whatever order, a session follows the table.

        The chain never forks, at most two refresh tokens are live, no dead token comes back,
        and reuse is detected.
        """
        run_state_machine_as_test(
            SessionMachine,
            settings=settings(max_examples=150, stateful_step_count=40),
        )


class TwoHoldersTests(SynchronousTestCase):
    """Tests of a client and a thief who hold the same token."""

    def setUp(self) -> None:
        clock = Clock()
        clock.advance(1_000_000)
        self.clock = clock
        self.store = MemoryTokenStore(None, testing.environment(clock=clock))

    def issue(self) -> TokenPair:
        login = self.successResultOf(self.store.issue("@alice:example.com", None, None, True, True))
        return login.tokens

    def refresh(self, pair: TokenPair, strict: bool = False) -> TokenPair:
        assert pair.refresh_token is not None
        return self.successResultOf(testing.refresh(self.store, pair.refresh_token, None, strict))

    def test_lenient(self) -> None:
        """Client and thief share one chain. The first to fall behind ends it for both."""
        first = self.issue()
        owner, thief = self.refresh(first), self.refresh(first)
        self.assertEqual(tokens_of(owner), tokens_of(thief))
        thief = self.refresh(self.refresh(thief))
        assert owner.refresh_token is not None
        self.failureResultOf(
            testing.refresh(self.store, owner.refresh_token, None, False), ReusedToken
        )
        self.failureResultOf(
            self.store.session_for_access_token(thief.access_token, True), ExpiredToken
        )

    def test_strict(self) -> None:
        """One of the two gets the chain; the other's later refresh ends it."""
        first = self.issue()
        thief = self.refresh(first, strict=True)
        self.clock.advance(10)
        assert first.refresh_token is not None
        self.failureResultOf(
            testing.refresh(self.store, first.refresh_token, None, True), ReusedToken
        )
        self.failureResultOf(
            self.store.session_for_access_token(thief.access_token, True), ExpiredToken
        )

    def test_mixed(self) -> None:
        """Repeating a lenient refresh strictly returns the same pair, and confirms it."""
        first = self.issue()
        lenient = self.refresh(first)
        strict = self.refresh(first, strict=True)
        self.assertEqual(tokens_of(lenient), tokens_of(strict))
        self.failureResultOf(
            self.store.session_for_access_token(first.access_token, False), ExpiredToken
        )
        assert first.refresh_token is not None
        self.failureResultOf(
            testing.refresh(self.store, first.refresh_token, None, False), SupersededToken
        )
