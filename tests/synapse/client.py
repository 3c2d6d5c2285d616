"""A Matrix client of the server under test: of Synapse's own listener, and of the module's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from tests.support.answer import Answer
from tests.support.synapse import PASSWORD, SERVER_NAME

_TIMEOUT = 60.0
_CONNECTIONS = 16
_TELLING = 12
"""How long a password must be for its text in a log to mean something."""

# Not annotated in Twisted.
_make_pool: Any = HTTPConnectionPool
_make_agent: Any = Agent


@dataclass(frozen=True)
class Pair:
    """What a login or a refresh gave."""

    user_id: str
    device_id: str
    access: str
    refresh: str

    def then(self, answer: Answer) -> Pair:
        """The pair after this one, from the answer to a refresh."""
        assert answer.status == 200, str(answer)
        content = answer.json
        return Pair(self.user_id, self.device_id, content["access_token"], content["refresh_token"])


class Client:
    """Talks to one Synapse.

    :param own: the URL of a listener with Synapse's own client API.
    :param module: the URL of the module's listener.
    :ivar secrets: every token and password that went over the wire.
    """

    def __init__(self, own: str, module: str) -> None:
        self.own = own
        self.module = module
        self.secrets: set[str] = {PASSWORD}
        self._pool = _make_pool(reactor)
        self._pool.maxPersistentPerHost = _CONNECTIONS
        self._http = HTTPClient(_make_agent(reactor, pool=self._pool))

    def close(self) -> Deferred[None]:
        """Close the connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def send(
        self,
        method: str,
        url: str,
        body: object = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request; bytes are sent as they are, everything else as JSON."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode("utf-8")
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        response = await self._http.request(
            method,
            url,
            headers=Headers({k: [v] for k, v in {**bearer, **(headers or {})}.items()}),
            data=raw,
            allow_redirects=False,
            timeout=_TIMEOUT,
        )
        content = await treq.content(response)
        answer = Answer(method, url, response.code, response.headers, content)
        self._remember(answer)
        return answer

    async def post(
        self, base: str, path: str, body: object, token: str | None = None, prefix: str = "v3"
    ) -> Answer:
        """Send JSON to a path of the client API."""
        return await self.send("POST", f"{base}/_matrix/client/{prefix}{path}", body, token)

    async def login(
        self, base: str, user: str = "alice", password: str = PASSWORD, **more: Any
    ) -> Answer:
        """Log in at one of the listeners.

        :param more: further keys of the request; ``identifier`` replaces the user.
        """
        if len(password) >= _TELLING:
            self.secrets.add(password)
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user},
            "password": password,
            **more,
        }
        return await self.post(base, "/login", body)

    async def pair(self, user: str = "alice", base: str | None = None, **more: Any) -> Pair:
        """Log in as a client that refreshes."""
        return await self.pair_with(user, PASSWORD, base, **more)

    async def pair_with(
        self, user: str, password: str, base: str | None = None, **more: Any
    ) -> Pair:
        """Log in as a client that refreshes, with a password of one's own."""
        answer = await self.login(base or self.module, user, password, refresh_token=True, **more)
        assert answer.status == 200, str(answer)
        given = answer.json
        return Pair(
            given["user_id"], given["device_id"], given["access_token"], given["refresh_token"]
        )

    async def tokenrefresh(self, pair: Pair, access: str | None = None) -> Answer:
        """Refresh strictly, at the module."""
        return await self.post(
            self.module, "/tokenrefresh", {"refresh_token": pair.refresh}, access or pair.access
        )

    async def refresh(self, pair: Pair) -> Answer:
        """Refresh leniently, at the module."""
        return await self.post(self.module, "/refresh", {"refresh_token": pair.refresh})

    async def own_refresh(self, pair: Pair) -> Answer:
        """Refresh at Synapse's own ``/refresh``."""
        return await self.post(self.own, "/refresh", {"refresh_token": pair.refresh})

    async def rotate(self, pair: Pair) -> Pair:
        """Refresh strictly; the next pair."""
        return pair.then(await self.tokenrefresh(pair))

    async def whoami(self, access: str, base: str | None = None) -> Answer:
        """Ask Synapse whose an access token is."""
        url = f"{base or self.own}/_matrix/client/v3/account/whoami"
        return await self.send("GET", url, token=access)

    async def devices(self, access: str) -> set[str]:
        """The devices of a user."""
        url = f"{self.own}/_matrix/client/v3/devices"
        answer = await self.send("GET", url, token=access)
        assert answer.status == 200, str(answer)
        return {device["device_id"] for device in answer.json["devices"]}

    async def delete_device(self, device: str, access: str, user: str, password: str) -> Answer:
        """Delete a device in two steps, the second with a password; the second answer."""
        url = f"{self.own}/_matrix/client/v3/devices/{device}"
        first = await self.send("DELETE", url, {}, access)
        assert first.status == 401, str(first)
        assert {"stages": ["m.login.password"]} in first.json["flows"], str(first)
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user},
            "password": password,
            "session": first.json["session"],
        }
        return await self.send("DELETE", url, {"auth": auth}, access)

    async def admin(self, method: str, path: str, body: object, token: str) -> Answer:
        """Use Synapse's admin API."""
        return await self.send(method, f"{self.own}/_synapse/admin{path}", body, token)

    async def change_user(self, token: str, localpart: str, **changes: Any) -> Answer:
        """Change a user by the admin API."""
        path = f"/v2/users/@{localpart}:{SERVER_NAME}"
        return await self.admin("PUT", path, changes, token)

    def _remember(self, answer: Answer) -> None:
        if answer.status == 200 and answer.media_type == "application/json":
            given = answer.json
            for key in ("access_token", "refresh_token", "login_token"):
                if isinstance(given.get(key), str):
                    self.secrets.add(given[key])
