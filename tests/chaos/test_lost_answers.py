"""The connection is cut after the commit and before the answer, between client and server."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.chaos.case import ROUNDS, SHORT
from tests.chaos.client import RecordingClient
from tests.chaos.cutting import CuttingProxy
from tests.chaos.history import History, Outcome, Pair, Use, check
from tests.chaos.server import ChaosServer
from tests.chaos.sqlite import SQLiteChaosCase, devices

reactor = cast(Any, global_reactor)

_CUTS = 12


class LostAnswersCase(SQLiteChaosCase):
    """A proxy before a server."""

    async def serve_behind_proxy(self, **options: Any) -> ChaosServer:
        """A server whose answers to refreshes can be swallowed."""
        server = await self.serve(**options)
        self.proxy = proxy = CuttingProxy(server.port, b"refresh HTTP/1.1\r\n")
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.close()))
        return server


class LostAnswerTests(LostAnswersCase):
    """Tests of one client that sends a request again."""

    async def lose(self, use: Use, **tokens: Any) -> None:
        """Log in and refresh once; that answer is lost, but for the test."""
        self.server = await self.serve_behind_proxy(changes={"tokens": tokens})
        self.history = History()
        self.client = RecordingClient(self.proxy.port, self.history)
        self.addCleanup(self.client.close)
        first = await self.client.log_in("phone")
        assert first is not None
        self.first = first
        self.proxy.cuts = 1
        self.assertIs(await self.use(first, use), Outcome.UNKNOWN)
        (answer,) = self.proxy.swallowed
        tokens = json.loads(answer.partition(b"\r\n\r\n")[2])
        self.lost = Pair(tokens["access_token"], tokens["refresh_token"])

    async def use(self, pair: Pair, use: Use) -> Outcome:
        """Present a pair; return the outcome."""
        request = await self.client.use("phone", pair, use)
        self.answer = request.answer
        return request.outcome

    def assert_good(self, kept: bool) -> None:
        """See that the history is one that may be, and whether the session was kept."""
        self.assertEqual(self.client.surprises, [])
        self.assertEqual(devices(self.server.database), {"phone"} if kept else set())
        self.assertEqual(check(self.history), [])

    async def test_lenient(self) -> None:
        """On ``/refresh`` the very same pair comes again, as often as it is asked for."""
        await self.lose(Use.LENIENT)
        for _ in range(3):
            self.assertIs(await self.use(self.first, Use.LENIENT), Outcome.ACCEPTED)
            self.assertEqual(self.answer, self.lost)
        self.assertIs(await self.use(self.lost, Use.LOOK_UP), Outcome.ACCEPTED)
        self.assertIs(await self.use(self.first, Use.LOOK_UP), Outcome.REFUSED)
        self.assert_good(kept=True)

    async def test_lenient_then_strict(self) -> None:
        """An answer that was lost on ``/refresh`` can be had on ``/tokenrefresh``, once."""
        await self.lose(Use.LENIENT)
        self.assertIs(await self.use(self.first, Use.STRICT), Outcome.ACCEPTED)
        self.assertEqual(self.answer, self.lost)
        self.assertIs(await self.use(self.first, Use.STRICT), Outcome.REFUSED)
        self.assertIs(await self.use(self.lost, Use.STRICT), Outcome.ACCEPTED)
        self.assert_good(kept=True)

    async def test_strict_within_the_interval(self) -> None:
        """On ``/tokenrefresh`` the pair is lost: asking again is refused, the session lives."""
        await self.lose(Use.STRICT)
        for use in (Use.STRICT, Use.LENIENT, Use.LOOK_UP):
            self.assertIs(await self.use(self.first, use), Outcome.REFUSED)
        self.assert_good(kept=True)
        other = RecordingClient(self.server.port, History())
        self.addCleanup(other.close)
        held = await other.use("phone", self.lost, Use.STRICT)
        self.assertIs(held.outcome, Outcome.ACCEPTED)

    async def test_strict_after_the_interval(self) -> None:
        """Asking again later than that is taken for reuse: the session is over."""
        for use in (Use.STRICT, Use.LENIENT):
            await self.lose(Use.STRICT, reuse_interval=0)
            self.assertIs(await self.use(self.first, use), Outcome.REFUSED)
            self.assertIn("reason=reused_token", self.server.log())
            self.assert_good(kept=False)
            other = RecordingClient(self.server.port, History())
            self.addCleanup(other.close)
            held = await other.use("phone", self.lost, Use.LENIENT)
            self.assertIs(held.outcome, Outcome.REFUSED)


class LostAnswersStormTests(LostAnswersCase):
    """Tests of many clients."""

    async def test_storm(self) -> None:
        """Answers are lost at random: no session is forked or lost, and no pair revived."""
        server = await self.serve_behind_proxy()
        storm = self.storm([server], ports=[self.proxy.port], stubborn=True)

        async def strike() -> None:
            for _ in range(_CUTS):
                self.proxy.cuts += 1
                await deferLater(reactor, storm.random.uniform(0.0, 0.05))
            self.proxy.cuts = 0

        counts = await self.survives(storm, strike)
        if ROUNDS > SHORT:
            print(f"{self.proxy.made} cuts")
        self.assertGreater(self.proxy.made, 2 * ROUNDS)
        for use in (Use.STRICT, Use.LENIENT):
            self.assertGreaterEqual(counts[use, Outcome.UNKNOWN], ROUNDS // 2, str(counts))
