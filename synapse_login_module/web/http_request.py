"""One request of a client, from its first header to its response."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

from twisted.web.http import Request

from synapse_login_module.web.requests import MAX_BODY
from synapse_login_module.web.responses import TOO_LARGE, Response

_ORIGIN = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


class HTTPRequest(Request):
    """A request whose body ends at :data:`~.requests.MAX_BODY`, and that parses no forms.

    The site's one resource renders it, whatever the path: it has no use for what else
    :class:`twisted.web.server.Request` does for each request.

    :ivar channel: the :class:`~.channel.LoginChannel` that it came by.
    :ivar size: bytes of memory that its headers and its body take.
    """

    channel: Any
    size = 0

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory; refuse at once one that says that it is too large."""
        self.content = BytesIO()
        if length is not None and length > MAX_BODY:
            # Nobody is to be invited to send the body.
            self.requestHeaders.removeHeader(b"Expect")
            self.channel.refuse(TOO_LARGE)

    def handleContentChunk(self, data: bytes) -> None:
        """Take a piece of the body, as long as it fits."""
        if self.channel.refused:
            return
        assert self.content is not None
        if self.content.tell() + len(data) > MAX_BODY:
            self.channel.refuse(TOO_LARGE)
        else:
            super().handleContentChunk(data)
            self.size += len(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Go on to the resource in its turn, unless the response is out already."""
        if self.channel.refused:
            return
        assert self.content is not None
        self.content.seek(0)
        self.method, self.uri, self.clientproto = command, _origin_form(path), version
        self.path = self.uri.partition(b"?")[0]
        self.channel.site.turns.add(self, self.channel.site.whose)

    def begin(self) -> None:
        """Have the resource response."""
        channel = self.channel
        channel.wait_in(None)
        channel.site.resource.render(self)
        if channel.ended and not self.finished and channel.answering:
            channel.probe()

    def respond(self, response: Response) -> None:
        """Send a response in one write, which takes half the time of header by header.

        It says so where the connection is closed after it.
        """
        channel = self.channel
        channel.persistent = channel.persistent and not channel.site.draining
        self.startedWriting = 1
        channel.write(
            response.to_bytes(self.clientproto, not channel.persistent, self.method != b"HEAD")
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
