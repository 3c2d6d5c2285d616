"""Tests for the client that records what it sent."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.trial.unittest import TestCase
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.chaos.client import RecordingClient
from tests.chaos.history import History, Outcome, Pair, Use

reactor = cast(Any, global_reactor)


class DyingServer(Resource):
    """Answers one request, carries out the next one, and dies before it answers that."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.carried_out = 0
        self.port = reactor.listenTCP(0, Site(self), interface="127.0.0.1")

    def render(self, request: Request) -> Any:
        self.carried_out += 1
        if self.carried_out == 1:
            return b"{}"
        self.port.stopListening()
        request.loseConnection()
        return NOT_DONE_YET


class RecordingClientTests(TestCase):
    """Tests for :class:`RecordingClient`."""

    async def test_look_up_whose_answer_is_lost(self) -> None:
        """A request that the server may have carried out is recorded, though it is down since."""
        server, history = DyingServer(), History()
        client = RecordingClient(server.port.getHost().port, history)
        self.addCleanup(client.close)
        pair = Pair("access", "refresh")
        for _ in range(2):
            await client.use("device", pair, Use.LOOK_UP)
        self.assertEqual(server.carried_out, 2)
        outcomes = [each.outcome for each in history.requests]
        self.assertEqual(outcomes, [Outcome.ACCEPTED, Outcome.UNKNOWN])
