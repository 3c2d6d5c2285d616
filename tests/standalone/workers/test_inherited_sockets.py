"""Tests for listening sockets that a parent opened and its workers accept from."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from synapse_login_module.errors import ConfigError
from synapse_login_module.standalone.workers.inherited_sockets import (
    OpenSocket,
    SharedPort,
    endpoint,
    never_yield,
)

reactor = cast(Any, global_reactor)


class Greeter(Protocol):
    """A protocol that sends a greeting and closes the connection."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


class Listener(Protocol):
    """A protocol that collects everything until the connection closes."""

    def __init__(self) -> None:
        self.heard = b""
        self.over: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(self.heard)


class FailsFirst(Factory):
    """A factory that fails for the first connection."""

    noisy = False
    protocol = Greeter
    served = False

    def buildProtocol(self, addr: object) -> Protocol | None:
        if not self.served:
            self.served = True
            raise ValueError("not this one")
        return Greeter()


class InheritedSocketTests(TestCase):
    """A socket opened once, and accepted from by two ports."""

    async def hear(self, port: int) -> bytes:
        """Connect; return the greeting."""
        listener = Listener()
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), listener)
        return await listener.over

    async def test_shared(self) -> None:
        """When one port stops and the parent closes the socket, the other port still accepts."""
        opened = OpenSocket(reactor, "tcp:0:interface=127.0.0.1")
        ports = []
        for _ in range(2):
            descriptor = socket.fromfd(opened.descriptor, socket.AF_INET, socket.SOCK_STREAM)
            place = endpoint(reactor, "tcp:0:interface=127.0.0.1", descriptor.detach())
            ports.append(await place.listen(Factory.forProtocol(Greeter)))
        address = ports[1].getHost()
        assert isinstance(address, IPv4Address)
        self.assertEqual(await self.hear(address.port), b"hello")
        await opened.close()
        await maybeDeferred(ports[0].stopListening)
        self.assertEqual(await self.hear(address.port), b"hello")
        await maybeDeferred(ports[1].stopListening)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", address.port)).close()

    async def test_failure(self) -> None:
        """A connection that cannot be served does not affect the others."""
        listening = socket.create_server(("127.0.0.1", 0))
        number = listening.getsockname()[1]
        port = SharedPort(reactor, listening.detach(), FailsFirst())
        port.startListening()
        self.addCleanup(port.stopListening)
        self.assertEqual(await self.hear(number), b"")
        self.assertEqual(await self.hear(number), b"hello")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class Watching(Clock):
    """A reactor that records its readers.

    :ivar failure: the error with which it rejects connections.
    :ivar asked: the number of connections that it was given.
    """

    failure: Exception
    asked = 0

    def removeReader(self, reader: object) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def adoptStreamConnection(self, *_: object) -> None:
        self.asked += 1
        raise self.failure

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[object] = []
        self.addReader = self.readers.append


class FullSocket:
    """A socket of a process that has no descriptor left."""

    def fileno(self) -> int:
        return 99

    def accept(self) -> None:
        raise OSError(errno.EMFILE, "Too many open files")


class SharedPortTests(SynchronousTestCase):
    """Errors of a socket."""

    def test_no_descriptor_left(self) -> None:
        """Without a free descriptor, accepting pauses for a moment."""
        clock = Watching()
        listening = socket.create_server(("127.0.0.1", 0))
        port = SharedPort(clock, listening.detach(), Factory.forProtocol(Greeter))
        port.startListening()
        self.assertEqual(clock.readers, [port])
        real, port._socket = port._socket, cast(socket.socket, FullSocket())
        port.doRead()
        self.assertEqual(clock.readers, [])
        clock.advance(0.1)
        self.assertEqual(clock.readers, [port])
        port._socket = real
        port.stopListening()
        self.assertEqual(clock.readers, [])

    def test_others_first(self) -> None:
        """A connection that another process should accept is left to it for a moment."""
        clock = Watching()
        clock.failure = OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        port = self.connected_to(clock, lambda: True)
        port.doRead()
        self.assertEqual((clock.readers, clock.asked), ([], 0))
        clock.advance(0.001)
        self.assertEqual((clock.readers, clock.asked), ([port], 1))
        port.doRead()
        port.stopListening()
        clock.advance(0.001)
        self.assertEqual((clock.readers, clock.asked), ([], 1))

    def test_no_descriptor_left_for_a_connection(self) -> None:
        """If the last descriptor was used to accept, accepting pauses too, and a line is logged."""
        clock = Watching()
        clock.failure = OSError(errno.EMFILE, "Too many open files")
        port = self.connected_to(clock)
        with capturedLogs() as events:
            port.doRead()
        self.assertEqual(clock.readers, [])
        self.assertEqual(len(events), 1)
        clock.advance(0.1)
        self.assertEqual(clock.readers, [port])

    def test_gone_already(self) -> None:
        """A client that has gone before its connection was accepted causes no error."""
        clock = Watching()
        clock.failure = OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        port = self.connected_to(clock)
        with capturedLogs() as events:
            port.doRead()
        self.assertEqual(clock.readers, [port])
        self.assertEqual(events, [])

    def connected_to(
        self, clock: Watching, should_yield: Callable[[], bool] = never_yield
    ) -> SharedPort:
        """A port to whose socket a client has connected."""
        listening = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listening.getsockname())
        self.addCleanup(client.close)
        factory = Factory.forProtocol(Greeter)
        port = SharedPort(clock, listening.detach(), factory, should_yield)
        port.startListening()
        self.addCleanup(port.stopListening)
        return port

    def test_in_use(self) -> None:
        """A socket that cannot be opened gives one line."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            description = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            problem = self.assertRaises(ConfigError, OpenSocket, reactor, description)
        self.assertIn("in use", str(problem))
