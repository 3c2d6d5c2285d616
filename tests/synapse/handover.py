"""What the tests know of the other modules, and what they have in common."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.support.response import Response
from tests.support.synapse.profile import Profile
from tests.synapse.logins import LoginCase

OTHER_USER = "kermit9"
OTHER_PASSWORD = "other-pass-of-the-tests"
OTHER_ADDRESS = "kermit9@other.example"
SHARED_SECRET = b"shared-secret-of-the-tests"
AS_TOKEN = "as-token-of-the-tests"

BRIDGE = str(Path(__file__).with_name("bridge.yaml"))
OTHER = {"module": "tests.synapse.other_modules.OtherModule"}
GUARD = {"module": "tests.synapse.modules.LoginGuard"}

_ON_REQUEST = {"tokens": {"refresh_token": "on_request"}}

AFTER = Profile(
    "other-after",
    module=_ON_REQUEST,
    more_modules=[OTHER, GUARD],
    synapse={"app_service_config_files": [BRIDGE]},
)
BEFORE = Profile("other-before", module=_ON_REQUEST, modules_before=[OTHER])

_LINE = re.compile(r" - ((?:login|reauth|refresh) outcome=.*)$", re.MULTILINE)


def named(user: str = OTHER_USER) -> dict[str, Any]:
    """An identifier."""
    return {"type": "m.id.user", "user": user}


class HandoverCase(LoginCase):
    """A test case that compares the module's ``/login`` with Synapse's own."""

    async def at_both(
        self, body: object, token: str | None = None, prefix: str = "v3"
    ) -> tuple[Response, Response]:
        """Send a login to Synapse's own listener and to the module's; both answers."""
        own = await self.client.post(self.client.own, "/login", body, token, prefix)
        ours = await self.client.post(self.client.module, "/login", body, token, prefix)
        return own, ours

    async def assert_same(self, status: int, body: object, token: str | None = None) -> Response:
        """A login is answered alike at both listeners; the answer of the module's."""
        own, ours = await self.at_both(body, token)
        self.assertEqual(own.status, status, str(own))
        self.assertEqual(ours.status, status, str(ours))
        if status == 200:
            self.assertEqual(set(ours.json), set(own.json))
            self.assertEqual(ours.json["user_id"], own.json["user_id"])
            who = await self.client.whoami(ours.json["access_token"])
            self.assertEqual(who.json["user_id"], ours.json["user_id"], str(who))
        else:
            self.assertEqual(ours.json, own.json)
        self.assertEqual(ours.header("Access-Control-Allow-Origin"), "*")
        self.assertEqual(ours.header("Cache-Control"), "no-store")
        return ours

    async def flows(self, base: str) -> list[dict[str, Any]]:
        """What a listener lists."""
        answer = await self.client.send("GET", f"{base}/_matrix/client/v3/login")
        self.assertEqual(answer.status, 200, str(answer))
        found: list[dict[str, Any]] = answer.json["flows"]
        return found

    async def assert_same_flows(self) -> list[dict[str, Any]]:
        """Both listeners list the same; what that is."""
        ours = await self.flows(self.client.module)
        self.assertEqual(ours, await self.flows(self.client.own))
        return ours

    def lines(self) -> list[str]:
        """The outcomes that were logged since the test began."""
        return _LINE.findall(self.logged())

    def password(self, password: str = OTHER_PASSWORD, user: str = OTHER_USER) -> dict[str, Any]:
        """A login with a password."""
        return {"type": "m.login.password", "identifier": named(user), "password": password}

    def secret(self, secret: object = "open sesame", **more: Any) -> dict[str, Any]:
        """A login of the other module's own type."""
        return {"type": "com.example.secret", "identifier": named(), "secret": secret, **more}
