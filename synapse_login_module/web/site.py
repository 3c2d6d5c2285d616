"""The HTTP server around the resource tree: what a client may send, how long it is waited for, and
how the server ends.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.resource import IResource
from twisted.web.server import Site

from synapse_login_module.web.answers import (
    BAD_REQUEST,
    HEADERS_TOO_LARGE,
    TARGET_TOO_LONG,
    TIMED_OUT,
    TOO_LARGE,
    Answer,
    WholeRequest,
)
from synapse_login_module.web.bodies import MAX_BODY
from synapse_login_module.web.waiting import Waiting

REQUEST_TIMEOUT = 30.0
IDLE_TIMEOUT = 60.0
RECEIVE_TIMEOUT = 5.0
DRAIN_TIMEOUT = 30.0
LEAVE_TIMEOUT = 10.0
_MAX_DROPPED = 1 << 20
_TELL_EVERY = 60.0

_log = Logger()

_ORIGIN = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """What the clients of a site may take of it.

    :param connections: how many may be open at once.
    :param connections_per_address: how many of one network; ``None`` is no limit.
    :param request_timeout: seconds for a whole request to arrive, and for answers to be read.
    :param idle_timeout: seconds that a connection may go without a request.
    """

    connections: int = 2000
    connections_per_address: int | None = 200
    request_timeout: float = REQUEST_TIMEOUT
    idle_timeout: float = IDLE_TIMEOUT


class LoginRequest(WholeRequest):
    """A request whose body ends at :data:`~.bodies.MAX_BODY`, and that parses no forms.

    The site's one resource renders it, whatever the path: it has no use for what else
    :class:`twisted.web.server.Request` does for each request.
    """

    channel: LoginChannel

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory; refuse at once one that says that it is too large."""
        self.content = BytesIO()
        if length is not None and length > MAX_BODY:
            # Nobody is to be invited to send the body.
            self.requestHeaders.removeHeader(b"Expect")
            self.channel.refuse(TOO_LARGE)

    def handleContentChunk(self, data: bytes) -> None:
        """Take a piece of the body, as long as it fits."""
        assert self.content is not None
        if self.channel.refused:
            return
        if self.content.tell() + len(data) > MAX_BODY:
            self.channel.refuse(TOO_LARGE)
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Go on to the resource, unless the answer is out already."""
        if self.channel.refused:
            return
        self.channel.wait_in(None)
        assert self.content is not None
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, _origin_form(path), version
        self.path = self.uri.partition(b"?")[0]
        self.channel.site.resource.render(self)

    def answer(self, answer: Answer) -> None:
        """Write an answer; whether it is the last, the client is told."""
        channel = self.channel
        channel.persistent = channel.persistent and not channel.site.draining
        self.startedWriting = 1
        channel.write(
            answer.to_bytes(self.clientproto, not channel.persistent, self.method != b"HEAD")
        )
        self.finish()


def _origin_form(target: bytes) -> bytes:
    """The path of a request target of any form (RFC 9112, section 3.2).

    The server as a whole ("OPTIONS *") is answered by the tree too, and not by Twisted; and so is
    what has no form at all ("x/health"), which is no path.
    """
    absolute = _ORIGIN.match(target)
    if absolute:
        target = target[absolute.end() :]
        return target if target.startswith(b"/") else b"/" + target
    return target if target.startswith(b"/") else b"/*"


class LoginChannel(HTTPChannel):
    """A connection that its site knows of, and knows what it waits for.

    :ivar network: the network that it counts against; ``None`` for none.
    :ivar refused: whether it has been answered before all was read; the rest is dropped.
    """

    site: LoginSite
    transport: Any
    network: str | None = None
    refused = False
    _dropped = 0
    _waiting: Waiting[LoginChannel] | None = None
    _answered: Request | None = None

    def connectionMade(self) -> None:
        """Join the site's connections."""
        super().connectionMade()
        self._host: IAddress = self.transport.getHost()
        self.wait_in(self.site.idle)
        self.site.channel_made(self)

    def getHost(self) -> IAddress:
        """The address here. Each request wants to know, and the transport asks the kernel."""
        return self._host

    @property
    def answering(self) -> bool:
        """Whether a request is being answered: the client waits for the server."""
        return self._waiting is None

    @property
    def waiting_since(self) -> float:
        """Since when the server waits for the client; for ever from now while it does not."""
        return math.inf if self._waiting is None else self._waiting.since(self)

    def wait_in(self, waiting: Waiting[LoginChannel] | None) -> None:
        """Wait for the client among these, and no longer among others."""
        if self._waiting is not None:
            self._waiting.remove(self)
        self._waiting = waiting
        if waiting is not None:
            waiting.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes; the time for a request counts from its first."""
        if self.refused:
            self._dropped += len(data)
            if self._dropped > _MAX_DROPPED:
                self.transport.abortConnection()
            return
        if self._waiting is self.site.idle:
            self.wait_in(self.site.receiving)
        super().dataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a request line or a header that is too long."""
        self.refuse(HEADERS_TOO_LARGE if self.requests else TARGET_TOO_LONG)

    def headerReceived(self, line: bytes) -> bool:
        """Take a header, unless there is a NUL in it (RFC 9110, section 5.5)."""
        try:
            if b"\0" not in line:
                return bool(super().headerReceived(line))
        except ValueError:
            pass  # a Content-Length of thousands of digits is no number to Python
        self._respondToBadRequestAndDisconnect()
        return False

    def allHeadersReceived(self) -> None:
        """Go on to the body, unless it is coded in more ways than one (RFC 9112, section 6.1)."""
        codings = self.requests[-1].requestHeaders.getRawHeaders(b"Transfer-Encoding", [])
        if [coding.lower() for coding in codings] in ([], [b"chunked"]):
            super().allHeadersReceived()
        else:
            self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Answer what is no HTTP as everything else is answered, rather than without a body."""
        too_large = (
            self._receivedHeaderSize > self.totalHeadersSize
            or self._receivedHeaderCount > self.maxHeaders
        )
        self.refuse(HEADERS_TOO_LARGE if too_large else BAD_REQUEST)

    def refuse(self, answer: Answer) -> None:
        """Answer what is not to be read to its end, and close.

        The rest is read for a little while and dropped, since a connection that is closed with
        unread data is reset, and the client would not see the answer. TLS waits for the client's
        goodbye of itself.
        """
        if self.refused:
            return
        self.refused = True
        self.clearLineBuffer()
        self.transport.write(answer.to_bytes(b"HTTP/1.1", is_last=True))
        if self.isSecure():
            self.loseConnection()
        else:
            self.transport.loseWriteConnection()
            self.wait_in(self.site.leaving)

    def receive_timed_out(self) -> None:
        """Give up a request that is not there in time."""
        if self.requests or self.clearLineBuffer():
            self.refuse(TIMED_OUT)
        else:
            self.loseConnection()

    def requestDone(self, request: Request) -> None:
        """Go on to the next request.

        One that is there already has to wait for the reactor's next turn, and for the client to
        read its answers: nobody who sends without pause takes all of the time or the memory.
        """
        self._answered = request
        self._dataBuffer.append(self.clearLineBuffer())
        if not (self.persistent and (self._waitingForTransport or any(self._dataBuffer))):
            self._go_on()
            return
        self._networkProducer.pauseProducing()
        if self._waitingForTransport:
            self.wait_in(self.site.unread)
        else:
            self.wait_in(self.site.receiving)
            self.callLater(0, self._go_on)

    def resumeProducing(self) -> None:
        """Go on once the client has read its answers."""
        super().resumeProducing()
        if self._waiting is self.site.unread:
            self._go_on()

    def _go_on(self) -> None:
        request, self._answered = self._answered, None
        if request is not None:
            self.wait_in(self.site.idle)
            super().requestDone(request)

    def loseConnection(self) -> None:
        """Close once everything is written, or at the latest in a while."""
        self.wait_in(self.site.leaving)
        super().loseConnection()

    def abort(self) -> None:
        """Close at once."""
        self._answered = None
        self.wait_in(None)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the site's connections."""
        self._answered = None
        self.wait_in(None)
        super().connectionLost(reason)
        self.site.channel_gone(self)


class LoginSite(Site):
    """The site: logs no request line, since there may be a token in it, keeps its clients within
    limits, and can be drained.

    :param root: the resource tree.
    :param reactor: keeps the timeouts.
    :param limits: what the clients may take.
    :param network_of: the network that a peer's connections count against; ``None`` for a peer
        that stands for many.
    """

    protocol: Any = LoginChannel
    displayTracebacks = False

    def __init__(
        self,
        root: IResource,
        reactor: IReactorTime,
        limits: SiteLimits | None = None,
        network_of: Callable[[IAddress], str | None] = lambda peer: None,
    ) -> None:
        super().__init__(root, requestFactory=LoginRequest, timeout=None, reactor=reactor)
        self._limits = limits = limits or SiteLimits()
        self._network_of = network_of
        self.channels: set[LoginChannel] = set()
        self._networks: defaultdict[str, set[LoginChannel]] = defaultdict(set)
        self.idle = Waiting(limits.idle_timeout, LoginChannel.loseConnection, reactor)
        self.receiving = Waiting(limits.request_timeout, LoginChannel.receive_timed_out, reactor)
        self.unread = Waiting(limits.request_timeout, LoginChannel.abort, reactor)
        self.leaving = Waiting(LEAVE_TIMEOUT, LoginChannel.abort, reactor)
        self._waitings = (self.leaving, self.unread, self.receiving, self.idle)
        self._told_at = -math.inf
        self.draining = False
        self._drained: Deferred[None] | None = None

    def acceptableProtocols(self) -> list[bytes]:
        """What is spoken over TLS: not HTTP/2, whether Twisted could or not."""
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """Write nothing: outcomes are in the audit log."""

    def channel_made(self, channel: LoginChannel) -> None:
        """Count a connection in. One too many costs the one that is waited for the longest, which
        is the new one itself when all others are being answered.
        """
        limits = self._limits
        self.channels.add(channel)
        channel.network = self._network_of(channel.transport.getPeer())
        if channel.network is not None and limits.connections_per_address is not None:
            peers = self._networks[channel.network]
            peers.add(channel)
            if len(peers) > limits.connections_per_address:
                self._evict(peers)
        if len(self.channels) > limits.connections:
            self._tell(limits.connections)
            longest = (waiting.longest() for waiting in self._waitings)
            self._evict(each for each in longest if each is not None)

    def channel_gone(self, channel: LoginChannel) -> None:
        """Count a connection out, and see whether it was the last one."""
        self._forget(channel)
        self._see_whether_empty()

    def drain(self, patience: float = 0.0) -> Deferred[None]:
        """Let requests in flight be answered, and close every connection.

        :param patience: how many seconds an idle connection is left open, for one last request that
            may be on its way.
        :return: fires when none is left: a request that is still being sent is then given
            :data:`RECEIVE_TIMEOUT` seconds, one that is being answered :data:`DRAIN_TIMEOUT`.
        """
        self.draining = True
        self._drained = drained = Deferred[None]()
        deadlines = [
            self.reactor.callLater(patience + RECEIVE_TIMEOUT, self._abort, False),
            self.reactor.callLater(DRAIN_TIMEOUT, self._abort, True),
        ]
        if patience:
            deadlines.append(self.reactor.callLater(patience, self._close_idle))
        else:
            self._close_idle()
        self._see_whether_empty()

        def done(_: None) -> None:
            for deadline in deadlines:
                if deadline.active():
                    deadline.cancel()

        return drained.addCallback(done)

    def _tell(self, connections: int) -> None:
        now = self.reactor.seconds()
        if now >= self._told_at + _TELL_EVERY:
            self._told_at = now
            _log.warn("{limit} connections are open: the longest idle are cut", limit=connections)

    def _evict(self, among: Iterable[LoginChannel]) -> None:
        """Close the one that is waited for the longest, and count it out at once."""
        longest = min(among, key=lambda channel: channel.waiting_since)
        self._forget(longest)
        longest.abort()

    def _forget(self, channel: LoginChannel) -> None:
        self.channels.discard(channel)
        if channel.network is not None and (peers := self._networks.get(channel.network)):
            peers.discard(channel)
            if not peers:
                del self._networks[channel.network]

    def _see_whether_empty(self) -> None:
        if self.channels:
            return
        for waiting in self._waitings:
            waiting.stop()
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _close_idle(self) -> None:
        for channel in list(self.channels):
            if channel.requests:
                channel.persistent = False
            else:
                channel.loseConnection()

    def _abort(self, answering_too: bool) -> None:
        for channel in list(self.channels):
            if answering_too or not channel.answering:
                channel.abort()
