"""The pages for people: the login fallback page and the account page, with script and style.

The files are in ``static/``. Everything that a page loads is below the page's own path, so a
reverse proxy has one prefix to send here for each page, and the pages work under any base URL.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.resources import files
from string import Template

from twisted.web.http import Request

from synapse_login_module.web.account import AccountHandlers
from synapse_login_module.web.resource import Handler, JSONResource, Shared
from synapse_login_module.web.responses import CommonHeaders, Response

LOGIN_PAGE = "/_matrix/static/client/login/"
"""The path of the login fallback page (client-server specification, "Login Fallback")."""

ACCOUNT_PAGE = "/_matrix/login/account"
"""The path of the account page, whose URL is ``account_management_uri`` (same, v1.18)."""

_SAME_ORIGIN: Mapping[bytes, bytes] = {
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Resource-Policy": b"same-origin",
}
FOR_FILES = CommonHeaders.of({**_SAME_ORIGIN, b"Cache-Control": b"no-cache"})
"""Of pages, scripts and styles: no other site reads them, and a cache asks before it uses them."""

FOR_ACCOUNT = CommonHeaders.of({**_SAME_ORIGIN, b"Cache-Control": b"no-store"})
"""Of the account page's own requests: no other site reads them, and no cache stores them."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
    " form-action 'none'; base-uri 'none'"
)
_ACCOUNT_POLICY = f"{_POLICY}; frame-ancestors 'none'"
_LOGIN_POLICY = f"{_POLICY}; frame-src js:; frame-ancestors 'self'"
"""Of the login fallback page.

Older clients hand the result from the web view to the app by a frame of a ``js:`` URL, which the
web view intercepts. A page of another origin cannot set ``window.onLogin`` in a frame, so only
pages of the same origin have a use for the page in a frame.
"""

_TYPES = {
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "svg": b"image/svg+xml",
}


def login_page_paths(server_name: str, shared: Shared) -> Iterator[tuple[str, JSONResource]]:
    """Build the login fallback page, with the path of each of its files."""
    page = _page("login.html", server_name, _LOGIN_POLICY)
    assets = ("login.js", "sign_in.js", "http.js", "style.css", "icon.svg")
    return _paths(LOGIN_PAGE, LOGIN_PAGE, "login/", page, assets, shared)


def account_page_paths(
    handlers: AccountHandlers, shared: Shared
) -> Iterator[tuple[str, JSONResource]]:
    """Build the account page, with the path of each of its files and of its requests."""
    page = _page("account.html", handlers.server_name, _ACCOUNT_POLICY)
    assets = (
        "account.js",
        "confirm.js",
        "sessions.js",
        "sign_in.js",
        "http.js",
        "style.css",
        "icon.svg",
    )
    below = f"{ACCOUNT_PAGE}/"
    yield from _paths(ACCOUNT_PAGE, below, "../account", page, assets, shared)
    resource = partial(JSONResource, shared.with_headers(FOR_ACCOUNT))
    yield f"{below}sign_in", resource({"POST": handlers.sign_in})
    yield f"{below}sessions", resource({"GET": handlers.sessions})
    yield f"{below}sign_out", resource({"POST": handlers.sign_out}, finishes=True)
    yield f"{below}sign_out_all", resource({"POST": handlers.sign_out_all}, finishes=True)
    yield (
        f"{below}reset_cross_signing",
        resource({"POST": handlers.reset_cross_signing}, finishes=True),
    )


def _paths(
    page_path: str,
    below: str,
    redirect_to: str,
    page: Handler,
    assets: tuple[str, ...],
    shared: Shared,
) -> Iterator[tuple[str, JSONResource]]:
    """Build a page, its files, and the redirect from its path with or without the last slash.

    :param below: the path that its files are below.
    :param redirect_to: the page, relative to that other path.
    """
    resource = partial(JSONResource, shared.with_headers(FOR_FILES))
    other_path = below if page_path != below else below.rstrip("/")
    yield page_path, resource({"GET": page})
    yield other_path, resource({"GET": _redirect(redirect_to.encode("ascii"))})
    for name in assets:
        served = _file(_read(name), _TYPES[name.rpartition(".")[2]])
        yield f"{below}{name}", resource({"GET": served})


def _page(name: str, server_name: str, policy: str) -> Handler:
    text = Template(_read(name).decode("utf-8")).substitute(
        server_name=html.escape(server_name), sign_in=_read("sign_in.html").decode("utf-8")
    )
    headers = {b"Content-Security-Policy": policy.encode("ascii")}
    return _file(text.encode("utf-8"), b"text/html; charset=utf-8", headers)


def _file(
    body: bytes, content_type: bytes, headers: Mapping[bytes, bytes] | None = None
) -> Handler:
    """Make the handler that responds with a file, or with 304 to a cache that has it."""
    etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode("ascii")
    headers = {**(headers or {}), b"ETag": etag}
    whole = Response(200, body, content_type, headers)
    not_modified = Response(304, b"", headers=headers)

    async def serve(request: Request) -> Response:
        known = request.requestHeaders.getRawHeaders(b"If-None-Match", [])
        return not_modified if any(etag in each or each == b"*" for each in known) else whole

    return serve


def _redirect(target: bytes) -> Handler:
    async def redirect(request: Request) -> Response:
        _, mark, query = request.uri.partition(b"?")
        return Response(308, b"", b"text/plain", {b"Location": target + mark + query})

    return redirect


def _read(name: str) -> bytes:
    return (files("synapse_login_module.web") / "static" / name).read_bytes()
