"""The server is killed again and again while clients log in, refresh, race and log out."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.chaos.client import Client
from tests.chaos.history import History, Invariant, Outcome, Pair, Request, Use, Violation, check
from tests.chaos.process import Server

reactor = cast(Any, global_reactor)

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))

_CLIENTS = 8
_LONGEST_ROUND = 0.4
_LOGINS_A_ROUND = 4


@dataclass(eq=False)
class Session:
    """A session, as its client knows it.

    :ivar pairs: every pair that it was given, oldest first.
    :ivar in_doubt: whether an answer about the newest was lost.
    :ivar over: whether the newest was refused, or the client logged out.
    """

    name: str
    pairs: list[Pair]
    in_doubt: bool = False
    over: bool = False

    @property
    def newest(self) -> Pair:
        """What the client goes on with."""
        return self.pairs[-1]

    def note(self, request: Request) -> None:
        """Take what came of a request into account."""
        if request.pair == self.newest:
            if request.outcome is Outcome.UNKNOWN:
                self.in_doubt = True
            elif request.outcome is Outcome.REFUSED or request.use is Use.LOG_OUT:
                self.over = True
        if request.answer is not None and request.answer not in self.pairs:
            self.pairs.append(request.answer)
            self.in_doubt = self.over = False


@dataclass
class Storm:
    """Clients of one server, and what they do to it.

    :param server: it runs.
    """

    server: Server
    random: Random
    history: History = field(default_factory=History)
    sessions: list[Session] = field(default_factory=list)
    _killed: bool = False
    _logins: int = 0

    def __post_init__(self) -> None:
        self.client = Client(self.server.port, self.history)

    async def round(self) -> None:
        """Bring sessions up to number, put them under load, kill the server, look what is left."""
        while len(self.active()) < _CLIENTS:
            await self._log_in()
        self._killed = False
        active = self.active()
        self.random.shuffle(active)
        load = gatherResults(
            [
                *(Deferred.fromCoroutine(self._refresh(each)) for each in active[:_CLIENTS]),
                Deferred.fromCoroutine(self._visit()),
            ],
            consumeErrors=True,
        )
        await deferLater(reactor, self.random.uniform(0.0, _LONGEST_ROUND))
        killing = self.server.kill()
        self._killed = True
        await killing
        await load
        await self.server.start()
        for session in self.sessions:
            if not session.over:
                await self._probe(session)

    def active(self) -> list[Session]:
        """The sessions that a client still goes on with."""
        return [each for each in self.sessions if not each.over]

    async def replay(self) -> None:
        """Present every refresh token that was ever replaced: this ends the sessions."""
        for session in self.sessions:
            for pair in session.pairs[:-1]:
                await self._use(session, pair, Use.LENIENT)

    async def _log_in(self) -> Session | None:
        self._logins += 1
        name = f"device {self._logins}"
        pair = await self.client.log_in(name)
        if pair is None:
            return None
        session = Session(name, [pair])
        self.sessions.append(session)
        return session

    async def _refresh(self, session: Session) -> None:
        """Refresh without pause until the server dies; now and then twice at the same time."""
        while not (self._killed or session.over):
            pair = session.newest
            uses = [self.random.choice([Use.STRICT, Use.LENIENT, Use.LENIENT, Use.LOOK_UP])]
            if self.random.random() < 0.15:
                uses.append(self.random.choice([Use.STRICT, Use.LENIENT]))
            racing = [Deferred.fromCoroutine(self.client.use(session.name, pair, u)) for u in uses]
            requests = await gatherResults(racing, consumeErrors=True)
            # An answer comes after the refusals: what lost a race against it is over, not the rest.
            for request in sorted(requests, key=lambda each: each.answer is not None):
                session.note(request)
            if any(each.outcome is Outcome.UNKNOWN for each in requests):
                return

    async def _visit(self) -> None:
        """Log in, and at times out again, until the server dies."""
        for _ in range(_LOGINS_A_ROUND):
            session = None if self._killed else await self._log_in()
            if session is None:
                return
            await self._use(session, session.newest, Use.STRICT)
            if self.random.random() < 0.5 and not session.over:
                await self._use(session, session.newest, Use.LOG_OUT)

    async def _probe(self, session: Session) -> None:
        """See what became of a session; what is dead must stay so, and the newest must work."""
        if len(session.pairs) > 1:
            old = self.random.choice(session.pairs[:-1])
            await self._use(session, old, Use.LOOK_UP)
            if not session.in_doubt and self.random.random() < 0.3:
                # Of two rotations ago it would be reuse, which ends the session: so not in doubt.
                await self._use(session, session.pairs[-2], Use.LENIENT)
        uses = [Use.STRICT, Use.LENIENT, Use.LOOK_UP]
        await self._use(session, session.newest, self.random.choice(uses))

    async def _use(self, session: Session, pair: Pair, use: Use) -> None:
        session.note(await self.client.use(session.name, pair, use))


class KillTests(TestCase):
    """What is acknowledged survives ``kill -9``."""

    timeout = 60 + 10 * KILLS

    async def storm(self, **options: Any) -> Storm:
        """A server, and clients for it."""
        server = Server(Path(self.mktemp()), **options)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.clean_up()))
        await server.start()
        storm = Storm(server, Random(SEED))
        self.addCleanup(storm.client.close)
        return storm

    async def test_nothing_acknowledged_is_lost(self) -> None:
        """After every kill the acknowledged pairs work, none is forked, and none revived."""
        storm = await self.storm()
        for _ in range(KILLS):
            await storm.round()
        storm.history.found(_devices(storm.server.database))
        await storm.replay()
        self.assertEqual(storm.client.surprises, [])
        self.assertEqual(_report(check(storm.history)), "")
        self.assert_hit_hard(storm.history)
        await storm.client.close()
        await storm.server.terminate()
        with closing(sqlite3.connect(storm.server.database)) as connection:
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])

    async def test_finds_a_store_that_acknowledges_first(self) -> None:
        """The same storm finds the mistake of a store that answers before it commits."""
        storm = await self.storm(store="tests.chaos.broken.AcknowledgesFirst")
        for _ in range(3):
            await storm.round()
        found = {each.invariant for each in check(storm.history)}
        self.assertLessEqual({Invariant.WORKS, Invariant.STAYS_DEAD}, found)

    def assert_hit_hard(self, history: History) -> None:
        """See that the storm was one: answers were lost on both paths, and pairs superseded."""
        counts = Counter((each.use, each.outcome) for each in history.requests)
        for use in (Use.STRICT, Use.LENIENT):
            self.assertGreaterEqual(counts[use, Outcome.UNKNOWN], KILLS // 4, str(counts))
            self.assertGreaterEqual(counts[use, Outcome.ACCEPTED], KILLS, str(counts))
            self.assertGreater(counts[use, Outcome.REFUSED], 0, str(counts))


def _devices(database: Path) -> set[str]:
    """The devices of the sessions in the store."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return {row[0] for row in connection.execute("SELECT device_id FROM sessions")}


def _report(violations: list[Violation]) -> str:
    if not violations:
        return ""
    return "\n".join([f"CHAOS_SEED={SEED}", *map(str, violations)])
