"""Real clients of a Synapse that delegates authentication: matrix-js-sdk and matrix-nio."""

from __future__ import annotations

import sys
from typing import Any

from tests.clients import test_js_sdk, test_nio
from tests.clients.delegated_case import DelegatedClientCase
from tests.clients.nio_encrypted import ANSWER
from tests.support.delegated_server import Session, fresh
from tests.support.delegated_server import asked as http
from tests.support.ports import free_port
from tests.support.process import require
from tests.support.synapse.delegating import delegating, devices_of
from tests.support.synapse.profile import PASSWORD, SERVER_NAME
from tests.support.waiting import together, until

ENDPOINT_PORT = free_port()
PROFILE = delegating("delegated-clients", ENDPOINT_PORT)

SHORT = {"tokens": {"refreshable_access_token_lifetime": "3s"}}
"""Access tokens of clients that refresh live for three seconds."""

UNRECOGNIZED = {"name": "M_UNRECOGNIZED", "errcode": "M_UNRECOGNIZED", "status": 404}


class ClientsCase(DelegatedClientCase):
    """A test with the Synapse of these tests, whose tokens expire soon."""

    profile, endpoint_port = PROFILE, ENDPOINT_PORT
    settings = SHORT

    def new_user(self) -> str:
        """Add a user; return the local part."""
        name = fresh("client")
        self.server.change_user(name)
        return name

    async def run_js(self, program: str, *arguments: str) -> dict[str, Any]:
        """Run a program of matrix-js-sdk with this set-up's URL."""
        return await self.run_client(test_js_sdk.command(program, self.url, *arguments))

    async def until_no_device(self, user: str) -> None:
        """Wait until the Synapse has no device of a user."""
        await self.until_devices(Session(user_id(user), "", "", None), [])


def user_id(name: str) -> str:
    """Return the user ID of a local part."""
    return f"@{name}:{SERVER_NAME}"


class JsSdkTests(ClientsCase):
    """matrix-js-sdk."""

    async def test_discovery(self) -> None:
        """It finds no login by OAuth, in the way that makes it fall back to passwords."""
        found = await self.run_js("discovery.mjs")
        self.assertEqual(found["metadata"], UNRECOGNIZED)
        self.assertEqual(found["stable"], UNRECOGNIZED)
        types = [flow["type"] for flow in found["flows"]]
        self.assertIn("m.login.password", types)
        self.assertNotIn("m.login.sso", types)
        self.assertTrue(found["versions"])

    async def test_session(self) -> None:
        """It logs in, refreshes by itself while it syncs, and its logout deletes the device."""
        name = self.new_user()
        happened = await self.run_js("session.mjs", name, PASSWORD, "sync")
        test_js_sdk.check(self, happened, user_id(name))
        self.assertGreater(happened["syncs"], 0)
        self.assertIn("refresh outcome=ok reason=lenient", self.server.process.log())
        await self.until_no_device(name)

    async def test_outage(self) -> None:
        """An outage of the login service during a refresh does not log it out."""
        name = self.new_user()
        down = await self.nginx_during_outage()
        happened = await self.run_js("outage.mjs", name, PASSWORD, down.url)
        self.assertFalse(happened["loggedOut"])
        self.assertEqual(happened["refreshErrors"], ["HTTPError 503"])
        self.assertEqual(len(happened["errors"]), 1)
        self.assertEqual(happened["refreshes"], 1)
        self.assertEqual(happened["whoami"]["user_id"], user_id(name))

    async def test_service_stops(self) -> None:
        """When the login service stops while it syncs, it is not logged out: neither by what the
        Synapse answers then, nor by the refreshes that fail. It goes on when the service is back.
        """
        name, folder = self.new_user(), self.folder()
        syncing, failed = folder / "syncing", folder / "failed"

        async def stop_and_start() -> dict[str, Any]:
            await until(syncing.exists, "a sync")
            await self.server.process.terminate()
            await until(failed.exists, "a refresh that fails")
            await self.server.process.start()
            return {}

        happened, _ = await together(
            self.run_js("survive.mjs", name, PASSWORD, str(syncing), str(failed)),
            stop_and_start(),
        )
        self.assertFalse(happened["loggedOut"])
        self.assertEqual(set(happened["refreshErrors"]), {"HTTPError 503"})
        self.assertEqual(happened["whoami"]["user_id"], user_id(name))

    async def test_delete_devices(self) -> None:
        """It deletes devices by its interactive authentication, with the password."""
        name = self.new_user()
        happened = await self.run_js("devices.mjs", name, PASSWORD)
        own, _, *two = happened["all"]
        self.assertEqual(happened["before"], sorted(happened["all"]))
        self.assertEqual(happened["afterOne"], sorted([own, *two]))
        self.assertEqual(happened["afterTwo"], [own])
        self.assertEqual([happened["one"], happened["two"], happened["logout"]], [{}, {}, {}])
        asked = [["m.login.password", None], ["m.login.password", "M_FORBIDDEN"]]
        self.assertEqual(happened["stages"], asked * 2)
        self.assertEqual(happened["renamed"], "renamed")
        self.assertFalse(happened["loggedOut"])
        await self.until_no_device(name)

    async def test_cross_signing(self) -> None:
        """Its first keys of cross-signing are taken without asking. It replaces them once the user
        has allowed it at the account page, where it is sent.
        """
        name, folder = self.new_user(), self.folder()
        asked, allowed = folder / "asked", folder / "allowed"

        async def allow() -> dict[str, Any]:
            await until(asked.exists, "the URL of the account page")
            page, _, query = asked.read_text().partition("?")
            self.assertIn("action=org.matrix.cross_signing_reset", query)
            self.assertTrue(page.startswith(self.url), page)
            port, path = self.port, page.removeprefix(self.url)
            signed_in = await http(
                port, "POST", f"{path}/sign_in", {"user": name, "password": PASSWORD}
            )
            token = signed_in.content["token"]
            reset = await http(port, "POST", f"{path}/reset_cross_signing", {}, token)
            self.assertEqual(reset.status, 200, reset)
            allowed.touch()
            return {}

        happened, _ = await together(
            self.run_js("cross_signing.mjs", name, PASSWORD, str(asked), str(allowed)), allow()
        )
        first, second, third = happened["attempts"]
        self.assertEqual((first, third), ("uploaded", "uploaded"))
        self.assertEqual(second["status"], 401)
        self.assertTrue(happened["publicKeysOnDevice"])
        self.assertTrue(happened["crossSigned"])
        before, after = happened["keys"]
        self.assertTrue(before and after and before != after, happened["keys"])
        self.assertFalse(happened["loggedOut"])


class NioTests(ClientsCase):
    """matrix-nio, which does not refresh."""

    async def test_session(self) -> None:
        """It logs in, syncs, logs out, and its device and its token are gone then."""
        name = self.new_user()
        command = test_nio.command(self.url, name, PASSWORD, "sync")
        happened = await self.run_client(command)
        self.assertEqual(happened["login"], ["LoginResponse", None])
        self.assertEqual(happened["user_id"], user_id(name))
        self.assertEqual(happened["room"], "RoomCreateResponse")
        self.assertEqual(happened["sync"], ["SyncResponse", True])
        self.assertEqual(happened["logout"], "LogoutResponse")
        await self.until_no_device(name)

    async def test_wrong_password(self) -> None:
        """It gets the error for a wrong password."""
        happened = await self.run_client(test_nio.command(self.url, self.new_user(), "not this"))
        self.assertEqual(happened, {"login": ["LoginError", "M_FORBIDDEN"]})


class EncryptedTests(ClientsCase):
    """Both, in an encrypted room."""

    async def test_conversation(self) -> None:
        """Each decrypts what the other sends, and matrix-js-sdk refreshes meanwhile. matrix-nio
        deletes a device by interactive authentication.
        """
        require("nio", "vodozemac")
        one, other = self.new_user(), self.new_user()
        message = "an encrypted message of matrix-js-sdk"
        # The account that is invited has to exist.
        await self.server.login(other, device_id="EARLIER")
        program = test_nio.PROGRAM.with_name("nio_encrypted.py")
        js_sdk, nio = await together(
            self.run_js("encrypted.mjs", one, PASSWORD, user_id(other), message),
            self.run_client([sys.executable, str(program), self.url, other, PASSWORD]),
        )
        self.assertEqual(nio["received"], [[message, True]])
        self.assertEqual(js_sdk["received"], [ANSWER])
        self.assertTrue(js_sdk["encrypted"])
        self.assertTrue(nio["encrypted"])
        self.assertEqual(nio["keys"], "KeysUploadResponse")
        self.assertEqual(nio["not_decrypted"], 0)
        self.assertFalse(js_sdk["loggedOut"])
        self.assertEqual(js_sdk["refreshErrors"], [])
        self.assertIn(js_sdk["deviceId"], devices_of(self.synapse, user_id(one)))
        answers = ["DeleteDevicesAuthResponse"] * 2 + ["DeleteDevicesResponse"]
        self.assertEqual(nio["deletions"], answers)
        self.assertEqual(len(nio["devices"]), 1)
        self.assertNotIn("EARLIER", nio["devices"])
        await self.until_no_device(other)
