"""Fake upstreams of a proxy: one that records requests, and a broken one."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

reactor = cast(Any, global_reactor)


class Recorder(Resource):
    """An upstream that answers and records every request.

    :ivar requests: the path with the query, and the headers of each request.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, Headers]] = []
        self._port = reactor.listenTCP(0, Site(self), interface="127.0.0.1")
        self.port: int = self._port.getHost().port

    def render(self, request: Request) -> bytes:
        """Record a request and respond."""
        self.requests.append((request.uri.decode("ascii"), request.requestHeaders.copy()))
        request.setHeader("Content-Type", "application/json")
        return b"{}"

    def stop(self) -> Any:
        """Listen no more."""
        return self._port.stopListening()


class Named(Resource):
    """An upstream that says in each response who it is and what it was asked.

    :param name: its name.
    :ivar requests: the headers of each request.
    """

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.requests: list[Headers] = []
        self._port = reactor.listenTCP(0, Site(self), interface="127.0.0.1")
        self.port: int = self._port.getHost().port

    def render(self, request: Request) -> bytes:
        """Respond."""
        self.requests.append(request.requestHeaders.copy())
        method, path = request.method.decode("ascii"), request.uri.decode("ascii")
        request.setHeader("Content-Type", "application/json")
        request.setHeader("X-Upstream", self._name)
        body = json.dumps({"upstream": self._name, "method": method, "path": path})
        return b"" if method == "HEAD" else body.encode("ascii")

    def stop(self) -> Any:
        """Listen no more."""
        return self._port.stopListening()


class _HangUp(Protocol):
    def dataReceived(self, data: bytes) -> None:
        cast(Any, self.transport).loseConnection()


class Broken:
    """An upstream that closes each connection when data arrives."""

    def __init__(self) -> None:
        factory = Factory.forProtocol(_HangUp)
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port: int = self._port.getHost().port

    def stop(self) -> Any:
        """Listen no more."""
        return self._port.stopListening()
