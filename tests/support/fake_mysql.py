"""A server that speaks a little of MySQL's protocol, as a test wants it."""

from __future__ import annotations

import struct
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

reactor = cast(Any, global_reactor)

OK = b"\0\0\0\2\0\0\0"
WANTS_A_FILE = b"\xfb/etc/passwd"
WANTS_THE_PASSWORD = b"\xfemysql_clear_password\0"


def packet(number: int, payload: bytes) -> bytes:
    """Frame a packet.

    :param number: its place among the packets of a command.
    """
    return struct.pack("<I", len(payload))[:3] + bytes([number]) + payload


def greeting() -> bytes:
    """The first packet of a server without TLS."""
    salt = b"12345678"
    # Its capabilities: passwords of today, protocol 4.1, plugins. TLS would be 0x800.
    low, high = struct.pack("<H", 0x8209), struct.pack("<H", 0x0008)
    plugin = b"mysql_native_password\0"
    body = salt + b"\0" + low + b"\x2d\2\0" + high + b"\x15" + b"\0" * 10 + b"123456789012\0"
    return packet(0, b"\x0a8.4.0\0" + b"\1\0\0\0" + body + plugin)


class FakeMySQL(Factory):
    """A server on a free loopback port.

    :param first: what it sends first.
    :param answers: the payloads of its answers to what the client sends, one by one; after the last
        one it answers nothing.
    :param trickle: what it sends besides, again and again.
    :ivar received: all that clients have sent.
    """

    def __init__(self, first: bytes, *answers: bytes, trickle: bytes = b"") -> None:
        self.first = first
        self.answers = answers
        self.trickle = trickle
        self.received = b""
        self._ended = 0
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port: int = self._port.getHost().port

    def buildProtocol(self, addr: object) -> Protocol:
        return _Connection(self)

    def has_ended(self, count: int = 1) -> bool:
        """Whether so many connections are over."""
        return self._ended >= count

    def connection_ended(self) -> None:
        """Note that a connection is over."""
        self._ended += 1

    def stop(self) -> Deferred[None]:
        """Stop listening."""
        stopped: Deferred[None] = maybeDeferred(self._port.stopListening)
        return stopped


class _Connection(Protocol):
    transport: Any

    def __init__(self, server: FakeMySQL) -> None:
        self._server = server
        self._answers = iter(server.answers)
        self._trickling = LoopingCall(self._trickle)

    def connectionMade(self) -> None:
        self.transport.write(self._server.first)
        self._trickling.start(0.05)

    def dataReceived(self, data: bytes) -> None:
        self._server.received += data
        answer = next(self._answers, None)
        if answer is not None:
            self.transport.write(packet((data[3] + 1) % 256, answer))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._trickling.stop()
        self._server.connection_ended()

    def _trickle(self) -> None:
        self.transport.write(self._server.trickle)
