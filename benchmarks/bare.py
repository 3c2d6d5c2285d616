"""The yardstick: a minimal twisted.web server that reads JSON or a form and responds with JSON.

``python -m benchmarks.bare PORT``
"""

from __future__ import annotations

import json
import sys
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

reactor = cast(Any, global_reactor)

ACCESS_TOKEN = "slmat_" + "A" * 64


class RefreshResource(Resource):
    """Answers a POST with its refresh token, in the shape of a refresh response.

    A form is answered in the shape of an introspection response.
    """

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        """Parse the request and return the response."""
        if request.args:
            return self._introspection(request)
        assert request.content is not None
        body = json.loads(request.content.read())
        request.setHeader(b"Content-Type", b"application/json")
        answer = {
            "access_token": ACCESS_TOKEN,
            "refresh_token": body["refresh_token"],
            "expires_in_ms": 300_000,
        }
        return json.dumps(answer).encode("ascii")

    def _introspection(self, request: Request) -> bytes:
        """Return an active token's description. Twisted has parsed the form."""
        [token] = request.args[b"token"]
        request.setHeader(b"Content-Type", b"application/json")
        answer = {
            "active": bool(token),
            "scope": "urn:matrix:client:api:*",
            "username": "alice",
            "device_id": "ABCDEFGHIJ",
        }
        return json.dumps(answer).encode("ascii")

    def render_GET(self, request: Request) -> bytes:
        """Return ``OK``: the server is up."""
        return b"OK"


class QuietSite(Site):
    """A site without an access log, which would not be minimal."""

    def log(self, request: Any) -> None:
        """Write nothing."""


def main() -> None:
    """Serve until killed."""
    reactor.listenTCP(int(sys.argv[1]), QuietSite(RefreshResource()), interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
