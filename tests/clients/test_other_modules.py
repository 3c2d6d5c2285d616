"""Users of other modules and bridges, through nginx with ``contrib/nginx``."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from tests.clients.case import ClientCase
from tests.clients.proxying import CLIENT_ADDRESS, send
from tests.conformance import paths
from tests.support.response import Response
from tests.support.synapse.profile import PASSWORD, Profile
from tests.synapse.case import fresh, user_id
from tests.synapse.handover import (
    AS_TOKEN,
    BRIDGE,
    OTHER,
    OTHER_PASSWORD,
    OTHER_USER,
    SHARED_SECRET,
    named,
)

PROFILE = Profile(
    "other-modules",
    more_modules=[{"module": "tests.synapse.other_modules.SharedSecret"}, OTHER],
    synapse={
        "app_service_config_files": [BRIDGE],
        "cas_config": {"enabled": True, "server_url": "https://cas.example.test"},
        "login_via_existing_session": {"enabled": True},
    },
)


class ProxiedTests(ClientCase):
    """With nginx in front, the module does not disturb other modules."""

    profile = PROFILE

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.proxy = await self.nginx()

    async def log_in(self, body: object, token: str | None = None) -> Response:
        """Log in through the proxy."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = self.proxy.url + paths.at("login")
        answer = await send(url, body=json.dumps(body).encode(), headers=headers)
        if answer.status == 200:
            self.client.secrets.add(answer.json["access_token"])
        return answer

    async def assert_is(self, user: str, answer: Response) -> str:
        """Assert that a login succeeded as this user; return the access token."""
        self.assertEqual(answer.status, 200, str(answer))
        access: str = answer.json["access_token"]
        who = await self.client.whoami(access, self.proxy.url)
        self.assertEqual(who.json["user_id"], user_id(user), str(who))
        return access

    async def test_double_puppeting(self) -> None:
        """A bridge logs in as a user by a shared secret, in both ways, and both sessions live."""
        own = await self.client.login(self.client.module)
        token = hmac.new(SHARED_SECRET, user_id("alice").encode(), hashlib.sha512).hexdigest()
        logins: list[dict[str, Any]] = [
            {"type": "com.devture.shared_secret_auth", "token": token},
            {"type": "m.login.password", "password": token},
        ]
        sessions = [own.json["access_token"]]
        for login in logins:
            body = {**login, "identifier": named(user_id("alice")), "device_id": fresh("BRIDGE")}
            sessions.append(await self.assert_is("alice", await self.log_in(body)))
            wrong = {key: "0" * 128 if text == token else text for key, text in body.items()}
            self.assert_error(await self.log_in(wrong), 403, "M_FORBIDDEN")
        for access in sessions:
            self.assertEqual((await self.client.whoami(access)).status, 200)
        line = f"login outcome=ok reason=homeserver address={CLIENT_ADDRESS} provider=synapse"
        self.assertIn(line, self.logged())

    async def test_double_puppets_share_a_device(self) -> None:
        """Bridges that use one device ID each keep their session, as without the module."""
        token = hmac.new(SHARED_SECRET, user_id("alice").encode(), hashlib.sha512).hexdigest()
        body = {
            "type": "com.devture.shared_secret_auth",
            "identifier": named("alice"),
            "token": token,
            "device_id": fresh("BRIDGE"),
        }
        sessions = [await self.assert_is("alice", await self.log_in(body)) for _ in range(2)]
        for access in sessions:
            self.assertEqual((await self.client.whoami(access)).status, 200)

    async def test_application_service(self) -> None:
        """A bridge logs its own users in."""
        puppet = fresh("irc_p")
        kind = {"type": "m.login.application_service"}
        await self.client.post(self.client.own, "/register", {**kind, "username": puppet}, AS_TOKEN)
        answer = await self.log_in({**kind, "identifier": named(puppet)}, AS_TOKEN)
        await self.assert_is(puppet, answer)

    async def test_passwords(self) -> None:
        """Users of the other module and of this one log in with their passwords."""
        for user, password in ((OTHER_USER, OTHER_PASSWORD), ("alice", PASSWORD)):
            login = {"type": "m.login.password", "identifier": named(user), "password": password}
            await self.assert_is(user, await self.log_in(login))

    async def test_flows(self) -> None:
        """Clients are offered all that Synapse itself offers, single sign-on included."""
        url = paths.at("login")
        through = await send(self.proxy.url + url, "GET", None)
        own = await self.client.send("GET", self.client.own + url)
        self.assertEqual(through.json, own.json)
        kinds = [flow["type"] for flow in through.json["flows"]]
        for kind in ("m.login.sso", "com.devture.shared_secret_auth", "com.example.secret"):
            self.assertIn(kind, kinds)
