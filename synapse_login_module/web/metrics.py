"""The handler of the page that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.web.http import Request

from synapse_login_module.web.responses import ErrorResponse, Response, error

_NOT_INSTALLED = error(
    404,
    "M_UNRECOGNIZED",
    "There are no metrics, because prometheus_client is not installed: install"
    " synapse-login-module[metrics] and restart the server",
)


class MetricsHandler:
    """Handles ``GET /metrics``.

    It asks for no secret: the page names no user and no address, and only other servers reach the
    listener that it is on.

    :param page: fires with the page; ``None`` when ``prometheus_client`` is not installed.
    :param content_type: that of the page.
    """

    def __init__(self, page: Callable[[], Deferred[bytes]] | None, content_type: bytes) -> None:
        self._page = page
        self._content_type = content_type

    async def get(self, request: Request) -> Response:
        """Return the page."""
        if self._page is None:
            raise ErrorResponse(_NOT_INSTALLED)
        return Response(200, await self._page(), self._content_type)
