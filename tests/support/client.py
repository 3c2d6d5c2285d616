"""An HTTP client on the reactor, which reads each response whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import treq
from treq.client import HTTPClient
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from tests.support.response import Response

reactor = cast(Any, global_reactor)

# Not annotated in Twisted.
_make_pool: Any = HTTPConnectionPool
_make_agent: Any = Agent


class Client:
    """A client with its own connections to a server.

    :param base_url: the URL that paths are appended to.
    :param connections: how many connections to keep open; with 0 each request opens a new one.
    :param timeout: the seconds to wait for a response; ``None`` for no timeout.
    :param address: the client's own IP address.
    :param retry: whether a request without a body, sent on a connection that then breaks, is sent
        once more. The server may have carried it out the first time.
    :ivar secrets: all tokens in responses so far.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        connections: int = 16,
        timeout: float | None = 60.0,
        address: str | None = None,
        retry: bool = True,
    ) -> None:
        self.base_url = base_url
        self.secrets: set[str] = set()
        self._timeout = timeout
        self._pool = _make_pool(reactor, persistent=connections > 0)
        self._pool.maxPersistentPerHost = connections
        self._pool.retryAutomatically = retry
        here = None if address is None else (address, 0)
        self._http = HTTPClient(_make_agent(reactor, bindAddress=here, pool=self._pool))

    def close(self) -> Deferred[None]:
        """Close the connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> Response:
        """Send a request and read the response.

        :param body: bytes, sent as they are, or an object to send as JSON.
        :param token: an access token.
        """
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode("utf-8")
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        response = await self._http.request(
            method,
            self.base_url + path,
            params=dict(query or {}),
            headers=Headers({k: [v] for k, v in {**bearer, **(headers or {})}.items()}),
            data=raw,
            allow_redirects=False,
            timeout=self._timeout,
        )
        content = await treq.content(response)
        answer = Response(response.code, response.headers, content, method, path)
        self.note(answer)
        return answer

    def note(self, answer: Response) -> None:
        """Remember the tokens of a response."""
        if answer.status == 200 and answer.media_type == "application/json" and answer.body:
            given = answer.json
            for key in ("access_token", "refresh_token", "login_token"):
                if isinstance(given.get(key), str):
                    self.secrets.add(given[key])


def password_login(user: str, password: str, **more: Any) -> dict[str, Any]:
    """Return the body of a login request.

    :param more: further keys, such as ``device_id``; ``identifier`` replaces the user.
    """
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
        **more,
    }
