"""Clients that refresh without pause, each its own session, and record the outcomes."""

from __future__ import annotations

import math
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.chaos.client import RecordingClient
from tests.chaos.history import History, Outcome, Pair, Use, check
from tests.support.waiting import until

reactor = cast(Any, global_reactor)

_PAUSE = 0.01


class Load:
    """A constant load of refreshes.

    :param use: the kind of refresh; a strict one cannot be repeated when its response is lost.
    :ivar history: all requests.
    :ivar newest: the newest pair of each session that its client has.
    """

    def __init__(self, port: int, use: Use, sessions: int = 8) -> None:
        self._use = use
        self.history = History()
        self.newest: dict[str, Pair] = {}
        self._client = RecordingClient(port, self.history)
        self._sessions = [f"device {number}" for number in range(sessions)]
        self._stopping = False
        self._running: Deferred[Any] | None = None

    async def start(self) -> None:
        """Log in, and begin to refresh."""
        for session in self._sessions:
            pair = await self._client.log_in(session)
            assert pair is not None, self._client.surprises
            self.newest[session] = pair
        self._running = gatherResults(
            [Deferred.fromCoroutine(self._refresh(each)) for each in self._sessions],
            consumeErrors=True,
        )

    async def stop(self) -> None:
        """Wait for the last responses, and close the connections."""
        self._stopping = True
        if self._running is not None:
            await self._running
        await self._client.close()

    def count(self, outcome: Outcome) -> int:
        """Return the number of requests with this outcome."""
        return sum(each.outcome is outcome for each in self.history.requests)

    @property
    def problems(self) -> list[str]:
        """The violations of the rules so far, except for lost responses."""
        return [*self._client.surprises, *map(str, check(self.history))]

    async def some_more(self, refreshes: int = 100) -> None:
        """Wait until as many more refreshes have succeeded."""
        goal = self.count(Outcome.ACCEPTED) + refreshes
        await until(lambda: self.count(Outcome.ACCEPTED) >= goal)

    async def probe(self) -> list[str]:
        """Return the sessions that cannot be continued from the newest pair of their client."""
        refused = []
        for session, pair in self.newest.items():
            request = await self._client.use(session, pair, Use.LOOK_UP)
            if request.outcome is not Outcome.ACCEPTED:
                refused.append(session)
        return refused

    async def _refresh(self, session: str) -> None:
        while not self._stopping:
            request = await self._client.use(session, self.newest[session], self._use)
            if request.answer is not None:
                self.newest[session] = request.answer
            elif request.outcome is Outcome.REFUSED:
                return
            elif math.isinf(request.answered):  # not listening
                await deferLater(reactor, _PAUSE)
