"""The load generator: a process that takes less processor time than any server that it drives.

It has one thread and bare sockets, and parses only the end of a response and its two tokens. It
reads what to send as lines from standard input, and prints the measurements as one JSON object. The
modes: ``chain`` refreshes one session repeatedly on each connection; ``lenient`` does the same at
``/refresh``; ``scatter`` refreshes each session once; ``login`` posts the line repeatedly; ``get``
requests the path in the line, with the access token that follows it, and ``each`` requests that of
each line once; ``introspect`` asks whose the tokens in the lines are, with the secret that precedes
each.

With ``--rate``, requests are due at an even rate, and the time of each counts from when it was due.
Without, each connection sends the next request when it has the response to the last one.

``python -m benchmarks.load MODE --port PORT --connections N --requests N --seconds S < LINES``
"""

from __future__ import annotations

import argparse
import json
import resource
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle

CHAIN, LENIENT, SCATTER, LOGIN, GET, EACH, INTROSPECT = MODES = (
    "chain",
    "lenient",
    "scatter",
    "login",
    "get",
    "each",
    "introspect",
)

_CLIENT = b"/_matrix/client/"
_JSON, _FORM = b"application/json", b"application/x-www-form-urlencoded"

_ACCESS = b'"access_token":'
_REFRESH = b'"refresh_token":'
_LENGTH = b"content-length: "
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Result:
    """The measurements of a run.

    :param cpu: the share of one core that the generator used.
    :param failed: the number of responses other than 200.
    :param p50: seconds, as are ``p99`` and ``slowest``.
    """

    requests: int
    failed: int
    seconds: float
    cpu: float
    p50: float
    p99: float
    slowest: float

    @property
    def rate(self) -> float:
        """The requests a second."""
        return self.requests / self.seconds


class Connection:
    """One connection and its next request."""

    def __init__(self, port: int, mode: str, lines: Iterator[bytes]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0
        self.status = b""
        self._mode = mode
        self._start, self._type = (b"/", _FORM) if mode == INTROSPECT else (_CLIENT, _JSON)
        self._lines = lines
        self._line = b""
        self._access = self._refresh = b""
        self._received = b""

    def send(self, due: float | None = None) -> bool:
        """Send the next request; return whether there was one.

        :param due: when it was due, if it had to wait for a connection.
        """
        request = self._next()
        if request is None:
            return False
        method, path, token, body = request
        authorization = b"Authorization: Bearer %b\r\n" % token if token else b""
        self.began = time.perf_counter() if due is None else due
        self.socket.sendall(
            b"%b %b%b HTTP/1.1\r\nHost: localhost\r\n%b"
            b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (method, self._start, path, authorization, self._type, len(body), body)
        )
        return True

    def receive(self) -> bool:
        """Read what has arrived; return whether the response is complete."""
        data = self.socket.recv(65536)
        if not data:
            raise SystemExit("the server closed a connection")
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._received[:end].lower()
        start = head.find(_LENGTH)
        if start < 0:
            complete = self._received.endswith(_LAST_CHUNK)
        else:
            length = int(head[start + len(_LENGTH) :].split(b"\r\n", 1)[0])
            complete = len(self._received) >= end + 4 + length
        if not complete:
            return False
        answer, self._received = self._received, b""
        self.status = answer[9:12]
        if self._mode in (CHAIN, LENIENT) and self.status == b"200":
            self._access, self._refresh = _after(_ACCESS, answer), _after(_REFRESH, answer)
        return True

    def _next(self) -> tuple[bytes, bytes, bytes, bytes] | None:
        """Return the method, path, access token and body of the next request."""
        if self._mode == INTROSPECT:
            secret, _, token = next(self._lines, b"").partition(b" ")
            body = b"token=%b&token_type_hint=access_token" % token
            return (b"POST", b"oauth2/introspect", secret, body) if token else None
        if self._mode in (LOGIN, GET, EACH):
            if self._mode == EACH or not self._line:
                self._line = next(self._lines, b"")
            if not self._line:
                return None
            if self._mode == LOGIN:
                return b"POST", b"v3/login", b"", self._line
            path, _, token = self._line.partition(b" ")
            return b"GET", path, token, b""
        if self._mode == SCATTER or not self._refresh:
            self._access, _, self._refresh = next(self._lines, b"").partition(b" ")
        if not self._refresh:
            return None
        body = b'{"refresh_token": "%b"}' % self._refresh
        if self._mode == LENIENT:
            return b"POST", b"v3/refresh", b"", body
        return b"POST", b"v3/tokenrefresh", self._access, body


def _after(key: bytes, answer: bytes) -> bytes:
    start = answer.index(b'"', answer.index(key) + len(key)) + 1
    return answer[start : answer.index(b'"', start)]


def run(
    connections: list[Connection], requests: int, seconds: float, rate: float | None = None
) -> Result:
    """Send up to ``requests`` requests within ``seconds``, and wait for every response.

    :param rate: how many requests are due in a second; ``None`` for as many as are answered.
    """
    # epoll waits for whole milliseconds, so what is due would be sent up to one too late. select
    # does not, and needs no more than a thousand descriptors here.
    selector = selectors.DefaultSelector() if rate is None else selectors.SelectSelector()
    for each in connections:
        selector.register(each.socket, selectors.EVENT_READ, each)
    took: list[float] = []
    failed = sent = 0
    free = list(connections)
    cpu = _cpu()
    began = time.perf_counter()
    deadline = began + seconds
    while True:
        now = time.perf_counter()
        pause = None
        while free and sent < requests and now < deadline:
            due = now if rate is None else began + sent / rate
            if due > now:
                pause = due - now
                break
            if not free.pop().send(None if rate is None else due):
                requests = sent
                break
            sent += 1
        if len(took) == sent and pause is None:
            break
        for key, _ in selector.select(pause):
            connection: Connection = key.data
            if connection.receive():
                took.append(time.perf_counter() - connection.began)
                failed += connection.status != b"200"
                free.append(connection)
    lasted = time.perf_counter() - began
    took.sort()
    return Result(
        requests=len(took),
        failed=failed,
        seconds=lasted,
        cpu=(_cpu() - cpu) / lasted,
        p50=took[len(took) // 2],
        p99=took[len(took) * 99 // 100],
        slowest=took[-1],
    )


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Read the lines from standard input, run, and print the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float)
    options = parser.parse_args()
    given = sys.stdin.buffer.read().splitlines()
    lines = cycle(given) if options.mode == INTROSPECT else iter(given)
    connections = [
        Connection(options.port, options.mode, lines) for _ in range(options.connections)
    ]
    result = run(connections, options.requests, options.seconds, options.rate)
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
