"""The hostile client: a process that runs one kind of flood for a number of seconds.

It uses bare sockets and one thread, as :mod:`benchmarks.load` does, so that it takes less processor
time than the server. A kind says what each connection sends first, what it repeats, and how it
reads.

``python -m benchmarks.flooding KIND --port PORT --connections N --seconds S``
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

_BODY = 64 * 1024
_AT_ONCE = 65536


@dataclass(frozen=True)
class Kind:
    """One kind of flood.

    :param what: a description of the flood.
    :param first: the bytes that each connection sends first.
    :param again: makes the bytes of each repetition; with ``None`` nothing more is sent.
    :param answers: the number of responses to wait for before each repetition; 0 reads once,
        whatever is there, and ``None`` never reads.
    """

    what: str
    first: bytes = b""
    again: Callable[[], bytes] | None = None
    answers: int | None = None


def _head(path: str, *headers: bytes) -> bytes:
    return b"\r\n".join(
        [b"POST %b HTTP/1.1" % path.encode("ascii"), b"Host: localhost", *headers, b"", b""]
    )


def _token() -> bytes:
    """Make a well-formed refresh token that was never issued, so that the store is queried."""
    raw = struct.pack(">BBHQI", 1, 2, 1, int.from_bytes(os.urandom(7), "big"), 0) + os.urandom(32)
    return b"slmrt_" + base64.urlsafe_b64encode(raw)


def _refresh(*headers: bytes) -> bytes:
    """Make a refresh request with such a token, 250 bytes."""
    body = b'{"refresh_token": "%b"}' % _token()
    return _head("/_matrix/client/v3/refresh", *headers, b"Content-Length: %d" % len(body)) + body


def _refreshes() -> bytes:
    return _refresh() * 400


def _from_anywhere() -> bytes:
    """Make a refresh request with a random IPv6 network in ``X-Forwarded-For``."""
    network = ":".join(f"{each:x}" for each in struct.unpack(">3H", os.urandom(6)))
    return _refresh(b"X-Forwarded-For: 2001:%b::1" % network.encode("ascii"))


def _login() -> bytes:
    """Make a login request of 64 KiB that takes megabytes when parsed."""
    start = b'{"type": "m.login.password", "user": "%b", "password": "x", "more": [' % (
        os.urandom(8).hex().encode("ascii")
    )
    body = start + b"{}," * ((_BODY - len(start) - 8) // 3) + b"{}]}"
    network = f"2001:db8:{os.urandom(2).hex()}::1".encode("ascii")
    headers = b"X-Forwarded-For: " + network, b"Content-Length: %d" % len(body)
    return _head("/_matrix/client/v3/login", *headers) + body


_CHUNKED = _head("/_matrix/client/v3/login", b"Transfer-Encoding: chunked")

KINDS = {
    "pipelined": Kind("400 refreshes at once, read a little, again", again=_refreshes, answers=0),
    "unread": Kind("refreshes without end, no answer is read", again=_refreshes),
    "lockstep": Kind("one refresh after the other", again=_refresh, answers=1),
    "networks": Kind("each refresh from another network", again=_from_anywhere, answers=1),
    "line": Kind("a request line that does not end", b"GET /" + b"x" * 16000),
    "headers": Kind(
        "headers that do not end",
        b"GET / HTTP/1.1\r\n" + b"".join(b"%x:\r\n" % n for n in range(499)),
    ),
    "bodies": Kind(
        "bodies of 64 KiB of which the last byte is missing",
        _head("/_matrix/client/v3/login", b"Content-Length: %d" % _BODY) + bytes(_BODY - 1),
    ),
    "chunks": Kind("the same in chunks of a byte", _CHUNKED + b"1\r\nx\r\n" * (_BODY - 1)),
    "trailers": Kind("trailers that do not end", _CHUNKED + b"0\r\n" + b"x\r\n" * 20_000),
    "last": Kind(
        "bytes without end after the last request",
        b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        again=lambda: bytes(_AT_ONCE),
    ),
    "logins": Kind("logins of 64 KiB that are many objects", again=_login, answers=1),
}


class Flood:
    """Connections that run one kind of flood.

    :param sources: the number of loopback addresses that they come from.
    """

    def __init__(self, kind: Kind, port: int, sources: int, tls: bool) -> None:
        self._kind = kind
        self._port = port
        self._tls = ssl.create_default_context() if tls else None
        if self._tls is not None:
            self._tls.check_hostname = False
            self._tls.verify_mode = ssl.CERT_NONE
        self._addresses: Iterator[int] = (number % sources for number in count())
        self._selector = selectors.DefaultSelector()
        self.answered = self.lost = 0

    def open(self) -> None:
        """Open one more connection."""
        number = next(self._addresses)
        address = "127.0.0.1" if number == 0 else f"127.1.{number // 250}.{number % 250 + 1}"
        made = socket.create_connection(("127.0.0.1", self._port), 10, (address, 0))
        if self._tls is not None:
            made = self._tls.wrap_socket(made)
        made.setblocking(False)
        connection = _Connection(self._kind, made)
        self._selector.register(made, connection.wants, connection)

    def turn(self) -> None:
        """Send and read on all connections that are ready."""
        for key, events in self._selector.select(0.1):
            connection: _Connection = key.data
            try:
                self.answered += connection.turn(events)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                continue
            except OSError:
                self.lost += 1
                self._selector.unregister(connection.socket)
                connection.socket.close()
                with suppress(OSError):
                    self.open()
                continue
            if connection.wants:
                self._selector.modify(connection.socket, connection.wants, connection)
            else:
                self._selector.unregister(connection.socket)


class _Connection:
    def __init__(self, kind: Kind, made: socket.socket) -> None:
        self.socket = made
        self._kind = kind
        self._to_send = kind.first or (kind.again() if kind.again else b"")
        self._unread = kind.answers or 0

    @property
    def wants(self) -> int:
        """The selector's events that it waits for; 0 for none ever again."""
        if self._to_send:
            return selectors.EVENT_WRITE
        # A connection that never reads does not notice that the server has closed it.
        return 0 if self._kind.answers is None else selectors.EVENT_READ

    def turn(self, events: int) -> int:
        """Send or read; return the number of responses that were read."""
        if events & selectors.EVENT_WRITE:
            self._to_send = self._to_send[self.socket.send(self._to_send[:_AT_ONCE]) :]
            if not self._to_send and self._kind.answers is None and self._kind.again:
                self._to_send = self._kind.again()
            return 0
        data = self.socket.recv(_AT_ONCE)
        if not data:
            raise ConnectionError
        while isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            data += self.socket.recv(_AT_ONCE)
        answers = data.count(b"HTTP/1.1 ")
        self._unread -= answers
        if self._unread <= 0 and self._kind.again:
            self._unread = self._kind.answers or 0
            self._to_send = self._kind.again()
        return answers


def main() -> None:
    """Run the flood and print the result as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flooding", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=190)
    parser.add_argument("--sources", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    flood = Flood(KINDS[options.kind], options.port, options.sources, options.tls)
    deadline = time.monotonic() + options.seconds
    for number in range(options.connections):
        with suppress(OSError):
            flood.open()
        if number % 20 == 0:
            flood.turn()
    while time.monotonic() < deadline:
        flood.turn()
    print(json.dumps({"answered": flood.answered, "lost": flood.lost}))


if __name__ == "__main__":
    main()
