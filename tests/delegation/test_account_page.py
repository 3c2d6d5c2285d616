"""The account page, with a real Synapse behind it."""

from __future__ import annotations

import os
from base64 import b64encode
from typing import Any

from tests.support.delegated_server import CLIENT, DelegatedCase, Reply, Session, asked
from tests.support.ports import free_port
from tests.support.synapse.delegating import delegating
from tests.support.synapse.profile import PASSWORD

ENDPOINT_PORT = free_port()
PROFILE = delegating("delegation-account-page", ENDPOINT_PORT)
PAGE = "/_matrix/login/account"


class AccountPageTests(DelegatedCase):
    """What a user does at the account page counts at the Synapse."""

    profile, endpoint_port = PROFILE, ENDPOINT_PORT

    async def sign_in(self) -> str:
        """Sign in at the account page; return the page token."""
        body = {"user": self.server.alice, "password": PASSWORD}
        reply = await self.server.ask("POST", f"{PAGE}/sign_in", body)
        self.assertEqual(reply.status, 200, reply)
        token: str = reply.content["token"]
        return token

    async def upload_keys(self, session: Session) -> Reply:
        """Upload a new master key of cross-signing."""
        key = b64encode(os.urandom(32)).decode("ascii").rstrip("=")
        master: dict[str, Any] = {
            "user_id": session.user_id,
            "usage": ["master"],
            "keys": {f"ed25519:{key}": key},
        }
        return await self.at_synapse(
            "POST", f"{CLIENT}/keys/device_signing/upload", session.token, {"master_key": master}
        )

    async def test_address(self) -> None:
        """The Synapse sends its clients to the page, which is there."""
        session = await self.server.login()
        metadata = await self.at_synapse("GET", "/_matrix/client/v1/auth_metadata", session.token)
        uri = metadata.content["account_management_uri"]
        self.assertEqual(uri, f"http://127.0.0.1:{self.server.port}{PAGE}")
        page = await asked(self.server.port, "GET", PAGE)
        self.assertEqual(page.status, 200)

    async def test_sign_out(self) -> None:
        """A session that is signed out there is refused by the Synapse, and its device is gone."""
        gone, stays = await self.server.login(), await self.server.login()
        self.assertEqual((await self.whoami(gone.token)).status, 200)
        token = await self.sign_in()
        listed = await self.server.ask("GET", f"{PAGE}/sessions", None, token)
        self.assertEqual(
            {each["device_id"] for each in listed.content["sessions"]},
            {gone.device_id, stays.device_id},
        )
        await self.server.ask("POST", f"{PAGE}/sign_out", {"device_id": gone.device_id}, token)
        await self.until_devices(stays, [stays.device_id])
        self.assertEqual((await self.whoami(gone.token)).status, 401)
        self.assertEqual((await self.whoami(stays.token)).status, 200)

    async def test_sign_in_makes_no_device(self) -> None:
        """To sign in at the page makes no device and no account."""
        body = {"user": self.server.alice, "password": PASSWORD}
        reply = await self.server.ask("POST", f"{PAGE}/sign_in", body)
        self.assertEqual(reply.status, 403, reply)
        rows = self.synapse.query(
            "SELECT name FROM users WHERE name LIKE ?", f"@{self.server.alice}:%"
        )
        self.assertEqual(rows, [])

    async def test_reset_of_cross_signing(self) -> None:
        """The keys of cross-signing are replaced once the user has allowed it at the page."""
        session = await self.server.login()
        self.assertEqual((await self.upload_keys(session)).status, 200)
        refused = await self.upload_keys(session)
        self.assertEqual(refused.status, 401, refused)
        (flow, *_) = refused.content["flows"]
        self.assertIn(PAGE, refused.content["params"][flow["stages"][0]]["url"])
        token = await self.sign_in()
        allowed = await self.server.ask("POST", f"{PAGE}/reset_cross_signing", {}, token)
        self.assertEqual(allowed.status, 200, allowed)
        self.assertEqual((await self.upload_keys(session)).status, 200)
        self.assertEqual((await self.upload_keys(session)).status, 401)
