"""Which path leads to which endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from urllib.parse import unquote_to_bytes

from twisted.web.http import Request
from twisted.web.resource import Resource

from synapse_login_module.web.handlers import Handlers
from synapse_login_module.web.resource import InFlight, JSONResource

PREFIXES = ("r0", "v3", "v1", "unstable", "api/v1", "v2_alpha")
"""What comes between ``/_matrix/client/`` and the paths of the specification."""

CLIENT = "/_matrix/client"
_MSC2918 = "unstable/org.matrix.msc2918"


def login_paths(
    handlers: Handlers, in_flight: InFlight | None = None
) -> Iterator[tuple[str, JSONResource]]:
    """The paths that are served both standalone and inside a homeserver."""
    resource = partial(JSONResource, in_flight=in_flight)
    login = resource({"GET": handlers.get_login, "POST": handlers.post_login})
    tokenrefresh = resource({"POST": handlers.tokenrefresh}, True, finishes=True)
    refresh = resource({"POST": handlers.refresh}, True, finishes=True)
    for prefix in PREFIXES:
        yield f"{CLIENT}/{prefix}/login", login
        yield f"{CLIENT}/{prefix}/tokenrefresh", tokenrefresh
        yield f"{CLIENT}/{prefix}/refresh", refresh
    yield f"{CLIENT}/{_MSC2918}/refresh", refresh


def standalone_paths(
    handlers: Handlers, in_flight: InFlight | None = None
) -> Iterator[tuple[str, JSONResource]]:
    """The paths that a homeserver serves itself, and that only the standalone server needs."""
    resource = partial(JSONResource, in_flight=in_flight)
    for prefix in PREFIXES:
        yield f"{CLIENT}/{prefix}/login/get_token", resource({"POST": handlers.get_token})
        yield f"{CLIENT}/{prefix}/logout", resource({"POST": handlers.logout})
        yield f"{CLIENT}/{prefix}/logout/all", resource({"POST": handlers.logout_all})
        yield f"{CLIENT}/{prefix}/account/whoami", resource({"GET": handlers.whoami})
    yield f"{CLIENT}/versions", resource({"GET": handlers.versions})
    yield "/health", resource({"GET": handlers.health})


def standalone_root(handlers: Handlers, requests: int | None = None) -> Resource:
    """The root of the standalone server.

    :param requests: how many may be in flight.
    """
    in_flight = InFlight(requests, handlers.clients.network)
    return Paths(
        [*login_paths(handlers, in_flight), *standalone_paths(handlers, in_flight)],
    )


class Paths(Resource):
    """Resources by their whole paths: one look-up, and not one a segment."""

    isLeaf = True

    def __init__(self, paths: Iterable[tuple[str, JSONResource]]) -> None:
        super().__init__()
        self._resources = {
            tuple(path.encode("ascii").split(b"/")[1:]): resource for path, resource in paths
        }
        self._nothing = JSONResource()

    def render(self, request: Request) -> int | bytes:
        """Have whatever is at the path render the request."""
        segments = request.path.split(b"/")[1:]
        if b"%" in request.path:
            segments = [unquote_to_bytes(segment) for segment in segments]
        return self._resources.get(tuple(segments), self._nothing).render(request)
