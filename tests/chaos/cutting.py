"""A proxy between the store and PostgreSQL that cuts a connection at the worst of moments."""

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
    """The side towards PostgreSQL."""

    def __init__(self, downstream: _Downstream) -> None:
        self._downstream = downstream

    def connectionMade(self) -> None:
        """Send what has come meanwhile."""
        self._downstream.reached(self)

    def dataReceived(self, data: bytes) -> None:
        """Hand it on, or cut both sides in its place."""
        self._downstream.answered(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Close the other side."""
        self._downstream.close()


class _Downstream(Protocol):
    """The side towards the store."""

    def __init__(self, proxy: CuttingProxy) -> None:
        self._proxy = proxy
        self._upstream: _Upstream | None = None
        self._early: list[bytes] = []
        self._wrote = False

    def connectionMade(self) -> None:
        """Connect to PostgreSQL."""
        self._proxy.open.add(self)
        factory = Factory.forProtocol(lambda: _Upstream(self))
        factory.noisy = False
        connecting = self._proxy.upstream(factory)
        connecting.addErrback(lambda _: self.close())

    def reached(self, upstream: _Upstream) -> None:
        """PostgreSQL is there."""
        self._upstream = upstream
        for data in self._early:
            cast(ITCPTransport, upstream.transport).write(data)

    def dataReceived(self, data: bytes) -> None:
        """Hand it on, and remember whether it writes."""
        self._wrote = self._wrote or WRITES in data
        if self._upstream is None:
            self._early.append(data)
        else:
            cast(ITCPTransport, self._upstream.transport).write(data)

    def answered(self, data: bytes) -> None:
        """PostgreSQL has answered: by now it has committed."""
        if self._wrote and self._proxy.take_cut():
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


class CuttingProxy:
    """Listens on a loopback port in PostgreSQL's place.

    :param port: where PostgreSQL is.
    :ivar cuts: how many answers to a write it is still to swallow, cutting their connections.
    :ivar made: how many it has.
    :ivar open: the connections there are.
    """

    def __init__(self, port: int) -> None:
        self.cuts = 0
        self.made = 0
        self.open: set[Any] = set()
        self._upstream_port = port
        factory = Factory.forProtocol(lambda: _Downstream(self))
        factory.noisy = False
        self._listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port

    def upstream(self, factory: Any) -> Any:
        """Connect to PostgreSQL."""
        return TCP4ClientEndpoint(reactor, "127.0.0.1", self._upstream_port).connect(factory)

    def take_cut(self) -> bool:
        """Whether this is an answer to swallow."""
        if not self.cuts:
            return False
        self.cuts -= 1
        self.made += 1
        return True

    async def close(self) -> None:
        """Listen no more, and cut what is open."""
        await self._listening.stopListening()
        for each in list(self.open):
            each.close()
