"""A proxy that cuts a connection at the worst of moments: after the commit, before the response.

It is between clients and the server, or between the store and PostgreSQL.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

reactor = cast(Any, global_reactor)

WRITES = b"UPDATE synapse_login_sessions"


class _Upstream(Protocol):
    """The side towards the server."""

    def __init__(self, downstream: _Downstream) -> None:
        self._downstream = downstream

    def connectionMade(self) -> None:
        """Tell the other side that the server is connected."""
        self._downstream.reached(self)

    def dataReceived(self, data: bytes) -> None:
        """Give the data of the server to the other side."""
        self._downstream.answered(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Close the other side."""
        self._downstream.close()


class _Downstream(Protocol):
    """The side towards the client."""

    def __init__(self, proxy: CuttingProxy) -> None:
        self._proxy = proxy
        self._upstream: _Upstream | None = None
        self._early: list[bytes] = []
        self._wrote = False

    def connectionMade(self) -> None:
        """Connect to the server."""
        self._proxy.open.add(self)
        factory = Factory.forProtocol(lambda: _Upstream(self))
        factory.noisy = False
        connecting = self._proxy.upstream(factory)
        connecting.addErrback(lambda _: self.close())

    def reached(self, upstream: _Upstream) -> None:
        """Send what arrived before the server was connected."""
        self._upstream = upstream
        for data in self._early:
            cast(ITCPTransport, upstream.transport).write(data)

    def dataReceived(self, data: bytes) -> None:
        """Pass data on to the server, and note whether it makes the server write."""
        self._wrote = self._wrote or self._proxy.writes in data
        if self._upstream is None:
            self._early.append(data)
        else:
            cast(ITCPTransport, self._upstream.transport).write(data)

    def answered(self, data: bytes) -> None:
        """Pass on a response or, if it is to be cut, close: the server has committed by then."""
        if self._wrote and self._proxy.take_cut(data):
            self.close()
            return
        self._wrote = False
        cast(ITCPTransport, self.transport).write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Close the other side."""
        self._proxy.open.discard(self)
        self.close()

    def close(self) -> None:
        """Cut both sides."""
        for side in (self, self._upstream):
            if side is not None and side.transport is not None:
                cast(ITCPTransport, side.transport).abortConnection()

    def hang_up(self) -> None:
        """Close like a client that gives up: the server still carries out the request."""
        for side in (self, self._upstream):
            if side is not None and side.transport is not None:
                cast(ITCPTransport, side.transport).loseConnection()


class CuttingProxy:
    """Listens on a loopback port in the server's place.

    :param port: the server's port.
    :param writes: text that every request contains that makes the server write.
    :ivar cuts: the number of responses to writes to swallow from now on, closing the connections.
    :ivar swallowed: the number of responses swallowed so far.
    :ivar open: the open connections.
    """

    def __init__(self, port: int, writes: bytes = WRITES) -> None:
        self.writes = writes
        self.cuts = 0
        self.swallowed: list[bytes] = []
        self.open: set[Any] = set()
        self._upstream_port = port
        factory = Factory.forProtocol(lambda: _Downstream(self))
        factory.noisy = False
        self._listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port

    def upstream(self, factory: Any) -> Any:
        """Connect to the server."""
        return TCP4ClientEndpoint(reactor, "127.0.0.1", self._upstream_port).connect(factory)

    @property
    def made(self) -> int:
        """The number of cuts made."""
        return len(self.swallowed)

    def take_cut(self, answer: bytes) -> bool:
        """Return whether to swallow this response."""
        if not self.cuts:
            return False
        self.cuts -= 1
        self.swallowed.append(answer)
        return True

    def hang_up(self) -> None:
        """Close all connections, without aborting them."""
        for each in list(self.open):
            each.hang_up()

    async def close(self) -> None:
        """Stop listening, and cut the open connections."""
        await self._listening.stopListening()
        for each in list(self.open):
            each.close()
