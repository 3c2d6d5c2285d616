"""A client of the login service, every answer to which is checked against the description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from tests.conformance import paths
from tests.conformance.description import service_description
from tests.conformance.target import Feature, Target, TestAccount
from tests.support.answer import Answer

_TIMEOUT = 30.0

# Shorter passwords may be in a log by chance.
_TELLING = 8

# Not annotated in Twisted.
_make_pool: Any = HTTPConnectionPool
_make_agent: Any = Agent


class Client:
    """Talks to one target on a pool of connections of its own.

    :param target: whom to talk to.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.secrets: set[str] = set()
        self._pool = _make_pool(reactor)
        self._http = HTTPClient(_make_agent(reactor, pool=self._pool))

    def close(self) -> Deferred[None]:
        """Close the connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request as it stands, and read the answer."""
        response = await self._http.request(
            method,
            self.target.base_url + path,
            params=dict(query or {}),
            headers=Headers({name: [value] for name, value in (headers or {}).items()}),
            data=body,
            allow_redirects=False,
            timeout=_TIMEOUT,
        )
        answer = Answer(method, path, response.code, response.headers, await treq.content(response))
        self.check(answer)
        return answer

    async def post(
        self,
        path: str,
        body: object,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send JSON."""
        return await self.send(
            "POST",
            path,
            json.dumps(body).encode("utf-8"),
            {"Content-Type": "application/json", **_bearer(token), **(headers or {})},
        )

    async def get(self, path: str, token: str | None = None) -> Answer:
        """Ask for something."""
        return await self.send("GET", path, headers=_bearer(token))

    async def login(
        self, account: TestAccount | None = None, prefix: str = "v3", **extra: Any
    ) -> Answer:
        """Log in with a password; the first account unless told otherwise.

        :param extra: further keys of the request, such as ``device_id``.
        """
        account = account or self.target.account
        if len(account.password) >= _TELLING:
            self.secrets.add(account.password)
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": account.user},
            "password": account.password,
            **extra,
        }
        return await self.post(paths.at(paths.LOGIN, prefix), body)

    async def refresh(self, refresh_token: str, prefix: str = "v3") -> Answer:
        """Refresh leniently."""
        return await self.post(paths.at(paths.REFRESH, prefix), {"refresh_token": refresh_token})

    async def tokenrefresh(
        self, refresh_token: str, access_token: str | None, prefix: str = "v3"
    ) -> Answer:
        """Refresh strictly."""
        path = paths.at(paths.TOKENREFRESH, prefix)
        return await self.post(path, {"refresh_token": refresh_token}, access_token)

    async def whoami(self, access_token: str | None, prefix: str = "v3") -> Answer:
        """Ask whose an access token is."""
        return await self.get(paths.at(paths.WHOAMI, prefix), access_token)

    async def logout(self, access_token: str | None, everywhere: bool = False) -> Answer:
        """End a session, or all of the user's."""
        path = paths.LOGOUT_ALL if everywhere else paths.LOGOUT
        return await self.send("POST", paths.at(path), headers=_bearer(access_token))

    def check(self, answer: Answer) -> None:
        """Check an answer against the description, as far as the target promises to follow it."""
        if answer.status < 400 or Feature.STRICT_ERRORS in self.target.features:
            service_description().check(answer)
        if answer.media_type == "application/json" and answer.body and answer.status == 200:
            for key in ("access_token", "refresh_token", "login_token"):
                if key in answer.json:
                    self.secrets.add(answer.json[key])


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}
