"""Which path leads to which handler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from urllib.parse import unquote_to_bytes

from twisted.web.http import Request
from twisted.web.resource import Resource

from synapse_login_module.web.account import AccountHandlers
from synapse_login_module.web.handlers import Handlers
from synapse_login_module.web.pages import account_page_paths, login_page_paths
from synapse_login_module.web.resource import InFlight, JSONResource, Shared
from synapse_login_module.web.responses import Send

PREFIXES = ("r0", "v3", "v1", "unstable", "api/v1", "v2_alpha")
"""What comes between ``/_matrix/client/`` and the paths of the specification."""

CLIENT = "/_matrix/client"
_MSC2918 = "unstable/org.matrix.msc2918"


def login_paths(handlers: Handlers, shared: Shared) -> Iterator[tuple[str, JSONResource]]:
    """Build what is served both standalone and inside a homeserver, with the path of each."""
    resource = partial(JSONResource, shared)
    login = resource({"GET": handlers.get_login, "POST": handlers.post_login})
    tokenrefresh = resource({"POST": handlers.tokenrefresh}, True, finishes=True)
    refresh = resource({"POST": handlers.refresh}, True, finishes=True)
    for prefix in PREFIXES:
        yield f"{CLIENT}/{prefix}/login", login
        yield f"{CLIENT}/{prefix}/tokenrefresh", tokenrefresh
        yield f"{CLIENT}/{prefix}/refresh", refresh
    yield f"{CLIENT}/{_MSC2918}/refresh", refresh


def standalone_paths(handlers: Handlers, shared: Shared) -> Iterator[tuple[str, JSONResource]]:
    """Build what only the standalone server serves, since a homeserver has these paths itself."""
    resource = partial(JSONResource, shared)
    for prefix in PREFIXES:
        yield f"{CLIENT}/{prefix}/login/get_token", resource({"POST": handlers.get_token})
        yield f"{CLIENT}/{prefix}/logout", resource({"POST": handlers.logout})
        yield f"{CLIENT}/{prefix}/logout/all", resource({"POST": handlers.logout_all})
        yield f"{CLIENT}/{prefix}/account/whoami", resource({"GET": handlers.whoami})
    yield f"{CLIENT}/versions", resource({"GET": handlers.versions})
    yield "/health", resource({"GET": handlers.health})


def standalone_root(
    handlers: Handlers,
    send: Send,
    requests: int | None = None,
    account: AccountHandlers | None = None,
) -> Resource:
    """Build the resource tree of the standalone server.

    :param send: sends a response to a request of the site.
    :param requests: how many may be in flight.
    :param account: the handlers of the account page; ``None`` for no such page.
    """
    shared = Shared(send, InFlight(requests, handlers.clients.network))
    paths = [
        *login_paths(handlers, shared),
        *standalone_paths(handlers, shared),
        *login_page_paths(handlers.server_name, shared),
        *(account_page_paths(account, shared) if account is not None else ()),
    ]
    return Paths(paths, JSONResource(shared))


class Paths(Resource):
    """Finds resources by their whole paths: one look-up, and not one for each segment.

    :param not_found: renders what is at none of the paths.
    """

    isLeaf = True

    def __init__(self, paths: Iterable[tuple[str, JSONResource]], not_found: JSONResource) -> None:
        super().__init__()
        self._resources = {
            tuple(path.encode("ascii").split(b"/")[1:]): resource for path, resource in paths
        }
        self._not_found = not_found

    def render(self, request: Request) -> int | bytes:
        """Have the resource at the path render the request."""
        segments = request.path.split(b"/")[1:]
        if b"%" in request.path:
            segments = [unquote_to_bytes(segment) for segment in segments]
        return self._resources.get(tuple(segments), self._not_found).render(request)
