"""Connections on which tests send raw bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from tests.support.response import Response

reactor = cast(Any, global_reactor)


class Wire(Protocol):
    """One connection, which keeps all bytes that arrive."""

    transport: ITCPTransport

    def __init__(self) -> None:
        self.received = b""
        self.closed = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed = True
        self._look()

    def send(self, data: bytes) -> None:
        """Send bytes, unless the server has closed the connection."""
        if not self.closed:
            self.transport.write(data)

    async def answers(self, *requests: tuple[str, str]) -> list[Response]:
        """Wait for whole responses.

        :param requests: method and path of each request that was sent, in order.
        :return: the responses in order; fewer than requested when the server closed.
        """
        await self._until(lambda: len(parse_answers(self.received, requests)) == len(requests))
        return parse_answers(self.received, requests)

    async def data(self) -> None:
        """Wait for the first bytes to arrive."""
        await self._until(lambda: bool(self.received))

    def answer(self) -> Deferred[tuple[int, Any]]:
        """Take the next response; fires with its status, and its JSON or else its bytes.

        Fails with ``ConnectionLost`` when the connection is closed before.
        """
        return Deferred.fromCoroutine(self._next_answer())

    def lost(self) -> Deferred[None]:
        """Wait for the server to close the connection."""
        return self._until(lambda: self.closed)

    def end(self) -> None:
        """Close the connection for writing."""
        if not self.closed:
            self.transport.loseWriteConnection()

    async def close(self) -> None:
        """Close the connection and wait until it is closed."""
        if not self.closed:
            self.transport.loseConnection()
        await self._until(lambda: self.closed)

    async def abort(self) -> None:
        """Abort the connection, so that the server gets a reset."""
        if not self.closed:
            self.transport.abortConnection()
        await self._until(lambda: self.closed)

    async def _next_answer(self) -> tuple[int, Any]:
        await self._until(lambda: _take(self.received, "GET", "/") is not None)
        taken = _take(self.received, "GET", "/")
        if taken is None:
            raise ConnectionLost(f"after {self.received!r}")
        answer, self.received = taken
        return answer.status, answer.json if answer.body[:1] == b"{" else answer.body

    def _until(self, condition: Callable[[], bool]) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        if condition() or self.closed:
            waiting.callback(None)
        else:
            self._waiting.append((condition, waiting))
        return waiting

    def _look(self) -> None:
        waiting, self._waiting = self._waiting, []
        for condition, deferred in waiting:
            if self.closed or condition():
                deferred.callback(None)
            else:
                self._waiting.append((condition, deferred))


async def connect(port: int, host: str = "127.0.0.1") -> Wire:
    """Connect to a server, on this machine by default."""
    wire = Wire()
    await connectProtocol(TCP4ClientEndpoint(reactor, host, port), wire)
    return wire


async def connect_to(base_url: str) -> Wire:
    """Connect to a server that speaks plain HTTP."""
    url = urlsplit(base_url)
    assert url.hostname is not None
    return await connect(url.port or 80, url.hostname)


def request(
    method: str,
    path: str,
    body: object = None,
    headers: Sequence[tuple[str, str]] = (),
    token: str | None = None,
) -> bytes:
    """Return the bytes of one request, with a Content-Length if there is a body.

    :param body: bytes, sent as they are, or an object to send as JSON.
    """
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if content is not None:
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8") + (content or b"")


def parse_answers(data: bytes, requests: Sequence[tuple[str, str]]) -> list[Response]:
    """Parse the responses that have arrived whole.

    :param requests: method and path of each request that was sent, in order.
    """
    answers = []
    for method, path in requests:
        taken = _take(data, method, path)
        if taken is None:
            break
        answer, data = taken
        answers.append(answer)
    return answers


def _take(data: bytes, method: str, path: str) -> tuple[Response, bytes] | None:
    """Return the first response and the bytes after it, if it has arrived whole."""
    head, blank, rest = data.partition(b"\r\n\r\n")
    if not blank:
        return None
    status_line, *lines = head.decode("utf-8").split("\r\n")
    status = int(status_line.split(" ")[1])
    if status == 100:
        return _take(rest, method, path)
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(":")
        headers.addRawHeader(name, value.strip())
    body_and_rest = _body(rest, method, status, headers)
    if body_and_rest is None:
        return None
    body, rest = body_and_rest
    return Response(status, headers, body, method, path.partition("?")[0]), rest


def _body(data: bytes, method: str, status: int, headers: Headers) -> tuple[bytes, bytes] | None:
    if method == "HEAD" or status in (204, 304):
        return b"", data
    if "chunked" in headers.getRawHeaders("Transfer-Encoding", []):
        return _chunks(data)
    length = int(headers.getRawHeaders("Content-Length", ["0"])[0])
    return (data[:length], data[length:]) if len(data) >= length else None


def _chunks(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        line, newline, data = data.partition(b"\r\n")
        if not newline:
            return None
        size = int(line.partition(b";")[0], 16)
        if len(data) < size + 2:
            return None
        body += data[:size]
        data = data[size + 2 :]
        if size == 0:
            return body, data
