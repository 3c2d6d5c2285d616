"""A connection: what a client may send on it, and when the server reads, waits and closes."""

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
from synapse_login_module.web.sending import Sending, can_send, send_now
from synapse_login_module.web.timeouts import TimeoutQueue
from synapse_login_module.web.turns import Turns

READ_SIZE = 4096
"""Bytes that are read from a connection at once. While more wait to be written to it, no further
request of it is begun."""

_MAX_DROPPED = 1 << 20
_HEADER_COST = 256
"""Bytes of memory that a header takes beside its name and its value."""

_MAX_TRAILERS = 512
_REFUSED_WITHIN = 1.0
"""Seconds in which the system of a client that is gone refuses what is written to it."""


class ChannelSite(Protocol):
    """What a channel needs of its site.

    :ivar resource: renders every request.
    :ivar draining: whether each response is the last of its connection.
    :ivar idle: the channels without a request.
    :ivar receiving: the channels on which a request has not arrived in whole.
    :ivar unread: the channels whose client has not read its responses.
    :ivar leaving: the channels that are being closed.
    :ivar budget: limits what the channels hold in memory.
    :ivar turns: begins the requests.
    :ivar sending: has the channels send their responses.
    """

    resource: Any
    draining: bool
    idle: TimeoutQueue[LoginChannel]
    receiving: TimeoutQueue[LoginChannel]
    unread: TimeoutQueue[LoginChannel]
    leaving: TimeoutQueue[LoginChannel]
    budget: Budget[LoginChannel]
    turns: Turns[HTTPRequest]
    sending: Sending[LoginChannel]

    def network_of_request(self, request: Request) -> str:
        """Name the network that a request comes from."""

    def channel_made(self, channel: LoginChannel) -> None:
        """Count a connection in."""

    def channel_gone(self, channel: LoginChannel) -> None:
        """Count a connection out."""


@implementer(IHalfCloseableProtocol)
class LoginChannel(HTTPChannel):
    """A connection, which is in a timeout queue of its site while the server waits for the client.

    While the server responds to a request, it reads no more than what came with it. So a client
    that never stops sending fills the network's buffers, and not the server's memory.

    :ivar network: the network that it counts against; ``None`` for none.
    :ivar ended: whether the client has closed its side and sends no more.
    :ivar refused: whether the response went out before the whole request was read. The rest is
        dropped.
    """

    site: ChannelSite
    transport: Any
    network: str | None = None
    refused = False
    ended = False
    _dropped = 0
    _is_counted = False
    _waiting: TimeoutQueue[LoginChannel] | None = None
    _done: Request | None = None
    _probing: IDelayedCall | None = None
    _unsent = b""
    _peer: IAddress | None = None

    def connectionMade(self) -> None:
        """Start to wait for a request, and count in at the site."""
        super().connectionMade()
        self._host: IAddress = self.transport.getHost()
        self._can_send = can_send(self.transport)
        _limit_buffer(self.transport)
        self.wait_in(self.site.idle)
        self.site.channel_made(self)

    def getHost(self) -> IAddress:
        """Return the address here. It is kept, as each request asks, and a transport the kernel."""
        return self._host

    def getPeer(self) -> IAddress:
        """Return the address of the peer. It is kept from the first request on.

        Behind a load balancer that begins with the PROXY protocol, it is not known before that.
        """
        if self._peer is None:
            self._peer = self.transport.getPeer()
        return self._peer

    @property
    def is_responding(self) -> bool:
        """Whether the client waits for the server's response."""
        return self._waiting is None

    @property
    def waiting_since(self) -> float:
        """The time since which the server waits for the client; infinity while it does not."""
        return math.inf if self._waiting is None else self._waiting.since(self)

    def wait_in(self, waiting: TimeoutQueue[LoginChannel] | None) -> None:
        """Move to a timeout queue; to ``None`` while the client waits for the server."""
        if self._waiting is not None:
            self._waiting.remove(self)
        self._waiting = waiting
        if waiting is not None:
            waiting.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Parse bytes. The timeout of a request starts with its first, unless it is whole."""
        if self.refused or self._waiting is self.site.leaving:
            self._dropped += len(data)
            if self._dropped > _MAX_DROPPED:
                self.transport.abortConnection()
            return
        super().dataReceived(data)
        if self._waiting is self.site.idle and (self.requests or self._buffer):
            self.wait_in(self.site.receiving)
        self._pause_reading()

    def _count_memory(self) -> None:
        """Tell the budget what this connection holds: bytes to be parsed, and its requests."""
        held = len(self._buffer)
        for data in self._dataBuffer:
            held += len(data)
        for request in self.requests:
            held += request.size
        if held > FREE or self._is_counted:
            self._is_counted = held > FREE
            self.site.budget.hold(self, held)

    def _pause_reading(self) -> None:
        """Read no more while the server responds to a request and has bytes of the next."""
        if self._handlingRequest and (self._buffer or any(self._dataBuffer)):
            self._networkProducer.pauseProducing()
        self._count_memory()

    def lineLengthExceeded(self, line: bytes) -> None:
        """Reject a request line or a header that is too long."""
        self.refuse(HEADERS_TOO_LARGE if self.requests else TARGET_TOO_LONG)

    def headerReceived(self, line: bytes) -> bool:
        """Add a header; reject one with a NUL in it (RFC 9110, section 5.5)."""
        try:
            if b"\0" not in line:
                self.requests[-1].size += len(line) + _HEADER_COST
                return bool(super().headerReceived(line))
        except ValueError:
            pass  # Python parses no Content-Length of thousands of digits.
        self._respondToBadRequestAndDisconnect()
        return False

    def allHeadersReceived(self) -> None:
        """Go on to the body; reject any coding but chunked alone (RFC 9112, section 6.1)."""
        codings = self.requests[-1].requestHeaders.getRawHeaders(b"Transfer-Encoding", [])
        if [coding.lower() for coding in codings] in ([], [b"chunked"]):
            super().allHeadersReceived()
            if codings and self._transferDecoder is not None:
                # Twisted keeps each trailer as an object of its own.
                self._transferDecoder._maxTrailerHeadersSize = _MAX_TRAILERS
        else:
            self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Reject what is no HTTP, with a body, which Twisted's own response lacks."""
        too_large = (
            self._receivedHeaderSize > self.totalHeadersSize
            or self._receivedHeaderCount > self.maxHeaders
        )
        self.refuse(HEADERS_TOO_LARGE if too_large else BAD_REQUEST)

    def refuse(self, response: Response) -> None:
        """Respond before the whole request is read, and close.

        The rest is read for a short time and dropped: a connection that is closed with unread data
        is reset, and the client would not see the response. Over TLS, Twisted waits for the
        client's close alert.
        """
        if self.refused:
            return
        self.refused = True
        self._discard()
        self.send_held()
        self.transport.write(response.to_bytes(b"HTTP/1.1", is_last=True))
        if self.isSecure():
            self.loseConnection()
        else:
            self.transport.loseWriteConnection()
            self._networkProducer.resumeProducing()
            self.wait_in(self.site.leaving)

    def send(self, response: bytes) -> None:
        """Send a response with those of other connections, in the reactor's next iteration."""
        if not self._can_send:
            self.transport.write(response)
            return
        if not self._unsent:
            self.site.sending.add(self)
        self._unsent += response

    def send_held(self) -> None:
        """Send the responses that are held back. All else that is sent comes after them."""
        held, self._unsent = self._unsent, b""
        if held:
            send_now(self.transport, held)

    def _send100Continue(self) -> None:
        self.send_held()
        super()._send100Continue()

    def shed(self) -> None:
        """Refuse the request of this connection, so that its memory is released."""
        if self._waiting is self.site.unread:
            self.abort()
        else:
            self.refuse(BUSY)

    def _discard(self) -> None:
        """Release everything that was read."""
        self.clearLineBuffer()
        self._dataBuffer.clear()
        for request in self.requests:
            request.content, request.size = BytesIO(), 0
            self.site.turns.remove(request)
        self.site.budget.hold(self, 0)

    def receive_timed_out(self) -> None:
        """Refuse a request that has not arrived in time."""
        if self.requests or self.clearLineBuffer():
            self.refuse(TIMED_OUT)
        else:
            self.loseConnection()

    def requestDone(self, request: Request) -> None:
        """Go on to the next request.

        One that has arrived already waits for the reactor's next iteration, and until the client
        has read its responses. So a client that sends without pause does not take all of the time.
        Its memory is bounded, as no more is read meanwhile.
        """
        self._done = request
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

    def pauseProducing(self) -> None:
        """Wait until the client has read its responses."""
        super().pauseProducing()
        if self._waiting is self.site.idle or self._waiting is self.site.receiving:
            self.wait_in(self.site.unread)

    def resumeProducing(self) -> None:
        """Go on once the client has read its responses."""
        super().resumeProducing()
        if self._waiting is self.site.unread:
            if self._done is None:
                self.wait_in(self.site.receiving if self.requests else self.site.idle)
            self._go_on()

    def _go_on(self) -> None:
        if self._waiting is self.site.unread and self._waitingForTransport:
            return
        request, self._done = self._done, None
        if request is not None:
            self.wait_in(self.site.idle)
            super().requestDone(request)
            if self.persistent:
                self._pause_reading()
            self._close_if_ended()

    def readConnectionLost(self) -> None:
        """Respond to the whole requests of a client that sends no more, then close.

        It may have closed its own side alone (RFC 9112, section 9.6), or the connection. See
        :meth:`probe`. Over TLS, Twisted closes both sides at the client's close alert.
        """
        is_first, self.ended = not self.ended, True
        # Where this side was closed before, closing loses the connection at once.
        if not self._close_if_ended() and is_first and self.is_responding:
            self.probe()

    def probe(self) -> None:
        """Find out whether a client that sends no more is gone, or waits for its response.

        The system of a client that is gone refuses what is written to it, and nothing else shows
        it. So a 100 is written, which is allowed at any time (RFC 9110, section 15.2). Without
        this, the server would hash passwords for clients that have given up.
        """
        is_probing = self._probing is not None and self._probing.active()
        if not is_probing and self.requests[0].clientproto == b"HTTP/1.1":
            self._send100Continue()
            self._probing = self.callLater(_REFUSED_WITHIN, self._abort_if_refused)

    def _abort_if_refused(self) -> None:
        """Close if what was written was refused.

        The error is asked for: Linux reports it to no reader that has read all.
        """
        handle = self.transport.getHandle()
        if handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()

    def writeConnectionLost(self) -> None:
        """Go on reading, as it was this side that closed."""

    def _close_if_ended(self) -> bool:
        """Close when the client sends no more and no whole request is left; return whether so."""
        is_over = self.ended and not (self._handlingRequest and self.requests)
        if is_over:
            self.loseConnection()
        return is_over

    def loseConnection(self) -> None:
        """Close once everything is written, or when the timeout is over."""
        self.wait_in(self.site.leaving)
        self.send_held()
        super().loseConnection()

    def abort(self) -> None:
        """Close at once."""
        self._done = None
        self._can_send, self._unsent = False, b""
        self.wait_in(None)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Release everything, and count out at the site."""
        self._done = None
        self._unsent = b""
        self.wait_in(None)
        self._discard()
        if self._probing is not None and self._probing.active():
            self._probing.cancel()
        super().connectionLost(reason)
        self.site.channel_gone(self)


def _limit_buffer(transport: Any) -> None:
    """Limit the buffer of the connection that is under a transport, as under TLS."""
    while transport is not None:
        if hasattr(transport, "bufferSize"):
            transport.bufferSize = READ_SIZE
        transport = getattr(transport, "transport", None)
