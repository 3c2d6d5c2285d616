"""A bare connection, for what no HTTP client does: requests that are sent by halves."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

reactor = cast(Any, global_reactor)


class Wire(Protocol):
    """Sends bytes, and keeps what comes back until the server closes the connection.

    :ivar closed: fires when it has.
    """

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()
        self._received = b""
        self._answered: Deferred[tuple[int, Any]] | None = None

    def send(self, data: bytes) -> None:
        """Send some bytes."""
        assert self.transport is not None
        self.transport.write(data)

    def answer(self) -> Deferred[tuple[int, Any]]:
        """Fires with the status and the JSON of the next answer; fails if there comes none."""
        self._answered = answered = Deferred[tuple[int, Any]]()
        self._look()
        return answered

    async def close(self) -> None:
        """Close it, if it is open."""
        if not self.closed.called:
            cast(ITCPTransport, self.transport).abortConnection()
            await self.closed

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self._received += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell who waits."""
        self._look()
        if self._answered is not None:
            answered, self._answered = self._answered, None
            answered.errback(reason)
        self.closed.callback(None)

    def _look(self) -> None:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if self._answered is None or not end:
            return
        status, *headers = head.split(b"\r\n")
        length = next(
            int(value)
            for name, _, value in (each.partition(b":") for each in headers)
            if name.lower() == b"content-length"
        )
        if len(rest) >= length:
            self._received = rest[length:]
            answered, self._answered = self._answered, None
            body = rest[:length]
            answered.callback(
                (int(status.split()[1]), json.loads(body) if body[:1] == b"{" else body)
            )


async def connect(port: int) -> Wire:
    """Connect to a server on this machine."""
    wire = Wire()
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), wire)
    return wire


def request(method: str, path: str, body: Any = None, token: str | None = None) -> bytes:
    """The bytes of a request."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode() + content
