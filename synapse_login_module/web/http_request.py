"""One request, from its first header to its response."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

from twisted.web.http import Request

from synapse_login_module.web.requests import MAX_BODY
from synapse_login_module.web.responses import TOO_LARGE, Response

_ORIGIN = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


class HTTPRequest(Request):
    """A request with a body of at most :data:`~.requests.MAX_BODY` bytes, which parses no forms.

    One resource renders it, whatever the path. So it does without the rest of what
    :class:`twisted.web.server.Request` does for each request.

    :ivar channel: the :class:`~.channel.LoginChannel` that it came by.
    :ivar size: bytes of memory that its headers and its body take.
    """

    channel: Any
    size = 0

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory; refuse it at once when its length is too large."""
        self.content = BytesIO()
        if length is not None and length > MAX_BODY:
            # Without this, Twisted invites the client to send the body.
            self.requestHeaders.removeHeader(b"Expect")
            self.channel.refuse(TOO_LARGE)

    def handleContentChunk(self, data: bytes) -> None:
        """Add a piece to the body; refuse the request when the body becomes too large."""
        if self.channel.refused:
            return
        assert self.content is not None
        if self.content.tell() + len(data) > MAX_BODY:
            self.channel.refuse(TOO_LARGE)
        else:
            super().handleContentChunk(data)
            self.size += len(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Have the request rendered in its turn, unless it has been refused."""
        if self.channel.refused:
            return
        assert self.content is not None
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, _origin_form(path), version
        self.path = self.uri.partition(b"?")[0]
        self.channel.site.turns.add(self, self.channel.site.network_of_request)

    def begin(self) -> None:
        """Have the resource render the request."""
        channel = self.channel
        channel.wait_in(None)
        channel.site.resource.render(self)
        if channel.ended and not self.finished and channel.is_responding:
            channel.probe()

    def respond(self, response: Response) -> None:
        """Send a response in one write, which takes half the time of header by header.

        The response says whether the connection is closed after it.
        """
        channel = self.channel
        channel.persistent = channel.persistent and not channel.site.draining
        self.startedWriting = 1
        channel.send(
            response.to_bytes(self.clientproto, not channel.persistent, self.method != b"HEAD")
        )
        self.finish()


def _origin_form(target: bytes) -> bytes:
    """Return the path of a request target of any form (RFC 9112, section 3.2).

    The path of the server as a whole ("OPTIONS *") is ``/*``, so that the tree responds to it, and
    not Twisted. So is that of a target of no form ("x/health").
    """
    absolute = _ORIGIN.match(target)
    if absolute:
        target = target[absolute.end() :]
        return target if target.startswith(b"/") else b"/" + target
    return target if target.startswith(b"/") else b"/*"
