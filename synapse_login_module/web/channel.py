"""A client's connection and its requests: what a client may send, and how it is answered."""

from __future__ import annotations

import math
import socket
from io import BytesIO
from typing import Any, Protocol

from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from zope.interface import implementer

from synapse_login_module.web.budget import FREE, Budget
from synapse_login_module.web.http_request import HTTPRequest
from synapse_login_module.web.responses import (
    BAD_REQUEST,
    BUSY,
    HEADERS_TOO_LARGE,
    TARGET_TOO_LONG,
    TIMED_OUT,
    Response,
)
from synapse_login_module.web.timeouts import TimeoutQueue
from synapse_login_module.web.turns import Turns

READ_SIZE = 4096
"""Bytes that are read from a connection at once, and that may wait to be written to it before no
further request of it is answered."""

_MAX_DROPPED = 1 << 20
_HEADER_COST = 256
"""Bytes of memory that the name and the value of a header take beside their own."""

_MAX_TRAILERS = 512
_REFUSED_WITHIN = 1.0
"""Seconds in which the system of a client that is gone has refused what was written to it."""


class ChannelSite(Protocol):
    """What a channel asks of its site.

    :ivar resource: renders every request.
    :ivar draining: whether each response is to be the last of its connection.
    :ivar idle: the channels whose client has no request under way.
    :ivar receiving: those whose request is not there in whole.
    :ivar unread: those whose client has not read its answers.
    :ivar leaving: those that are being closed.
    :ivar budget: what they may hold in memory together.
    :ivar turns: whose request is begun next.
    """

    resource: Any
    draining: bool
    idle: TimeoutQueue[LoginChannel]
    receiving: TimeoutQueue[LoginChannel]
    unread: TimeoutQueue[LoginChannel]
    leaving: TimeoutQueue[LoginChannel]
    budget: Budget[LoginChannel]
    turns: Turns[HTTPRequest]

    def whose(self, request: Request) -> str:
        """Name the network that a request comes from."""

    def channel_made(self, channel: LoginChannel) -> None:
        """Count a connection in."""

    def channel_gone(self, channel: LoginChannel) -> None:
        """Count a connection out."""


@implementer(IHalfCloseableProtocol)
class LoginChannel(HTTPChannel):
    """A connection that its site knows of, and knows what it waits for.

    :ivar network: the network that it counts against; ``None`` for none.
    :ivar ended: whether the client has said that it sends no more.
    :ivar refused: whether it has been answered before all was read; the rest is dropped.

    While a request is answered, no more is read than what came with it: a client that sends on and
    on fills the network's buffers and not the server's memory.
    """

    site: ChannelSite
    transport: Any
    network: str | None = None
    refused = False
    ended = False
    _dropped = 0
    _weighs = False
    _waiting: TimeoutQueue[LoginChannel] | None = None
    _answered: Request | None = None
    _looking: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Join the site's connections."""
        super().connectionMade()
        self._host: IAddress = self.transport.getHost()
        _read_little(self.transport)
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

    def wait_in(self, waiting: TimeoutQueue[LoginChannel] | None) -> None:
        """Wait for the client among these, and no longer among others."""
        if self._waiting is not None:
            self._waiting.remove(self)
        self._waiting = waiting
        if waiting is not None:
            waiting.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes; the time for a request counts from its first."""
        if self.refused or self._waiting is self.site.leaving:
            self._dropped += len(data)
            if self._dropped > _MAX_DROPPED:
                self.transport.abortConnection()
            return
        if self._waiting is self.site.idle:
            self.wait_in(self.site.receiving)
        super().dataReceived(data)
        self._pause_or_not()

    def _weigh(self) -> None:
        """Say what this connection holds in memory: what is not parsed, and its request."""
        held = len(self._buffer)
        for data in self._dataBuffer:
            held += len(data)
        for request in self.requests:
            held += request.size
        if held > FREE or self._weighs:
            self._weighs = held > FREE
            self.site.budget.hold(self, held)

    def _pause_or_not(self) -> None:
        """Read no more while a request is answered and another waits behind it."""
        if self._handlingRequest and (self._buffer or any(self._dataBuffer)):
            self._networkProducer.pauseProducing()
        self._weigh()

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a request line or a header that is too long."""
        self.refuse(HEADERS_TOO_LARGE if self.requests else TARGET_TOO_LONG)

    def headerReceived(self, line: bytes) -> bool:
        """Take a header, unless there is a NUL in it (RFC 9110, section 5.5)."""
        try:
            if b"\0" not in line:
                self.requests[-1].size += len(line) + _HEADER_COST
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
            if codings and self._transferDecoder is not None:
                # Each would be kept as an object of its own.
                self._transferDecoder._maxTrailerHeadersSize = _MAX_TRAILERS
        else:
            self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Answer what is no HTTP as everything else is answered, rather than without a body."""
        too_large = (
            self._receivedHeaderSize > self.totalHeadersSize
            or self._receivedHeaderCount > self.maxHeaders
        )
        self.refuse(HEADERS_TOO_LARGE if too_large else BAD_REQUEST)

    def refuse(self, response: Response) -> None:
        """Answer what is not to be read to its end, and close.

        The rest is read for a little while and dropped, since a connection that is closed with
        unread data is reset, and the client would not see the response. TLS waits for the client's
        goodbye of itself.
        """
        if self.refused:
            return
        self.refused = True
        self._let_go()
        self.transport.write(response.to_bytes(b"HTTP/1.1", is_last=True))
        if self.isSecure():
            self.loseConnection()
        else:
            self.transport.loseWriteConnection()
            self._networkProducer.resumeProducing()
            self.wait_in(self.site.leaving)

    def shed(self) -> None:
        """Refuse what this connection holds, for want of memory."""
        if self._waiting is self.site.unread:
            self.abort()
        else:
            self.refuse(BUSY)

    def _let_go(self) -> None:
        """Keep nothing that was read."""
        self.clearLineBuffer()
        self._dataBuffer.clear()
        for request in self.requests:
            request.content, request.size = BytesIO(), 0
            self.site.turns.remove(request)
        self.site.budget.hold(self, 0)

    def receive_timed_out(self) -> None:
        """Give up a request that is not there in time."""
        if self.requests or self.clearLineBuffer():
            self.refuse(TIMED_OUT)
        else:
            self.loseConnection()

    def requestDone(self, request: Request) -> None:
        """Go on to the next request.

        One that is there already has to wait for the reactor's next turn, and for the client to
        read its answers, so that a client that sends without pause does not take all of the time.
        What bounds the memory is that no more is read meanwhile.
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
            if self.persistent:
                self._pause_or_not()
            self._close_if_over()

    def readConnectionLost(self) -> None:
        """Answer what is there of a client that sends no more, then close.

        It may have closed its side alone (RFC 9112, section 9.6), or all; see :meth:`probe`. TLS
        has no such half: Twisted closes both at the client's goodbye.
        """
        is_first, self.ended = not self.ended, True
        self._close_if_over()
        if is_first and self.answering:
            self.probe()

    def probe(self) -> None:
        """Find out whether a client that sends no more is gone, while it waits for an response.

        That cannot be seen until something is written, which the system of a client that is gone
        refuses. So what may be written at any time is (RFC 9110, section 15.2). Else passwords
        would be hashed for clients that have given up.
        """
        is_looking = self._looking is not None and self._looking.active()
        if not is_looking and self.requests[0].clientproto == b"HTTP/1.1":
            self._send100Continue()
            self._looking = self.callLater(_REFUSED_WITHIN, self._abort_if_refused)

    def _abort_if_refused(self) -> None:
        """Close if what was written was refused. Linux says so to no reader, once it has read all:
        the error has to be asked for.
        """
        handle = self.transport.getHandle()
        if handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()

    def writeConnectionLost(self) -> None:
        """Go on reading: it was this side that closed."""

    def _close_if_over(self) -> None:
        """Close when no more will come and no request is left; half of one is none."""
        if self.ended and not (self._handlingRequest and self.requests):
            self.loseConnection()

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
        self._let_go()
        if self._looking is not None and self._looking.active():
            self._looking.cancel()
        super().connectionLost(reason)
        self.site.channel_gone(self)


def _read_little(transport: Any) -> None:
    """Have the connection under a transport, which may be TLS, read and keep little at once."""
    while transport is not None:
        if hasattr(transport, "bufferSize"):
            transport.bufferSize = READ_SIZE
        transport = getattr(transport, "transport", None)
