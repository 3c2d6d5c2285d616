"""Random requests over a socket: valid ones, nearly valid ones, and random bytes."""

from __future__ import annotations

import json
import socket
from random import Random
from typing import Any

from tests.support.accounts import ALICE_PASSWORD

TIMEOUT = 60.0

_PATHS = (
    "login",
    "tokenrefresh",
    "refresh",
    "logout",
    "account/whoami",
    "login/get_token",
    "nowhere",
)
_PREFIXES = ("r0", "v3", "v1", "unstable", "api/v1", "v2_alpha", "v9", "..", "%2e%2e")
_METHODS = ("GET", "HEAD", "POST", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get")
_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**400,
    1.5e308,
    "",
    "x" * 3000,
    "alice",
    "@alice:example.com",
    "@:example.com",
    "\0",
    "\ud800",
    "é\u0301" * 50,
    "m.id.user",
    "m.id.thirdparty",
    "m.id.phone",
    "m.login.password",
    "m.login.token",
    [],
    {},
    [[[[]]]],
    {"type": "m.id.user", "user": "alice"},
    {"type": "m.id.phone", "country": "GB", "phone": "07700 900123"},
    {"type": "m.id.thirdparty", "medium": "email", "address": "a@b"},
)
_HEADERS = (
    b"X-Forwarded-For: 203.0.113.7, garbage, ::1",
    b"X-Forwarded-For: \xff\xfe",
    b"Authorization: Basic eDp5",
    b"Authorization: Bearer",
    b"Authorization: Bearer \xff\x00",
    b"Content-Type: text/plain; charset=utf-7",
    b"Accept-Encoding: gzip, br",
    b"Expect: nonsense",
    b"Origin: null",
    b"Cookie: a=b",
    b"Connection: close",
    b"Upgrade: h2c",
    b"Range: bytes=0-1",
    b": no name",
    b"No colon",
    b"Transfer-Encoding: gzip",
)


class StormError(AssertionError):
    """The server broke a rule."""


class Storm:
    """A client that sends requests one after the other, and checks each response.

    :param port: the server's port.
    :param random: the source of all choices.
    :ivar statuses: the count of each status; 0 is a connection that ended without a response.
    """

    def __init__(self, port: int, random: Random) -> None:
        self._port = port
        self._random = random
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._tokens: list[str] = ["", "slmat_x"]
        self.statuses: dict[int, int] = {}

    def run(self, count: int) -> None:
        """Send ``count`` requests.

        :raise StormError: for a response of 500 or above, or none in time.
        """
        for _ in range(count):
            kind = self._random.random()
            if kind < 0.06:
                self._send_noise()
            else:
                self._send_request()
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._buffer = None, b""

    def _send_request(self) -> None:
        choose = self._random.choice
        method = choose(_METHODS)
        path = f"/_matrix/client/{choose(_PREFIXES)}/{choose(_PATHS)}"
        if self._random.random() < 0.1:
            path += f"?access_token={choose(self._tokens)}"
        headers = [b"Host: login.example"]
        if self._random.random() < 0.6:
            headers.append(b"Authorization: Bearer " + choose(self._tokens).encode())
        headers += [choose(_HEADERS) for _ in range(self._random.randrange(3))]
        self._random.shuffle(headers)
        body = self._body()
        if self._random.random() < 0.15:
            headers.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        else:
            headers.append(b"Content-Length: %d" % len(body))
        start = f"{method} {path} HTTP/1.{choose('1110')}".encode()
        self._exchange(b"\r\n".join([start, *headers, b"", body]), method)

    def _send_noise(self) -> None:
        """Send random bytes, on a connection that is not used afterwards."""
        size = self._random.choice((0, 1, 20, 300, 20_000))
        noise = self._random.randbytes(size)
        if self._random.random() < 0.5:
            noise = b"POST /_matrix/client/v3/login HTTP/1.1\r\n" + noise
        self.close()
        self._exchange(noise, "GET", last=True)

    def _body(self) -> bytes:
        choose = self._random.choice
        kind = self._random.random()
        if kind < 0.1:
            return self._random.randbytes(self._random.randrange(200))
        if kind < 0.15:
            return b"[" * self._random.choice((10, 30_000)) + b"x" * self._random.randrange(100)
        if kind < 0.16:
            return b"x" * (64 * 1024 + 1)
        payload: dict[str, Any] = {
            "type": "m.login.password",
            "user": "alice",
            "password": ALICE_PASSWORD,
            "device_id": f"D{self._random.randrange(50)}",
            "refresh_token": choose(self._tokens),
        }
        if self._random.random() < 0.7:
            payload["refresh_token"] = self._random.random() < 0.5
        for _ in range(self._random.choice((0, 0, 1, 1, 2, 3))):
            key = choose((*payload, "identifier", "auth", "token", "medium", "address"))
            if self._random.random() < 0.3:
                payload.pop(key, None)
            else:
                payload[key] = choose(_VALUES)
        text = json.dumps(payload).encode()
        if self._random.random() < 0.1:
            at = self._random.randrange(len(text))
            text = text[:at] + self._random.randbytes(1) + text[at + 1 :]
        return text

    def _exchange(self, data: bytes, method: str, last: bool = False) -> None:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), TIMEOUT)
        try:
            self._socket.sendall(data)
            if last:
                self._socket.shutdown(socket.SHUT_WR)
            status, body, closes = self._answer(method)
        except TimeoutError:
            raise StormError(f"no answer to {data[:2000]!r}") from None
        except OSError:  # the server closed the connection while we sent
            status, body, closes = 0, b"", True
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status >= 500:
            raise StormError(f"{status} {body!r} to {data[:2000]!r}")
        if status == 200 and b"access_token" in body:
            self._remember(json.loads(body))
        if closes or last:
            self.close()

    def _remember(self, answer: dict[str, Any]) -> None:
        self._tokens += [answer["access_token"], answer.get("refresh_token", "")]
        del self._tokens[2:-12]

    def _answer(self, method: str) -> tuple[int, bytes, bool]:
        head = self._until(b"\r\n\r\n")
        if head is None:
            return 0, b"", True
        start, *lines = head.lower().split(b"\r\n")
        status = int(start.split()[1])
        if status == 100:
            return self._answer(method)
        headers = dict(line.split(b": ", 1) for line in lines)
        length = 0 if method == "HEAD" else int(headers.get(b"content-length", 0))
        while len(self._buffer) < length:
            if not self._more():
                raise StormError(f"half an answer: {head!r} {self._buffer!r}")
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        closes = headers.get(b"connection") == b"close" or start.startswith(b"http/1.0")
        return status, body, closes or self._buffer != b""

    def _until(self, end: bytes) -> bytes | None:
        while end not in self._buffer:
            if not self._more():
                return None
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _more(self) -> bool:
        assert self._socket is not None
        data = self._socket.recv(65536)
        self._buffer += data
        return bool(data)
