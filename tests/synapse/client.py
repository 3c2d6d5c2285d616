"""A Matrix client of the server under test: of Synapse's own listener, and of the module's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support import client
from tests.support.client import password_login
from tests.support.response import Response
from tests.support.synapse.profile import PASSWORD, SERVER_NAME

_TELLING = 12
"""How long a password must be for its text in a log to mean something."""


@dataclass(frozen=True)
class Pair:
    """What a login or a refresh gave."""

    user_id: str
    device_id: str
    access: str
    refresh: str

    def then(self, answer: Response) -> Pair:
        """The pair after this one, from the answer to a refresh."""
        assert answer.status == 200, str(answer)
        content = answer.json
        return Pair(self.user_id, self.device_id, content["access_token"], content["refresh_token"])


class SynapseClient(client.Client):
    """Talks to one Synapse.

    :param own: the URL of a listener with Synapse's own client API.
    :param module: the URL of the module's listener.
    :ivar secrets: every token and password that went over the wire.
    """

    def __init__(self, own: str, module: str) -> None:
        super().__init__()
        self.own = own
        self.module = module
        self.secrets.add(PASSWORD)

    async def post(
        self, base: str, path: str, body: object, token: str | None = None, prefix: str = "v3"
    ) -> Response:
        """Send JSON to a path of the client API."""
        return await self.send("POST", f"{base}/_matrix/client/{prefix}{path}", body, token=token)

    async def login(
        self, base: str, user: str = "alice", password: str = PASSWORD, **more: Any
    ) -> Response:
        """Log in at one of the listeners.

        :param more: further keys of the request; ``identifier`` replaces the user.
        """
        if len(password) >= _TELLING:
            self.secrets.add(password)
        return await self.post(base, "/login", password_login(user, password, **more))

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

    async def tokenrefresh(self, pair: Pair, access: str | None = None) -> Response:
        """Refresh strictly, at the module."""
        return await self.post(
            self.module, "/tokenrefresh", {"refresh_token": pair.refresh}, access or pair.access
        )

    async def refresh(self, pair: Pair) -> Response:
        """Refresh leniently, at the module."""
        return await self.post(self.module, "/refresh", {"refresh_token": pair.refresh})

    async def own_refresh(self, pair: Pair) -> Response:
        """Refresh at Synapse's own ``/refresh``."""
        return await self.post(self.own, "/refresh", {"refresh_token": pair.refresh})

    async def rotate(self, pair: Pair) -> Pair:
        """Refresh strictly; the next pair."""
        return pair.then(await self.tokenrefresh(pair))

    async def whoami(self, access: str, base: str | None = None) -> Response:
        """Ask Synapse whose an access token is."""
        url = f"{base or self.own}/_matrix/client/v3/account/whoami"
        return await self.send("GET", url, token=access)

    async def devices(self, access: str) -> set[str]:
        """The devices of a user."""
        url = f"{self.own}/_matrix/client/v3/devices"
        answer = await self.send("GET", url, token=access)
        assert answer.status == 200, str(answer)
        return {device["device_id"] for device in answer.json["devices"]}

    async def delete_device(self, device: str, access: str, user: str, password: str) -> Response:
        """Delete a device in two steps, the second with a password; the second answer."""
        url = f"{self.own}/_matrix/client/v3/devices/{device}"
        first = await self.send("DELETE", url, {}, token=access)
        assert first.status == 401, str(first)
        assert {"stages": ["m.login.password"]} in first.json["flows"], str(first)
        auth = password_login(user, password, session=first.json["session"])
        return await self.send("DELETE", url, {"auth": auth}, token=access)

    async def admin(self, method: str, path: str, body: object, token: str) -> Response:
        """Use Synapse's admin API."""
        return await self.send(method, f"{self.own}/_synapse/admin{path}", body, token=token)

    async def change_user(self, token: str, localpart: str, **changes: Any) -> Response:
        """Change a user by the admin API."""
        path = f"/v2/users/@{localpart}:{SERVER_NAME}"
        return await self.admin("PUT", path, changes, token)
