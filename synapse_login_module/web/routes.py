"""Which path leads to which handler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from urllib.parse import unquote_to_bytes

from twisted.web.http import Request
from twisted.web.resource import Resource

from synapse_login_module.web.account import AccountHandlers
from synapse_login_module.web.handlers import Handlers
from synapse_login_module.web.internal import InternalHandlers
from synapse_login_module.web.metrics import MetricsHandler
from synapse_login_module.web.pages import account_page_paths, login_page_paths
from synapse_login_module.web.resource import Handler, InFlight, JSONResource, Shared
from synapse_login_module.web.responses import FOR_SERVERS, Send

PREFIXES = ("r0", "v3", "v1", "unstable", "api/v1", "v2_alpha")
"""What comes between ``/_matrix/client/`` and the paths of the specification."""

CLIENT = "/_matrix/client"
ANY = "{}"
"""The last segment of a path, in the place of any text."""

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


def delegated_paths(handlers: Handlers, shared: Shared) -> Iterator[tuple[str, JSONResource]]:
    """Build what is served in the place of a homeserver that delegates to this server."""
    resource = partial(JSONResource, shared)
    for prefix in PREFIXES:
        yield f"{CLIENT}/{prefix}/devices/{ANY}", resource({"DELETE": handlers.delete_device})
        yield f"{CLIENT}/{prefix}/delete_devices", resource({"POST": handlers.delete_devices})


def standalone_root(
    handlers: Handlers,
    send: Send,
    in_flight: InFlight,
    account: AccountHandlers | None = None,
) -> Resource:
    """Build the resource tree of the standalone server.

    :param send: sends a response to a request of the site.
    :param in_flight: limits the requests that are handled at once.
    :param account: the handlers of the account page; ``None`` for no such page.
    """
    shared = Shared(send, in_flight)
    paths = [
        *login_paths(handlers, shared),
        *standalone_paths(handlers, shared),
        *login_page_paths(handlers.server_name, shared),
    ]
    if handlers.is_delegated:
        paths += delegated_paths(handlers, shared)
    if account is not None:
        paths += account_page_paths(account, shared)
    return Paths(paths, JSONResource(shared))


def internal_root(
    send: Send,
    health: Handler,
    handlers: InternalHandlers | None = None,
    metrics: MetricsHandler | None = None,
    in_flight: InFlight | None = None,
) -> Resource:
    """Build the resource tree for other servers.

    :param send: sends a response to a request of the site.
    :param handlers: of the homeserver's requests, if there is a homeserver.
    :param metrics: the handler of the page of metrics.
    :param in_flight: counts the requests that are handled; by default without a limit.
    """
    shared = Shared(send, in_flight or InFlight()).with_headers(FOR_SERVERS)
    resource = partial(JSONResource, shared)
    paths = [("/health", resource({"GET": health}))]
    if metrics is not None:
        paths.append(("/metrics", resource({"GET": metrics.get})))
    if handlers is not None:
        paths += [
            ("/.well-known/openid-configuration", resource({"GET": handlers.configuration})),
            ("/oauth2/introspect", resource({"POST": handlers.introspect})),
        ]
    return Paths(paths, JSONResource(shared))


class Paths(Resource):
    """Finds resources by their whole paths: one look-up, and not one for each segment.

    :param paths: each resource with its path, whose last segment may be :data:`ANY`.
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
        resource = self._resources.get(tuple(segments))
        if resource is None:
            any_segment = (*segments[:-1], ANY.encode("ascii")) if segments[-1] else ()
            resource = self._resources.get(any_segment, self._not_found)
        return resource.render(request)
