"""The handler of the page that Prometheus reads."""

from __future__ import annotations

import enum
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.web.http import Request

from synapse_login_module.web.responses import ErrorResponse, Response, error


class NoPage(enum.Enum):
    """Why there is no page, as a client is told."""

    NOT_INSTALLED = (
        "prometheus_client is not installed: install synapse-login-module[metrics] and restart the"
        " server"
    )
    NO_ROOM = (
        "this worker has no folder to keep them in, or there is no room in it. The log says more;"
        " reload the server afterwards"
    )
    NO_LISTENER = "the server has no internal_listen"


class MetricsHandler:
    """Handles ``GET /metrics``.

    It asks for no secret: the page names no user and no address, and only other servers reach the
    listener that it is on.

    :param page: fires with the page; if there is none, the reason.
    :param content_type: that of the page.
    """

    def __init__(self, page: Callable[[], Deferred[bytes]] | NoPage, content_type: bytes) -> None:
        self._page = page
        self._content_type = content_type

    async def get(self, request: Request) -> Response:
        """Return the page."""
        if isinstance(self._page, NoPage):
            problem = f"There are no metrics: {self._page.value}"
            raise ErrorResponse(error(404, "M_UNRECOGNIZED", problem))
        return Response(200, await self._page(), self._content_type)
