"""Tests for sending the responses of one turn together."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.web.sending import Sending, can_send, send_now
from synapse_login_module.web.site import LoginSite
from tests.support.rig import Rig
from tests.support.site import get

PEER = IPv4Address("TCP", "192.0.2.1", 40_000)
VERSIONS = get("/_matrix/client/versions")


class Socket(FileDescriptor):
    """A socket of which the system takes so many bytes at a time.

    :ivar room: how many; ``None`` once the connection is lost.
    :ivar sent: what the system has taken.
    """

    def __init__(self) -> None:
        super().__init__(self)  # type: ignore[arg-type]
        self.connected = 1
        self.room: int | None = 1 << 20
        self.sent = b""
        self.watched = 0

    def addWriter(self, _: object) -> None:
        """Count that the reactor is asked to watch the socket."""
        self.watched += 1

    def removeWriter(self, _: object) -> None:
        """Watch it no longer."""

    def addReader(self, _: object) -> None:
        """Read from it."""

    def removeReader(self, _: object) -> None:
        """Read no longer."""

    def writeSomeData(self, data: bytes) -> int | BaseException:
        """Take as much as there is room for."""
        if self.room is None:
            return CONNECTION_LOST
        taken = bytes(data)[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def abortConnection(self) -> None:
        """Close at once."""

    def getPeer(self) -> IPv4Address:
        """Return the client's address."""
        return PEER

    getHost = getPeer


class SendNowTests(SynchronousTestCase):
    """:func:`synapse_login_module.web.sending.send_now`."""

    def setUp(self) -> None:
        self.socket = Socket()

    def test_at_once(self) -> None:
        """What the system takes is sent without asking the reactor."""
        send_now(self.socket, b"response")
        self.assertEqual((self.socket.sent, self.socket.watched), (b"response", 0))

    def test_rest(self) -> None:
        """The transport sends what the system does not take, and all later data after it."""
        self.socket.room = 3
        send_now(self.socket, b"response")
        self.assertEqual((self.socket.sent, self.socket.watched), (b"res", 1))
        self.socket.room = 1 << 20
        send_now(self.socket, b" next")
        self.assertEqual(self.socket.sent, b"res")
        self.socket.doWrite()
        self.assertEqual(self.socket.sent, b"response next")

    def test_lost(self) -> None:
        """The transport finds out that its connection is lost."""
        self.socket.room = None
        send_now(self.socket, b"response")
        self.assertIs(self.socket.doWrite(), CONNECTION_LOST)

    def test_closed(self) -> None:
        """Nothing is sent on a connection that is closed, or is being closed."""
        self.socket.disconnecting = 1
        send_now(self.socket, b"response")
        self.socket.connected = 0
        send_now(self.socket, b"response")
        self.assertEqual(self.socket.sent, b"")

    def test_tls(self) -> None:
        """Nothing is sent past TLS."""

        class Wrapper:
            """As a protocol wrapper, it has the attributes of the transport below it."""

            def __getattr__(self, name: str) -> Any:
                return getattr(Socket(), name)

        self.assertTrue(can_send(self.socket))
        self.assertFalse(can_send(Wrapper()))
        vars(self.socket)["TLS"] = True
        self.assertFalse(can_send(self.socket))


class SendingTests(SynchronousTestCase):
    """:class:`synapse_login_module.web.sending.Sending`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[str] = []
        self.aborted: list[str] = []
        self.sending: Sending[str] = Sending(self.send, self.aborted.append, self.clock)

    def send(self, one: str) -> None:
        if one == "broken":
            raise MemoryError
        self.sent.append(one)

    def test_error(self) -> None:
        """An error of one connection ends that one, and the others send."""
        for each in ("a", "broken", "b"):
            self.sending.add(each)
        self.clock.advance(0)
        self.assertEqual((self.sent, self.aborted), (["a", "b"], ["broken"]))
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)

    def test_together(self) -> None:
        """All that is added in one turn is sent in the next, by one call of the reactor."""
        for each in ("a", "b"):
            self.sending.add(each)
        self.assertEqual((self.sent, len(self.clock.getDelayedCalls())), ([], 1))
        self.clock.advance(0)
        self.assertEqual((self.sent, self.clock.getDelayedCalls()), (["a", "b"], []))
        self.sending.add("c")
        self.clock.advance(0)
        self.assertEqual(self.sent, ["a", "b", "c"])

    def test_stop(self) -> None:
        """No call is left after the end."""
        self.sending.add("a")
        self.sending.stop()
        self.sending.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.sending.add("b")
        self.clock.advance(0)
        self.assertEqual(self.sent, ["b"])


class ChannelTests(SynchronousTestCase):
    """The channel of a site, on a socket."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.site = LoginSite(Rig().root, self.clock)
        self.socket = Socket()
        self.channel = self.site.buildProtocol(PEER)
        self.channel.makeConnection(self.socket)

    def received(self) -> list[bytes]:
        """Return the first line of each response that was sent."""
        return re.findall(rb"HTTP/1\.1 [0-9]+ [A-Za-z ]+", self.socket.sent)

    def test_next_turn(self) -> None:
        """A response is sent in the next turn."""
        self.channel.dataReceived(VERSIONS)
        self.assertEqual(self.received(), [])
        self.clock.advance(0)
        self.assertEqual((self.received(), self.socket.watched), ([b"HTTP/1.1 200 OK"], 0))

    def test_order(self) -> None:
        """What is sent otherwise comes after the responses that are held back."""
        expecting = b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        self.channel.dataReceived(VERSIONS)
        self.channel.dataReceived(
            b"POST /_matrix/client/v3/refresh HTTP/1.1\r\nHost: a\r\n" + expecting
        )
        self.channel.dataReceived(b"NO HTTP\r\n\r\n")
        self.clock.advance(1)
        self.socket.doWrite()
        self.assertEqual(
            self.received(),
            [
                b"HTTP/1.1 200 OK",
                b"HTTP/1.1 100 Continue",
                b"HTTP/1.1 400 Bad Request",
                b"HTTP/1.1 400 Bad Request",
            ],
        )

    def test_last(self) -> None:
        """A response that closes the connection is sent before that."""
        self.channel.dataReceived(VERSIONS.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        self.assertEqual(self.received(), [b"HTTP/1.1 200 OK"])

    def test_unread(self) -> None:
        """A client that reads no responses has as long for that as for a request."""
        self.socket.room = 0
        for _ in range(20):
            self.channel.dataReceived(VERSIONS)
            self.clock.advance(0)
        self.assertIn(self.channel, self.site.unread)
        self.socket.room = 1 << 20
        self.socket.doWrite()
        self.clock.advance(0)
        self.socket.doWrite()
        self.assertNotIn(self.channel, self.site.unread)
        self.assertIn(self.channel, self.site.idle)
        self.assertEqual(len(self.received()), 20)

    def test_aborted(self) -> None:
        """Nothing is sent on a connection that is being aborted, whatever comes after that."""
        self.patch(self.socket, "abortConnection", lambda: None)
        self.channel.dataReceived(VERSIONS)
        self.channel.abort()
        self.channel.send(b"late")
        self.clock.advance(0)
        self.assertEqual(self.socket.sent, b"")

    def test_lost(self) -> None:
        """Nothing is sent on a connection that was lost meanwhile."""
        self.channel.dataReceived(VERSIONS)
        self.channel.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(0)
        self.assertEqual(self.socket.sent, b"")
