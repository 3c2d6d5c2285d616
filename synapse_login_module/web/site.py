"""The HTTP server around the resource tree: how much a client may send, and how the server ends."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from synapse_login_module.web.answers import BAD_REQUEST, TOO_LARGE, Answer
from synapse_login_module.web.bodies import MAX_BODY

IDLE_TIMEOUT = 60.0
RECEIVE_TIMEOUT = 5.0
DRAIN_TIMEOUT = 30.0
_LINGER_SECONDS = 5.0
_LINGER_BYTES = 1 << 20


class LoginRequest(Request):
    """A request whose body ends at :data:`~.bodies.MAX_BODY`, and that parses no forms."""

    channel: LoginChannel
    _surplus: int | None = None
    _linger: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory; refuse at once one that says that it is too large."""
        self.content = BytesIO()
        if length is not None and length > MAX_BODY:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """Take a piece of the body, as long as it fits."""
        assert self.content is not None
        if self._surplus is None and self.content.tell() + len(data) > MAX_BODY:
            self._refuse()
        if self._surplus is None:
            super().handleContentChunk(data)
            return
        self._surplus += len(data)
        if self._surplus > _LINGER_BYTES:
            self._transport.abortConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Go on to the resource tree, unless the answer is out already."""
        if self._surplus is not None:
            self.channel.loseConnection()
            return
        self.channel.answering = True
        # Any body is JSON here, whatever the client calls it: no form is to be parsed.
        self.requestHeaders.removeHeader(b"Content-Type")
        # The server as a whole ("OPTIONS *") is answered by the tree too, and not by Twisted.
        super().requestReceived(command, b"/*" if path == b"*" else path, version)

    def connectionLost(self, reason: Failure) -> None:
        """Stop waiting for a client that is gone."""
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        super().connectionLost(reason)

    def _refuse(self) -> None:
        """Answer 413 before the body is read, and close.

        The rest of the body is read for a little while and dropped, since a connection that is
        closed with unread data is reset, and the client would not see the answer.
        """
        self._surplus = 0
        # Nobody is to be invited to send the body.
        self.requestHeaders.removeHeader(b"Expect")
        transport = self._transport
        transport.write(_raw(b"413 Content Too Large", TOO_LARGE))
        if hasattr(transport, "loseWriteConnection"):
            transport.loseWriteConnection()
        reactor = self.channel.site.reactor
        self._linger = reactor.callLater(_LINGER_SECONDS, transport.abortConnection)

    @property
    def _transport(self) -> Any:
        return self.channel.transport


class LoginChannel(HTTPChannel):
    """A connection that its site knows of."""

    site: LoginSite
    transport: Any
    answering = False

    def connectionMade(self) -> None:
        """Join the site's connections."""
        super().connectionMade()
        self.site.channels.add(self)

    def headerReceived(self, line: bytes) -> bool:
        """Take a header; a Content-Length of thousands of digits is no number to Python."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            self._respondToBadRequestAndDisconnect()
            return False

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Answer what is no HTTP as everything else is answered, rather than without a body."""
        self.transport.write(_raw(b"400 Bad Request", BAD_REQUEST))
        self.loseConnection()

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
        """Say so, if no further request is taken: the client is not to send one in vain."""
        if self.site.draining:
            self.persistent = False
            headers.setRawHeaders(b"Connection", [b"close"])
        super().writeHeaders(version, code, reason, headers)

    def requestDone(self, request: Request) -> None:
        """Go on to the next request."""
        self.answering = False
        super().requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the site's connections."""
        self.site.channels.discard(self)
        super().connectionLost(reason)
        self.site.channel_gone()


def _raw(status: bytes, answer: Answer) -> bytes:
    """A whole response, for when there is no request yet to answer."""
    lines = [
        b"HTTP/1.1 " + status,
        *(b"%b: %b" % header for header in answer.all_headers().items()),
        b"Connection: close",
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + answer.body


class LoginSite(Site):
    """The site: logs no request line, since there may be a token in it, and can be drained.

    :param root: the resource tree.
    :param reactor: keeps the timeouts.
    """

    protocol: Any = LoginChannel
    displayTracebacks = False

    def __init__(self, root: IResource, reactor: IReactorTime) -> None:
        super().__init__(root, requestFactory=LoginRequest, timeout=IDLE_TIMEOUT, reactor=reactor)
        self.channels: set[LoginChannel] = set()
        self.draining = False
        self._drained: Deferred[None] | None = None

    def log(self, request: Any) -> None:
        """Write nothing: outcomes are in the audit log."""

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
        self.channel_gone()

        def done(_: None) -> None:
            for deadline in deadlines:
                if deadline.active():
                    deadline.cancel()

        return drained.addCallback(done)

    def channel_gone(self) -> None:
        """See whether that was the last one."""
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _close_idle(self) -> None:
        for channel in list(self.channels):
            if not channel.requests:
                channel.loseConnection()

    def _abort(self, answering_too: bool) -> None:
        for channel in list(self.channels):
            if answering_too or not channel.answering:
                channel.transport.abortConnection()
