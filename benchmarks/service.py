"""``python -m benchmarks.service PORT``: a service that checks passwords for ``HTTPProvider``.

It takes equal time for known and unknown users, so that any difference in time is the client's.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from benchmarks.servers import USER

reactor: Any = global_reactor


class Checks(Resource):
    """Rejects every password.

    :param unknown: the status for an unknown user.
    """

    isLeaf = True

    def __init__(self, unknown: int) -> None:
        super().__init__()
        self._unknown = unknown

    def render_POST(self, request: Request) -> bytes:
        """Read the name and reject the password."""
        assert request.content is not None
        name = json.load(request.content)["name"]
        known = name.partition("@")[0] == USER
        request.setResponseCode(403 if known else self._unknown)
        return b"{}"


def main() -> None:
    """Serve until killed."""
    root = Resource()
    root.putChild(b"alike", Checks(403))
    root.putChild(b"told", Checks(404))
    reactor.listenTCP(int(sys.argv[1]), Site(root), interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
