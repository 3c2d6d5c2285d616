"""Counts the messages that a client of PostgreSQL sends.

Source: PostgreSQL's documentation, "Message Formats".
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.portforward import ProxyFactory, ProxyServer

from tests.support.postgresql import PostgreSQL

SYNC = "S"
"""The messages that end a pipeline; each costs one round trip."""

_NO_STARTUP = (80877103, 80877104)
"""The codes of requests for encryption, after which the startup message is still to come."""


class _Counting(ProxyServer):
    """One client's connection through the proxy."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""
        self._has_started = False

    def dataReceived(self, data: bytes) -> None:
        """Count whole messages, and forward all bytes."""
        self._rest += data
        while self._count():
            pass
        super().dataReceived(data)

    def _count(self) -> bool:
        start = 1 if self._has_started else 0
        if len(self._rest) < start + 8 and not (start and len(self._rest) >= 5):
            return False
        (length,) = struct.unpack_from("!I", self._rest, start)
        if len(self._rest) < start + length:
            return False
        if start:
            factory: Any = self.factory
            factory.counts[chr(self._rest[0])] += 1
        else:
            (code,) = struct.unpack_from("!I", self._rest, 4)
            self._has_started = code not in _NO_STARTUP
        self._rest = self._rest[start + length :]
        return True


class CountingProxy(ProxyFactory):
    """A proxy that counts the clients' messages by their type.

    :ivar counts: the number of forwarded messages of each type.
    """

    protocol = _Counting
    noisy = False

    def __init__(self, server: PostgreSQL) -> None:
        super().__init__("127.0.0.1", server.port)
        self.counts: Counter[str] = Counter()
        reactor: Any = global_reactor
        self.listening: IListeningPort = reactor.listenTCP(0, self, interface="127.0.0.1")

    @property
    def listens_on(self) -> int:
        """The port that the proxy listens on."""
        address: Any = self.listening.getHost()
        return int(address.port)
