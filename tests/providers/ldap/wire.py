"""Servers and proxies that misbehave, in the place of a directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from ldaptor.protocols import pureber, pureldap  # type: ignore[import-untyped]
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

reactor = cast(Any, global_reactor)

_OPERATIONS = pureldap.LDAPBERDecoderContext(
    fallback=pureldap.LDAPBERDecoderContext_Filter(fallback=pureber.BERDecoderContext())
)
_REQUESTS = pureldap.LDAPBERDecoderContext_TopLevel(
    inherit=pureldap.LDAPBERDecoderContext_LDAPMessage(fallback=_OPERATIONS, inherit=_OPERATIONS)
)


class Line(Protocol):
    """One connection of a client.

    :ivar received: all that the client has said on it.
    """

    transport: Any

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.received = b""
        self.lost = False

    def connectionMade(self) -> None:
        self._listener.lines.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._listener.hears(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self._listener.ended(self)


class Listener(Factory):
    """A server on a free loopback port that says nothing; ``stop`` it at the end.

    :ivar lines: every connection that there was.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._ends: list[Deferred[None]] = []
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.number: int = self._port.getHost().port

    def buildProtocol(self, addr: object) -> Line:
        return Line(self)

    @property
    def url(self) -> str:
        """The server's URL for the configuration."""
        return f"ldap://127.0.0.1:{self.number}"

    @property
    def open(self) -> list[Line]:
        """The connections that are open."""
        return [line for line in self.lines if not line.lost]

    @property
    def received(self) -> bytes:
        """All octets that clients have sent."""
        return b"".join(line.received for line in self.lines)

    def hears(self, line: Line, data: bytes) -> None:
        """Send no response."""

    def ended(self, line: Line) -> None:
        """Note that a connection is over."""
        if not self.open:
            ends, self._ends = self._ends, []
            for end in ends:
                end.callback(None)

    def empty(self) -> Deferred[None]:
        """Fire once no connection is open."""
        end: Deferred[None] = Deferred()
        if self.open:
            self._ends.append(end)
        else:
            end.callback(None)
        return end

    def hang_up(self) -> None:
        """End every connection."""
        for line in self.open:
            line.transport.abortConnection()

    def stop_listening(self) -> Deferred[None]:
        """Take no further connection."""
        stopped: Deferred[None] = maybeDeferred(self._port.stopListening)
        return stopped

    def stop(self) -> Deferred[Any]:
        """Stop listening and close every connection."""
        self.hang_up()
        return DeferredList([self.stop_listening(), self.empty()])


class Talker(Listener):
    """Answers the first message of a connection with given octets."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer = answer

    def hears(self, line: Line, data: bytes) -> None:
        if line.received == data:
            line.transport.write(self._answer)


class Trickler(Listener):
    """Begins a response, and continues it without end, an octet at a time."""

    def hears(self, line: Line, data: bytes) -> None:
        line.transport.write(b"\x30\x83\x00\xf0\x00\x02\x01")
        self._call = LoopingCall(line.transport.write, b"\x01")
        self._call.start(0.01)

    def ended(self, line: Line) -> None:
        self._call.stop()
        super().ended(line)


class Flood(Listener):
    """Answers with the same octets again and again, as long as they are taken.

    :param head: the answer to the first thing that a client says.
    :param after: which thing that it says starts the flood.
    :ivar sent: how many octets were sent.
    """

    def __init__(self, head: bytes, again: bytes, after: int = 1) -> None:
        super().__init__()
        self._head = head
        self._again = again
        self._after = after
        self._heard: Counter[Line] = Counter()
        self.sent = 0

    def hears(self, line: Line, data: bytes) -> None:
        self._heard[line] += 1
        if self._heard[line] == 1:
            line.transport.write(self._head)
        if self._heard[line] == self._after:
            line.transport.registerProducer(_Pump(line, self), False)

    def pump(self, line: Line) -> None:
        """Send some more."""
        self.sent += len(self._again)
        line.transport.write(self._again)


class _Pump:
    def __init__(self, line: Line, flood: Flood) -> None:
        self._line = line
        self._flood = flood

    def resumeProducing(self) -> None:
        self._flood.pump(self._line)

    def stopProducing(self) -> None:
        """Do nothing."""


class FakeLDAP(Listener):
    """Answers LDAP requests as a test has it.

    :param answer: makes the responses to a request; ``None`` is no answer.
    :ivar requests: what was asked.
    """

    def __init__(self, answer: Callable[[Any], Sequence[Any] | None]) -> None:
        super().__init__()
        self._answer = answer
        self.requests: list[Any] = []

    def hears(self, line: Line, data: bytes) -> None:
        rest = data
        while rest:
            message, length = pureber.berDecodeObject(_REQUESTS, rest)
            rest = rest[length:]
            self.requests.append(message.value)
            for response in self._answer(message.value) or ():
                line.transport.write(pureldap.LDAPMessage(response, id=message.id).toWire())


class Proxy(Listener):
    """Passes everything on to a port, until told otherwise.

    :ivar watch: told of what a client says before it is passed on; it is not when this is false.
    :ivar silent: whether nothing is passed on any more, in either direction.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self._target = port
        self._others: dict[Line, _Other] = {}
        self.watch: Callable[[bytes], bool] = lambda _: True
        self.silent = False

    def hears(self, line: Line, data: bytes) -> None:
        if not self.watch(data) or self.silent:
            return
        other = self._others.get(line)
        if other is None:
            other = self._others[line] = _Other(line, self)
            endpoint = HostnameEndpoint(reactor, "127.0.0.1", self._target)
            connecting = connectProtocol(endpoint, other)
            connecting.addErrback(lambda _: line.transport.abortConnection())
        other.send(data)

    def ended(self, line: Line) -> None:
        other = self._others.pop(line, None)
        if other is not None and other.transport is not None:
            other.transport.abortConnection()
        super().ended(line)


class _Other(Protocol):
    """A proxy's connection to its target."""

    transport: Any = None

    def __init__(self, line: Line, proxy: Proxy) -> None:
        self._line = line
        self._proxy = proxy
        self._waiting = b""

    def send(self, data: bytes) -> None:
        if self.transport is None:
            self._waiting += data
        else:
            self.transport.write(data)

    def connectionMade(self) -> None:
        self.transport.write(self._waiting)
        if self._line.lost:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if not self._proxy.silent:
            self._line.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._line.transport.loseConnection()
