"""``python -m benchmarks.delay PORT HOST:PORT MILLISECONDS``: a proxy that adds latency.

It forwards connections and delays each direction, as if the target were on another machine.
"""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.support.ports import free_port, listens
from tests.support.process import Process

reactor: Any = global_reactor


class Delay:
    """A delaying proxy in a process of its own; use it in a ``with`` statement.

    :param target: the server's ``HOST:PORT``.
    :param seconds: the delay of each direction.
    :ivar port: the port that the proxy listens on.
    """

    def __init__(self, folder: Path, target: str, seconds: float) -> None:
        self.port = free_port()
        given = str(self.port), target, str(seconds * 1000)
        command = [sys.executable, "-m", "benchmarks.delay", *given]
        self._process = Process(command, folder / f"delay-{self.port}.log")

    def __enter__(self) -> Delay:
        self._process.start_and_wait(lambda: listens(self.port))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()


class _Side(Protocol):
    """One side of a connection, which forwards data to the other side after the delay."""

    transport: Any
    other: _Side

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[bytes] = deque()
        self.connected_since = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.connected_since = True
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        reactor.callLater(self._seconds, self.other.send, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other.connected_since:
            reactor.callLater(self._seconds, self.other.transport.loseConnection)

    def send(self, data: bytes) -> None:
        """Send data, now or once the side is connected."""
        self._waiting.append(data)
        if self.connected_since:
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            self.transport.write(self._waiting.popleft())


class _Sides(Factory):
    def __init__(self, host: str, port: int, seconds: float) -> None:
        self._target = HostnameEndpoint(reactor, host, port)
        self._seconds = seconds

    def buildProtocol(self, addr: object) -> Protocol:
        near, far = _Side(self._seconds), _Side(self._seconds)
        near.other, far.other = far, near
        connectProtocol(self._target, far).addErrback(lambda _: near.transport.abortConnection())
        return near


def main() -> None:
    """Parse the command line and run the proxy."""
    port, target, milliseconds = sys.argv[1:]
    host, _, target_port = target.rpartition(":")
    sides = _Sides(host, int(target_port), float(milliseconds) / 1000)
    reactor.listenTCP(int(port), sides, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
