"""A Matrix client that takes down everything it asks and is told."""

from __future__ import annotations

import json
from typing import Any, cast

import treq
from treq.client import HTTPClient
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.web._newclient import RequestNotSent
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.http_headers import Headers

from tests.chaos.history import History, Pair, Request, Use
from tests.chaos.server import PASSWORD, USER

reactor = cast(Any, global_reactor)

_CONNECTIONS = 64
_OUTAGE = 503
_BROKEN = (ConnectionClosed, RequestNotSent, RequestTransmissionFailed, ResponseFailed)


class Client:
    """Talks to one server, which may be killed at any moment.

    :param port: where the server listens.
    :param history: where everything is taken down.
    :param outages: whether a 503 is no surprise. What got one, or no answer at all, may be done
        yet, by a database that has it before it.
    :ivar surprises: the answers that were neither a success nor a refusal.
    """

    def __init__(self, port: int, history: History, outages: bool = False) -> None:
        self._base = f"http://127.0.0.1:{port}/_matrix/client/v3"
        self._history = history
        self._outages = outages
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = _CONNECTIONS
        self._http = HTTPClient(Agent(reactor, pool=self._pool))
        self.surprises: list[str] = []

    def close(self) -> Deferred[None]:
        """Close the connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def log_in(self, device_id: str) -> Pair | None:
        """Log in; nothing is taken down of a login whose answer is lost."""
        body = {
            "type": "m.login.password",
            "user": USER,
            "password": PASSWORD,
            "device_id": device_id,
            "refresh_token": True,
        }
        try:
            status, answer = await self._send("POST", "/login", {}, body)
        except (ConnectError, *_BROKEN):
            return None
        if status != 200:
            if not (self._outages and status == _OUTAGE):
                self.surprises.append(f"/login: {status} {answer}")
            return None
        pair = Pair(answer["access_token"], answer["refresh_token"])
        self._history.logged_in(device_id, pair)
        return pair

    async def use(self, session: str, pair: Pair, use: Use) -> Request:
        """Present a pair."""
        method = "GET" if use is Use.LOOK_UP else "POST"
        headers = {} if use is Use.LENIENT else {"Authorization": f"Bearer {pair.access}"}
        body = {"refresh_token": pair.refresh} if use.refreshes else None
        request = self._history.ask(session, pair, use)
        try:
            status, answer = await self._send(method, use.value, headers, body)
        except ConnectError:
            self._history.unsent(request)
        except _BROKEN:
            if not self._outages:
                self._history.lost(request)
        else:
            self._note(request, status, answer)
        return request

    def _note(self, request: Request, status: int, answer: Any) -> None:
        if status == 200:
            refreshed = request.use.refreshes
            self._history.accepted(
                request,
                Pair(answer["access_token"], answer["refresh_token"]) if refreshed else None,
            )
        elif status in (401, 403):
            self._history.refused(request)
        elif not (self._outages and status == _OUTAGE and self._bearable(request, answer)):
            self.surprises.append(f"{request.use.value}: {status} {answer}")

    @staticmethod
    def _bearable(request: Request, answer: Any) -> bool:
        """Whether an outage is told so that clients try again: JSON would end their sessions."""
        media_type, retry_after, _ = answer
        plain = media_type.startswith("text/plain")
        return bool(retry_after) and plain is request.use.refreshes

    async def _send(
        self, method: str, path: str, headers: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        response = await self._http.request(
            method,
            self._base + path,
            headers=Headers({name: [value] for name, value in headers.items()}),
            json=body,
        )
        content = await treq.content(response)
        if response.code == 200:
            return 200, json.loads(content)
        (media_type,) = response.headers.getRawHeaders("Content-Type")
        return response.code, (media_type, response.headers.getRawHeaders("Retry-After"), content)
