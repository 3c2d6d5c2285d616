"""Tests for the cost of floods, over real sockets."""

from __future__ import annotations

from twisted.internet.task import deferLater

from synapse_login_module.web.channel import READ_SIZE, LoginChannel
from tests.support.site import get
from tests.support.waiting import until
from tests.support.wire import parse_answers
from tests.web.sockets import GUESS, LOGIN, SocketCase, reactor


def taken_in(channel: LoginChannel) -> int:
    """How many bytes a channel has read and not parsed."""
    return len(channel._buffer) + sum(map(len, channel._dataBuffer))


class PipelineTests(SocketCase):
    """A client that sends requests without pause."""

    async def test_bounded(self) -> None:
        """The server never reads ahead by more than one read."""
        await self.listen()
        waiting = self.stall()
        wire = await self.connect()
        wire.send(GUESS * 4000)
        for _ in range(30):
            await until(lambda: waiting, "the next request")
            (channel,) = self.site.channels
            self.assertLessEqual(taken_in(channel), READ_SIZE)
            waiting.pop().callback(None)
        self.assertGreaterEqual(wire.received.count(b"HTTP/1.1 403"), 28)

    async def test_after_the_last(self) -> None:
        """Nor does it after a request with ``Connection: close``."""
        await self.listen()
        waiting = self.stall()
        wire = await self.connect()
        last = GUESS.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        wire.send(last + bytes(5_000_000))
        await until(lambda: waiting, "the request")
        for _ in range(20):
            await deferLater(reactor, 0)
            (channel,) = self.site.channels
            self.assertLessEqual(taken_in(channel), READ_SIZE)
        waiting[0].callback(None)
        await wire.lost()

    async def test_all_are_answered(self) -> None:
        """All requests get their responses in the end, in order."""
        await self.listen()
        wire = await self.connect()
        wire.send((get("/health") + get("/nowhere")) * 500)
        await until(lambda: wire.received.count(b"HTTP/1.1 ") == 1000, "the answers")
        answers = parse_answers(wire.received, [("GET", "/")] * 1000)
        self.assertEqual([each.status for each in answers], [200, 404] * 500)


class BudgetTests(SocketCase):
    """Clients that do not finish their requests."""

    async def test_bodies(self) -> None:
        """The memory of all unfinished bodies is bounded: the largest gets a 503."""
        most = 200_000
        await self.listen(held=most)
        wires = [await self.connect() for _ in range(10)]
        body = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n" % LOGIN.encode()
        for wire in wires:
            wire.send(body + bytes(65_000))
        await until(
            lambda: sum(wire.received.startswith(b"HTTP/1.1 503") for wire in wires) >= 7,
            "the refusals",
        )
        self.assertLessEqual(self.site.budget.total, most)
        other = await self.connect()
        other.send(GUESS)
        self.assertEqual((await other.answer())[0], 403)

    async def test_trailers(self) -> None:
        """Too many trailers, each of which would be an object, end the request."""
        await self.listen()
        wire = await self.connect()
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.send(head % LOGIN.encode() + b"0\r\n" + b"x\r\n" * 20_000)
        self.assertEqual((await wire.answer())[0], 400)
