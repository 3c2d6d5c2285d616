"""Tests for clients that close their side of a connection, over real sockets."""

from __future__ import annotations

from twisted.internet.task import deferLater

from synapse_login_module.web import channel
from synapse_login_module.web.http_request import HTTPRequest
from tests.support.site import get
from tests.support.waiting import until
from tests.support.wire import Wire, parse_answers
from tests.web.sockets import GUESS, SocketCase, reactor


class HalfCloseTests(SocketCase):
    """A client that closes its side for sending, and waits for its responses."""

    async def answers(self, wire: Wire, count: int) -> list[int]:
        """Wait for the server to close, and return the statuses of its responses."""
        await wire.lost()
        answers = parse_answers(wire.received, [("GET", "/")] * (count + 1))
        return [each.status for each in answers]

    async def test_one(self) -> None:
        """A request gets its response after any time, and then the connection is closed."""
        await self.listen()
        waiting = self.stall()
        wire = await self.connect()
        wire.send(GUESS)
        wire.end()
        await until(lambda: waiting, "the request")
        (half,) = self.site.channels
        await until(lambda: half.ended, "the end")
        waiting[0].callback(None)
        self.assertEqual(await self.answers(wire, 1), [403])
        await until(lambda: not self.site.channels, "the end of the connection")

    async def test_gone(self) -> None:
        """If the client has closed both sides, that is noticed, and its login is cancelled."""
        self.patch(channel, "_REFUSED_WITHIN", 0.01)
        await self.listen()
        waiting = self.stall()
        wire = await self.connect()
        wire.send(GUESS)
        await until(lambda: waiting, "the request")
        await wire.close()
        await until(
            lambda: self.rig.provider.cancelled == ["authenticate"], "the cancellation", timeout=30
        )
        await until(lambda: not self.site.channels, "the end of the connection")

    async def test_gone_before_its_turn(self) -> None:
        """The same holds if it closed both sides before its login began."""
        self.patch(channel, "_REFUSED_WITHIN", 0.01)
        await self.listen()
        waiting = self.stall()
        wire = await self.connect()
        held: list[HTTPRequest] = []
        self.patch(self.site.turns, "add", lambda request, network_of: held.append(request))
        wire.send(GUESS)
        await until(lambda: held, "the request")
        await wire.close()
        await until(lambda: next(iter(self.site.channels)).ended, "the end")
        self.assertEqual(waiting, [])
        held[0].begin()
        await until(lambda: self.rig.provider.cancelled == ["authenticate"], "its end")

    async def test_still_there(self) -> None:
        """If the client has closed one side only, its login goes on. It gets a ``100 Continue``,
        except over HTTP/1.0, which has no such response.
        """
        self.patch(channel, "_REFUSED_WITHIN", 0.0)
        await self.listen()
        waiting = self.stall()
        for request, said in (
            (GUESS, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403"),
            (GUESS.replace(b"HTTP/1.1", b"HTTP/1.0"), b"HTTP/1.0 403"),
        ):
            wire = await self.connect()
            wire.send(request)
            wire.end()
            await until(lambda: waiting, "the request")
            (there,) = self.site.channels
            while not there.ended:
                await deferLater(reactor, 0)
            for _ in range(10):
                await deferLater(reactor, 0)
            waiting.pop().callback(None)
            await wire.lost()
            self.assertTrue(wire.received.startswith(said), wire.received)
            await until(lambda: not self.site.channels, "the end of the connection")

    async def test_pipelined(self) -> None:
        """All requests that it sent before get their responses."""
        await self.listen()
        wire = await self.connect()
        wire.send(get("/health") * 200)
        wire.end()
        self.assertEqual(await self.answers(wire, 200), [200] * 200)

    async def test_half_a_request(self) -> None:
        """An incomplete request gets no response. The requests before it do, and then the
        connection is closed.
        """
        await self.listen()
        for whole in (0, 1, 3):
            for half in (b"GET /hea", b"GET /health HTTP/1.1\r\n", GUESS[:-1]):
                wire = await self.connect()
                wire.send(get("/health") * whole + half)
                wire.end()
                self.assertEqual(await self.answers(wire, whole), [200] * whole)
        await until(lambda: not self.site.channels, "the end of the connections")

    async def test_nothing(self) -> None:
        """If no response is due, the connection is closed at once."""
        await self.listen()
        silent, served = await self.connect(), await self.connect()
        served.send(get("/health"))
        await served.data()
        silent.end()
        served.end()
        self.assertEqual(await self.answers(silent, 0), [])
        self.assertEqual(await self.answers(served, 1), [200])

    async def test_refused(self) -> None:
        """A request that was rejected before its end gets the rejection."""
        await self.listen()
        wire = await self.connect()
        wire.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        await wire.data()
        wire.end()
        self.assertEqual(await self.answers(wire, 1), [413])
        await until(lambda: not self.site.channels, "the end of the connection")

    async def test_refused_before_a_request(self) -> None:
        """The same holds for a request line that was rejected, where there is no request object."""
        await self.listen()
        wire = await self.connect()
        wire.send(b"GET /" + b"x" * 70_000)
        await wire.data()
        (refused,) = self.site.channels
        await until(lambda: refused.transport._writeDisconnected, "the server's side to close")
        wire.end()
        self.assertEqual(await self.answers(wire, 1), [414])
        await until(lambda: not self.site.channels, "the end of the connection")
