"""Connections to a site in memory, byte by byte."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from synapse_login_module.web.site import LoginSite
from tests.support.web import Reply

STRANGER = IPv4Address("TCP", "203.0.113.9", 50000)


class MemoryWire:
    """A connection to a site in memory.

    :param peer: the client's address.
    """

    def __init__(self, site: LoginSite, peer: IAddress = STRANGER) -> None:
        self.channel = site.buildProtocol(peer)
        self.transport = HalfCloseTransport(peerAddress=peer)
        self.channel.makeConnection(self.transport)
        self._gone = False

    def send(self, data: bytes) -> None:
        """Deliver bytes to the server, unless it has closed the connection."""
        if not self.transport.disconnected:
            self.channel.dataReceived(data)

    def received(self) -> bytes:
        """Return what the server has sent since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    @property
    def read_from(self) -> bool:
        """Whether the server reads from the connection."""
        return bool(self.transport.producerState == "producing")

    def settle(self) -> bool:
        """Complete the server's closing of the connection; return whether it closed."""
        closing = bool(self.transport.disconnecting or self.transport.disconnected)
        if closing:
            self._lost(ConnectionDone())
        return closing

    def vanish(self) -> None:
        """Close the connection by the client."""
        self._lost(ConnectionLost())

    def _lost(self, reason: Exception) -> None:
        if not self._gone:
            self._gone = True
            self.channel.connectionLost(Failure(reason))


class HalfCloseTransport(StringTransport):
    """A string transport that supports half-close and back-pressure, like a TCP connection.

    :ivar write_closed: whether it was closed for writing; later writes are dropped.
    :ivar full_at: the number of unread bytes at which the producer is paused.
    :ivar full: whether the producer is paused.
    """

    write_closed = False
    full_at = 65536
    full = False

    def loseWriteConnection(self) -> None:
        """Close the connection for writing."""
        self.write_closed = True

    def write(self, data: bytes) -> None:
        """Keep bytes, but not after a close."""
        if self.write_closed:
            return
        super().write(data)
        if self.producer is not None and len(self.value()) > self.full_at:
            self.full = True
            self.producer.pauseProducing()

    def clear(self) -> None:
        """Read everything, as the client."""
        super().clear()
        if self.full and self.producer is not None:
            self.full = False
            self.producer.resumeProducing()


def responses(data: bytes) -> list[Reply]:
    """Parse the responses that a server wrote."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        version, status = start.split(b" ")[:2]
        assert version in (b"HTTP/1.0", b"HTTP/1.1"), start
        headers = Headers()
        for line in lines:
            name, _, value = line.partition(b": ")
            headers.addRawHeader(name, value)
        length = int((headers.getRawHeaders(b"Content-Length") or [b"0"])[0])
        assert len(rest) >= length, data
        found.append(Reply(int(status), headers, rest[:length]))
        data = rest[length:]
    return found


def post(path: str, body: bytes, headers: Sequence[bytes] = ()) -> bytes:
    """Return the bytes of a POST."""
    return b"\r\n".join(
        [
            b"POST %b HTTP/1.1" % path.encode("ascii"),
            b"Host: login.example",
            b"Content-Length: %d" % len(body),
            *headers,
            b"",
            body,
        ]
    )


def get(path: str, headers: Sequence[bytes] = ()) -> bytes:
    """Return the bytes of a GET."""
    start = b"GET %b HTTP/1.1" % path.encode("ascii")
    return b"\r\n".join([start, b"Host: login.example", *headers, b"", b""])
