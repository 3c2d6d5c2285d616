"""The wall clock is set back and forth by an hour while the server runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from tests.chaos.case import health
from tests.chaos.client import RecordingClient
from tests.chaos.history import History, Outcome, Pair, Use
from tests.chaos.server import ChaosServer
from tests.chaos.sqlite import SQLiteChaosCase
from tests.chaos.stepping import WallClock
from tests.support.wire import connect, request

reactor = cast(Any, global_reactor)

_HOUR = 3600


class ClockTests(SQLiteChaosCase):
    """Tests of a wall clock that is set: what is lost and what is not."""

    async def serve_with_clock(self, **changes: Any) -> ChaosServer:
        """Start a server whose clock can be set."""
        self.clock = WallClock(Path(self.mktemp()).absolute())
        self.addCleanup(self.clock.close)
        return await self.serve(program=self.clock.program, changes=changes)

    async def test_storm(self) -> None:
        """No session is forked or lost, no dead pair comes back, and all requests are answered."""
        server = await self.serve_with_clock()
        storm = self.storm([server])

        async def strike() -> None:
            for _ in range(4):
                self.clock.set(storm.random.choice([-_HOUR, 0, _HOUR]))
                await deferLater(reactor, storm.random.uniform(0.0, 0.1))

        counts = await self.survives(storm, strike)
        self.assertEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())
        self.assertNotIn("Traceback", server.log())

    async def test_lifetimes(self) -> None:
        """Set forward, the clock expires an access token early. Set right, the token is valid.

        Refresh tokens are valid all the time.
        """
        server = await self.serve_with_clock(tokens={"refreshable_access_token_lifetime": "5m"})
        history = History()
        client = RecordingClient(server.port, history)
        self.addCleanup(client.close)
        pair = await client.log_in("phone")
        assert pair is not None
        for offset, expected in ((_HOUR, Outcome.REFUSED), (0, Outcome.ACCEPTED)):
            self.clock.set(offset)
            looked = await client.use("phone", pair, Use.LOOK_UP)
            self.assertIs(looked.outcome, expected)
        for offset in (_HOUR, -_HOUR, 0):
            self.clock.set(offset)
            pair = await self.refresh(client, pair)
        self.assertEqual(client.surprises, [])

    async def refresh(self, client: RecordingClient, pair: Pair) -> Pair:
        """Refresh, and check that the new access token is valid."""
        refreshed = await client.use("phone", pair, Use.STRICT)
        assert refreshed.answer is not None
        looked = await client.use("phone", refreshed.answer, Use.LOOK_UP)
        self.assertIs(looked.outcome, Outcome.ACCEPTED)
        return refreshed.answer

    async def test_timers(self) -> None:
        """A connection with a timeout is closed in time although the clock was set back."""
        server = await self.serve_with_clock(limits={"request_timeout": "2s"})
        wire = await connect(server.port)
        wire.send(request("GET", "/health")[:-1])
        self.assertEqual(await health(server), 200)
        self.clock.set(-_HOUR)
        await wire.lost()
