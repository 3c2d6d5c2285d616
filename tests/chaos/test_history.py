"""Tests for the checker: it passes a right store and catches each wrong one."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.history import History, Invariant, Pair, Request, Use, Violation, check
from tests.chaos.toys import (
    AcknowledgesFirst,
    Forgets,
    ReadsThenWrites,
    Revives,
    Row,
    ToyStore,
)

_SEEDS = range(40)
_STEPS = 400
_SESSIONS = 3
_IN_FLIGHT = 3


@dataclass
class Underway:
    """A refresh between its two halves."""

    request: Request
    read: Row | None


@dataclass
class Run:
    """Clients of a toy store that refresh, race, retry and see it crash, as chance has it."""

    store: ToyStore
    random: Random
    history: History = field(default_factory=History)
    newest: dict[str, Pair] = field(default_factory=dict)
    previous: dict[str, Pair] = field(default_factory=dict)
    underway: list[Underway] = field(default_factory=list)
    logins: int = 0

    def go(self) -> list[Violation]:
        """Do it all, and judge it."""
        for _ in range(_STEPS):
            while len(self.newest) < _SESSIONS:
                self._log_in()
            step = self.random.choices(
                [self._begin, self._finish, self._look_up, self._log_out, self._crash],
                [8, 8, 4, 0.3, 0.7],
            )[0]
            step()
        while self.underway:
            self._finish()
        self.history.found(self.store.sessions)
        return check(self.history)

    def _log_in(self) -> None:
        self.logins += 1
        session = f"session {self.logins}"
        self.newest[session] = self.store.log_in(session)
        self.history.logged_in(session, self.newest[session])

    def _choose(self) -> tuple[str, Pair]:
        """A session, and its newest pair or sometimes the one before that."""
        session = self.random.choice(sorted(self.newest))
        if session in self.previous and self.random.random() < 0.2:
            return session, self.previous[session]
        return session, self.newest[session]

    def _begin(self) -> None:
        if len(self.underway) == _IN_FLIGHT:
            return
        session, pair = self._choose()
        use = self.random.choice([Use.STRICT, Use.LENIENT])
        request = self.history.ask(session, pair, use)
        self.underway.append(Underway(request, self.store.read(session)))

    def _finish(self) -> None:
        if not self.underway:
            return
        underway = self.underway.pop(self.random.randrange(len(self.underway)))
        request, session = underway.request, underway.request.session
        answer = self._run(underway)
        if answer is None:
            self._refused(request)
            return
        self.history.accepted(request, answer)
        if self.newest.get(session) == request.pair:
            self.previous[session], self.newest[session] = request.pair, answer

    def _look_up(self) -> None:
        session, pair = self._choose()
        request = self.history.ask(session, pair, Use.LOOK_UP)
        if self.store.session_for_access_token(session, pair):
            self.history.accepted(request)
        else:
            self._refused(request)

    def _log_out(self) -> None:
        session = self.random.choice(sorted(self.newest))
        request = self.history.ask(session, self.newest[session], Use.LOG_OUT)
        if self.store.log_out(session, request.pair):
            self.history.accepted(request)
            del self.newest[session]
        else:
            self._refused(request)

    def _crash(self) -> None:
        """Run some of the requests under way. No client gets a response."""
        for underway in self.underway:
            if self.random.random() < 0.5:
                self._run(underway)
        self.store.crash()
        for underway in self.underway:
            self.history.lost(underway.request)
        self.underway.clear()

    def _run(self, underway: Underway) -> Pair | None:
        request = underway.request
        strict = request.use is Use.STRICT
        return self.store.refresh(request.session, underway.read, request.pair, strict)

    def _refused(self, request: Request) -> None:
        """A client whose newest pair is refused logs in again."""
        self.history.refused(request)
        if self.newest.get(request.session) == request.pair:
            del self.newest[request.session]


def _violated(kind: type[ToyStore]) -> set[Invariant]:
    """Return the invariants that runs of a store violate."""
    violated: set[Invariant] = set()
    for seed in _SEEDS:
        random = Random(seed)
        violated.update(each.invariant for each in Run(kind(random), random).go())
    return violated


class SeededBugTests(SynchronousTestCase):
    """A checker that never finds anything would pass every store."""

    def test_right_store(self) -> None:
        """A store that compares, swaps and commits before it answers violates nothing."""
        self.assertEqual(_violated(ToyStore), set())

    def test_acknowledges_first(self) -> None:
        """A store that answers before it commits loses pairs and sessions, and revives others."""
        found = _violated(AcknowledgesFirst)
        self.assertLessEqual({Invariant.WORKS, Invariant.STAYS_DEAD, Invariant.KEPT}, found)

    def test_reads_then_writes(self) -> None:
        """A store that does not compare hands out two pairs of one generation."""
        self.assertIn(Invariant.ONE_PAIR, _violated(ReadsThenWrites))

    def test_revives(self) -> None:
        """A store that never takes a successor as confirmed revives what was dead."""
        self.assertEqual(_violated(Revives), {Invariant.STAYS_DEAD})

    def test_forgets(self) -> None:
        """A store that drops fresh sessions in a crash does not keep them."""
        self.assertLessEqual({Invariant.WORKS, Invariant.KEPT}, _violated(Forgets))


class CheckTests(SynchronousTestCase):
    """Tests of what the checker counts as a violation, and what it does not."""

    def setUp(self) -> None:
        self.history = History()
        self.first, self.second, self.third = (Pair(f"a{each}", f"r{each}") for each in range(3))
        self.history.logged_in("session", self.first)

    def ask(self, pair: Pair, use: Use) -> Request:
        """Present a pair."""
        return self.history.ask("session", pair, use)

    def accept(self, pair: Pair, use: Use, answer: Pair | None = None) -> None:
        """Present a pair, with success."""
        self.history.accepted(self.ask(pair, use), answer)

    def refuse(self, pair: Pair, use: Use) -> None:
        """Present a pair, in vain."""
        self.history.refused(self.ask(pair, use))

    def lose(self, pair: Pair, use: Use) -> None:
        """Present a pair, and hear nothing."""
        self.history.lost(self.ask(pair, use))

    def found(self) -> list[Invariant]:
        """The invariants that the history violates."""
        return [each.invariant for each in check(self.history)]

    def test_refused_out_of_the_blue(self) -> None:
        """A pair that nothing has ended must not be refused."""
        self.refuse(self.first, Use.LENIENT)
        self.assertEqual(self.found(), [Invariant.WORKS])

    def test_refused_access_token(self) -> None:
        """An access token that nothing has ended must not be refused either."""
        self.accept(self.first, Use.STRICT, self.second)
        self.refuse(self.second, Use.LOOK_UP)
        self.assertEqual(self.found(), [Invariant.WORKS])

    def test_lost_strict_answer(self) -> None:
        """A strict refresh whose answer was lost may have ended the pair."""
        self.lose(self.first, Use.STRICT)
        self.refuse(self.first, Use.LENIENT)
        self.assertEqual(self.found(), [])

    def test_lost_lenient_answer(self) -> None:
        """A lenient refresh whose answer was lost has not ended the pair."""
        self.lose(self.first, Use.LENIENT)
        self.refuse(self.first, Use.LENIENT)
        self.assertEqual(self.found(), [Invariant.WORKS])

    def test_lost_lenient_answer_then_again(self) -> None:
        """A lenient refresh may be asked for again and again, with the same answer."""
        self.lose(self.first, Use.LENIENT)
        self.accept(self.first, Use.LENIENT, self.second)
        self.accept(self.first, Use.LENIENT, self.second)
        self.assertEqual(self.found(), [])

    def test_two_answers(self) -> None:
        """The same refresh token must not be exchanged for two pairs."""
        self.accept(self.first, Use.LENIENT, self.second)
        self.accept(self.first, Use.LENIENT, self.third)
        self.assertEqual(self.found(), [Invariant.ONE_PAIR])

    def test_token_in_two_sessions(self) -> None:
        """The same token must not be given to two sessions."""
        self.history.logged_in("another", Pair("a9", self.first.refresh))
        self.assertEqual(self.found(), [Invariant.ONE_PAIR])

    def test_strict_refresh_undone(self) -> None:
        """A pair that an acknowledged strict refresh ended must not be accepted again."""
        self.accept(self.first, Use.STRICT, self.second)
        self.accept(self.first, Use.LOOK_UP)
        self.assertEqual(self.found(), [Invariant.STAYS_DEAD])

    def test_used_successor(self) -> None:
        """Once its successor was used, a pair must not be accepted again."""
        self.accept(self.first, Use.LENIENT, self.second)
        self.accept(self.first, Use.LOOK_UP)
        self.accept(self.second, Use.LOOK_UP)
        self.assertEqual(self.found(), [])
        self.accept(self.first, Use.LENIENT, self.second)
        self.assertEqual(self.found(), [Invariant.STAYS_DEAD])

    def test_refused_then_accepted(self) -> None:
        """A pair that was refused must not be accepted later."""
        self.lose(self.first, Use.STRICT)
        self.refuse(self.first, Use.LENIENT)
        self.accept(self.first, Use.LENIENT, self.second)
        self.assertEqual(self.found(), [Invariant.STAYS_DEAD])

    def test_race(self) -> None:
        """Of two strict refreshes at the same time, one may be refused."""
        requests = [self.ask(self.first, Use.STRICT), self.ask(self.first, Use.STRICT)]
        self.history.refused(requests[0])
        self.history.accepted(requests[1], self.second)
        self.accept(self.second, Use.LOOK_UP)
        self.assertEqual(self.found(), [])

    def test_reuse_ends_the_session(self) -> None:
        """A pair may be refused after an older refresh token was used again."""
        self.accept(self.first, Use.STRICT, self.second)
        self.accept(self.second, Use.STRICT, self.third)
        self.refuse(self.first, Use.STRICT)
        self.refuse(self.third, Use.STRICT)
        self.history.found([])
        self.assertEqual(self.found(), [])

    def test_logout(self) -> None:
        """A logout ends the session, and an acknowledged one for good."""
        self.accept(self.first, Use.LOG_OUT)
        self.refuse(self.first, Use.LENIENT)
        self.history.found([])
        self.assertEqual(self.found(), [])
        self.accept(self.first, Use.LOOK_UP)
        self.assertEqual(set(self.found()), {Invariant.STAYS_DEAD})

    def test_session_gone(self) -> None:
        """A session that nothing has ended must be in the store."""
        self.lose(self.first, Use.STRICT)
        self.history.found([])
        self.assertEqual(self.found(), [Invariant.KEPT])

    def test_reuse_after_the_look(self) -> None:
        """A request sent after the store was read does not excuse a session missing then."""
        self.accept(self.first, Use.STRICT, self.second)
        self.history.found([])
        self.refuse(self.second, Use.LOG_OUT)
        self.assertEqual(self.found(), [Invariant.WORKS, Invariant.KEPT])

    def test_unsent(self) -> None:
        """A request that never left excuses nothing."""
        self.history.unsent(self.ask(self.first, Use.STRICT))
        self.refuse(self.first, Use.LENIENT)
        self.assertEqual(self.found(), [Invariant.WORKS])
