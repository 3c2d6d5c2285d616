"""Clients that log in, refresh, race and log out without pause, while servers fail."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.chaos.client import RecordingClient
from tests.chaos.history import History, Invariant, Outcome, Pair, Request, Use, Violation, check
from tests.chaos.server import ChaosServer

reactor = cast(Any, global_reactor)

SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))

_CLIENTS = 8
_LONGEST_CALM = 0.4
_LOGINS_A_ROUND = 4
_LONGEST_SEARCH = 30
_RECENT = 5


@dataclass(eq=False)
class Session:
    """A session, as its client knows it.

    :ivar pairs: every pair that the client got, oldest first.
    :ivar in_doubt: whether a response about the newest pair was lost.
    :ivar over: whether the newest pair was rejected, or the client logged out.
    """

    name: str
    pairs: list[Pair]
    in_doubt: bool = False
    over: bool = False

    @property
    def newest(self) -> Pair:
        """The pair that the client uses next."""
        return self.pairs[-1]

    def note(self, request: Request) -> None:
        """Update the session with the outcome of a request."""
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
    """Clients of servers that share their sessions, and their requests.

    :param servers: the running servers.
    :param racing: how often a pair is presented twice at the same time, from 0 to 1.
    :param outages: whether to expect a 503.
    :param ports: the ports that the clients connect to, if not those of the servers.
    :param logins: the number of logins so far.
    :param stubborn: whether a client without a response sends the request again at once, instead of
        waiting until the session was probed.
    """

    servers: Sequence[ChaosServer]
    random: Random
    racing: float = 0.15
    outages: bool = False
    ports: Sequence[int] = ()
    stubborn: bool = False
    history: History = field(default_factory=History)
    sessions: list[Session] = field(default_factory=list)
    logins: int = 0
    _over: bool = False

    def __post_init__(self) -> None:
        ports = self.ports or [each.port for each in self.servers]
        self._clients = [RecordingClient(port, self.history, self.outages) for port in ports]

    @property
    def surprises(self) -> list[str]:
        """List the responses that were neither a success nor a refusal."""
        return [surprise for each in self._clients for surprise in each.surprises]

    async def close(self) -> None:
        """Close the connections."""
        await gatherResults([each.close() for each in self._clients])

    async def round(self, strike: Callable[[], Awaitable[object]]) -> None:
        """Fill up the sessions, put them under load, cause a failure, and probe what is left.

        :param strike: causes the failure, and repairs it.
        """
        while len(self.active()) < _CLIENTS:
            await self.log_in()
        self._over = False
        active = self.active()
        self.random.shuffle(active)
        load = gatherResults(
            [
                *(Deferred.fromCoroutine(self._refresh(each)) for each in active[:_CLIENTS]),
                Deferred.fromCoroutine(self._visit()),
            ],
            consumeErrors=True,
        )
        await deferLater(reactor, self.random.uniform(0.0, _LONGEST_CALM))
        await strike()
        self._over = True
        await load
        for session in self.sessions:
            if not session.over:
                await self._probe(session)

    async def search(
        self, wanted: set[Invariant], strike: Callable[[], Awaitable[object]]
    ) -> set[Invariant]:
        """Run rounds until these invariants are found violated, 30 rounds at most.

        :return: the violated invariants.
        """
        found: set[Invariant] = set()
        for _ in range(_LONGEST_SEARCH):
            if wanted <= found:
                break
            await self.round(strike)
            found = {each.invariant for each in check(self.history)}
        return found

    def active(self) -> list[Session]:
        """List the sessions that a client still uses."""
        return [each for each in self.sessions if not each.over]

    async def replay(self) -> None:
        """Present every refresh token that was ever replaced, which ends the sessions."""
        for session in self.sessions:
            for pair in session.pairs[:-1]:
                await self._use(session, pair, Use.LENIENT)

    def _client(self) -> RecordingClient:
        return self.random.choice(self._clients)

    async def log_in(self) -> Session | None:
        """Log a client in on a new device; return ``None`` without a response."""
        self.logins += 1
        name = f"device {self.logins}"
        pair = await self._client().log_in(name)
        if pair is None:
            return None
        session = Session(name, [pair])
        self.sessions.append(session)
        return session

    async def _refresh(self, session: Session) -> None:
        """Refresh without pause until the end; now and then twice at the same time."""
        while not (self._over or session.over):
            pair = session.newest
            uses = [self.random.choice([Use.STRICT, Use.LENIENT, Use.LENIENT, Use.LOOK_UP])]
            if self.random.random() < self.racing:
                uses.append(self.random.choice([Use.STRICT, Use.LENIENT]))
            racing = [
                Deferred.fromCoroutine(self._client().use(session.name, pair, u)) for u in uses
            ]
            requests = await gatherResults(racing, consumeErrors=True)
            # Note the accepted refresh last, which clears `over`: the loser ends no session.
            for request in sorted(requests, key=lambda each: each.answer is not None):
                session.note(request)
            lost = any(each.outcome is Outcome.UNKNOWN for each in requests)
            if lost and not self.stubborn:
                return

    async def _visit(self) -> None:
        """Log in, and sometimes out again, until the end."""
        for _ in range(_LOGINS_A_ROUND):
            session = None if self._over else await self.log_in()
            if session is None:
                return
            await self._use(session, session.newest, Use.STRICT)
            if self.random.random() < 0.5 and not session.over:
                await self._use(session, session.newest, Use.LOG_OUT)

    async def _probe(self, session: Session) -> None:
        """Probe a session: superseded pairs must be rejected, and the newest pair must work."""
        if len(session.pairs) > 1:
            old = self.random.choice(session.pairs[-_RECENT:-1])
            await self._use(session, old, Use.LOOK_UP)
            if not session.in_doubt and self.random.random() < 0.3:
                # Presenting the pair before that would be reuse, which ends the session.
                await self._use(session, session.pairs[-2], Use.LENIENT)
        uses = [Use.STRICT, Use.LENIENT, Use.LOOK_UP]
        await self._use(session, session.newest, self.random.choice(uses))

    async def _use(self, session: Session, pair: Pair, use: Use) -> None:
        session.note(await self._client().use(session.name, pair, use))


def report(violations: list[Violation]) -> str:
    """List the violations and the seed that reproduces them; empty if there are none."""
    if not violations:
        return ""
    return "\n".join([f"CHAOS_SEED={SEED}", *map(str, violations)])
