"""The resource, which runs handlers and responds in JSON, and what resources share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource

from synapse_login_module.errors import ServerBusy
from synapse_login_module.web.outage_log import Outage, OutageLog
from synapse_login_module.web.responses import (
    NO_CONTENT,
    NOT_FOUND,
    CommonHeaders,
    Response,
    Send,
    internal_error,
    method_not_allowed,
    response_to,
)

Handler = Callable[[Request], Coroutine["Deferred[Any]", Any, Response]]

_NOT_DONE_YET = 1
"""What :data:`twisted.web.server.NOT_DONE_YET` is; that module imports its templates too."""


class InFlight:
    """Limits the requests that are being handled, those whose client is gone included.

    Beyond the limit a request is accepted from a network that has less than its share of them. So
    one network's flood does not lock out another. There are never more than twice the limit.

    :param limit: how many; ``None`` is no limit.
    :param network_of: names the network that a request comes from.
    :param refused: called for each request that is not accepted.
    """

    log = Logger()

    def __init__(
        self,
        limit: int | None = None,
        network_of: Callable[[Request], str] = lambda request: "",
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._limit = math.inf if limit is None else limit
        self._network_of = network_of
        self._refused = refused
        self._count = 0
        self._networks: Counter[str] = Counter()
        self._is_logged = False

    @property
    def count(self) -> int:
        """How many requests are being handled."""
        return self._count

    async def handle(self, handler: Handler, request: Request) -> Response:
        """Run the handler of a request.

        :raise synapse_login_module.errors.ServerBusy: when there are too many. An overload is
            logged once.
        """
        network = self._network_of(request)
        if self._count >= self._limit and self._has_its_share(network):
            if not self._is_logged:
                self._is_logged = True
                self.log.warn(
                    "{limit} requests are being answered: more get 503", limit=self._limit
                )
            self._refused()
            raise ServerBusy
        self._count += 1
        self._networks[network] += 1
        try:
            return await handler(request)
        finally:
            self._count -= 1
            self._is_logged = self._is_logged and self._count > 0
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]

    def _has_its_share(self, network: str) -> bool:
        return self._networks[network] + 1 > self._limit / (len(self._networks) + 1)


@dataclass(frozen=True)
class Shared:
    """What all resources of one tree share.

    :param send: sends a response to a request of the site that serves the tree.
    :param in_flight: counts the requests of all resources.
    :param outage_log: bounds the log lines of all resources.
    """

    send: Send
    in_flight: InFlight = field(default_factory=InFlight)
    outage_log: OutageLog = field(default_factory=OutageLog)

    def with_headers(self, common: CommonHeaders) -> Shared:
        """Return the same for a part of the tree whose responses have other common headers."""
        send = self.send

        def send_with(request: Any, response: Response) -> object:
            return send(request, response._replace(common=common))

        return replace(self, send=send_with)


class JSONResource(Resource):
    """A resource with a handler for each method.

    A handler is a coroutine function that returns a :class:`~.responses.Response` or raises. When
    the client goes away, the handler is cancelled, or else it finishes and its response is dropped.

    :param shared: what it shares with the other resources of its tree.
    :param handlers: by method; without any, the response is 404.
    :param outages_as_text: see :func:`~.responses.response_to`.
    :param finishes: whether handlers finish when the client is gone, as what they find has to be
        logged.
    """

    log = Logger()

    def __init__(
        self,
        shared: Shared,
        handlers: dict[str, Handler] | None = None,
        outages_as_text: bool = False,
        finishes: bool = False,
    ) -> None:
        super().__init__()
        self._send = shared.send
        self._in_flight = shared.in_flight
        self._outage_log = shared.outage_log
        self._handlers = handlers or {}
        self._outages_as_text = outages_as_text
        self._finishes = finishes
        if "GET" in self._handlers:
            self._handlers = {"HEAD": self._handlers["GET"], **self._handlers}

    def render(self, request: Request) -> int | bytes:
        """Start the handler of the request's method."""
        method = request.method.decode("ascii", "replace")
        handler = self._handlers.get(method)
        if handler is not None:
            self._start(handler, request)
        elif method == "OPTIONS":
            self._send(request, NO_CONTENT)
        elif self._handlers:
            self._send(request, method_not_allowed(sorted(self._handlers)))
        else:
            self._send(request, NOT_FOUND)
        return _NOT_DONE_YET

    def _start(self, handler: Handler, request: Request) -> None:
        gone: list[Failure] = []

        async def handle() -> None:
            try:
                response = await self._in_flight.handle(handler, request)
            except Exception as problem:
                response = self._response_to(problem, request, bool(gone))
            if not gone:
                self._send(request, response)

        def client_gone(reason: Failure) -> None:
            gone.append(reason)
            if not self._finishes:
                handling.cancel()

        handling = Deferred.fromCoroutine(handle())
        request.notifyFinish().addErrback(client_gone)
        handling.addErrback(lambda failure: self.log.failure("cannot send an answer", failure))

    def _response_to(self, problem: Exception, request: Request, gone: bool) -> Response:
        """Return the response to an error, and log what the response leaves out.

        That is what the store or the homeserver said, and an unexpected error. An error that comes
        of cancelling a handler is not logged.

        :param gone: whether the client is.
        """
        if isinstance(problem, Outage):
            self._outage_log.write(request.path, problem)
        response = response_to(problem, self._outages_as_text)
        if response is not None:
            return response
        if not (gone and isinstance(problem, CancelledError)):
            self.log.failure("cannot answer {path}", path=request.path)
        return internal_error()
