"""Clients that refresh without pause, each its own session, and count what they are told."""

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

    :param use: what kind; a strict one cannot be repeated when its answer is lost.
    :ivar history: everything that was asked.
    :ivar newest: for each session, the pair that its client was given last.
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
        """Log in, and begin."""
        for session in self._sessions:
            pair = await self._client.log_in(session)
            assert pair is not None, self._client.surprises
            self.newest[session] = pair
        self._running = gatherResults(
            [Deferred.fromCoroutine(self._refresh(each)) for each in self._sessions],
            consumeErrors=True,
        )

    async def stop(self) -> None:
        """Let the last answers come, and close the connections."""
        self._stopping = True
        if self._running is not None:
            await self._running
        await self._client.close()

    def count(self, outcome: Outcome) -> int:
        """How many requests came to this."""
        return sum(each.outcome is outcome for each in self.history.requests)

    @property
    def problems(self) -> list[str]:
        """What must not have happened, but for answers that were lost."""
        return [*self._client.surprises, *map(str, check(self.history))]

    async def some_more(self, refreshes: int = 100) -> None:
        """Wait until ``count`` more connections were accepted."""
        goal = self.count(Outcome.ACCEPTED) + refreshes
        await until(lambda: self.count(Outcome.ACCEPTED) >= goal)

    async def probe(self) -> list[str]:
        """The sessions that no longer go on from the newest pair that their clients know."""
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
