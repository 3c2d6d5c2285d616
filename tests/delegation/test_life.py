"""A session's life: it begins here, is used at Synapse, and ends at both."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.utils import getProcessOutput

from tests.support.delegated_server import CLIENT, WHOAMI, DelegatedCase, Session
from tests.support.ports import free_port
from tests.support.synapse.delegating import (
    deactivate,
    delegating,
    display_name_of,
    is_deactivated,
    make_user,
)
from tests.support.synapse.profile import SERVER_NAME, user
from tests.support.waiting import together, until

ENDPOINT_PORT = free_port()
PROFILE = delegating("delegation-life", ENDPOINT_PORT)


class LifeCase(DelegatedCase):
    """A test with the Synapse of these tests."""

    profile, endpoint_port = PROFILE, ENDPOINT_PORT

    async def command(self, *arguments: str) -> bytes:
        """Run a command on the server's configuration; return its output."""
        config = str(self.server.process.config)
        script = Path(sys.executable).with_name("synapse-login-module")
        said: bytes = await getProcessOutput(str(script), [*arguments, "--config", config])
        return said


class UseTests(LifeCase):
    """A token of this server is used at the Synapse."""

    async def test_last_use(self) -> None:
        """An operator is told when and from where a device was last used at the Synapse."""
        session = await self.server.login(self.server.bob)
        listing = ("sessions", "list", session.user_id, "--json")
        files = ("--homeserver-config", str(self.synapse.folder / "homeserver.yaml"))
        before = json.loads((await self.command(*listing, *files)).splitlines()[-1])
        self.assertEqual((before["device_id"], before["last_seen_ip"]), (session.device_id, None))
        await self.whoami(session.token)
        query = "SELECT ip FROM devices WHERE device_id = ? AND ip IS NOT NULL"
        await until(lambda: self.synapse.query(query, session.device_id), "Synapse's note of it")
        after = json.loads((await self.command(*listing, *files)).splitlines()[-1])
        self.assertEqual(after["last_seen_ip"], "127.0.0.1")
        self.assertGreater(after["last_seen_ts"], after["created_ts"])
        (alone, *_) = (await self.command("sessions", "list")).splitlines()
        self.assertNotIn(b"address=", alone)

    async def test_first_login_makes_the_account(self) -> None:
        """The first login makes the account and the device, with their display names."""
        self.server.change_user("carol", display_name="Carol C.")
        session = await self.server.login("carol", initial_device_display_name="Carol's phone")
        reply = await self.whoami(session.token)
        self.assertEqual(reply.status, 200)
        self.assertEqual(reply.content["user_id"], f"@carol:{SERVER_NAME}")
        self.assertEqual(reply.content["device_id"], session.device_id)
        self.assertEqual(display_name_of(self.synapse, session.user_id), "Carol C.")
        devices = await self.at_synapse("GET", f"{CLIENT}/devices", session.token)
        (device,) = devices.content["devices"]
        self.assertEqual(device["display_name"], "Carol's phone")

    async def test_everything_of_a_client(self) -> None:
        """Keys, rooms, messages and sync work with the token, as with one of Synapse's own."""
        one, other = await together(self.server.login(), self.server.login(self.server.bob))
        key = f"ed25519:{one.device_id}"
        keys = {
            "user_id": one.user_id,
            "device_id": one.device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {key: "A" * 43},
            "signatures": {one.user_id: {key: "B" * 86}},
        }
        uploaded = await self.at_synapse(
            "POST", f"{CLIENT}/keys/upload", one.token, {"device_keys": keys}
        )
        self.assertEqual(uploaded.status, 200, uploaded)
        made = await self.at_synapse(
            "POST", f"{CLIENT}/createRoom", one.token, {"invite": [other.user_id]}
        )
        room = made.content["room_id"]
        joined = await self.at_synapse("POST", f"{CLIENT}/join/{room}", other.token, {})
        self.assertEqual(joined.status, 200, joined)
        message = {"msgtype": "m.text", "body": "hello"}
        sent = await self.at_synapse(
            "PUT", f"{CLIENT}/rooms/{room}/send/m.room.message/1", one.token, message
        )
        self.assertEqual(sent.status, 200, sent)
        synced = await self.at_synapse("GET", f"{CLIENT}/sync?timeout=0", other.token)
        events = synced.content["rooms"]["join"][room]["timeline"]["events"]
        self.assertIn("hello", [event["content"].get("body") for event in events])

    async def test_refresh(self) -> None:
        """After a refresh the new token works. The old one works until the new one is used."""
        before = await self.server.login()
        after = await self.server.refresh(before)
        self.assertEqual((await self.whoami(before.token)).status, 200)
        self.assertEqual((await self.whoami(after.token)).status, 200)

    async def test_login_without_refresh_token(self) -> None:
        """A client that does not refresh gets a token that does not expire."""
        session = await self.server.login(refresh_token=False)
        self.assertIsNone(session.refresh_token)
        self.assertEqual((await self.whoami(session.token)).status, 200)


class EndTests(LifeCase):
    """A session ends here, and with it its device at the Synapse."""

    async def gone(self, session: Session) -> None:
        """Check that the Synapse refuses a token and has no such device."""
        await self.until_device_is_gone(session)
        reply = await self.whoami(session.token)
        self.assertEqual(reply.status, 401, reply)
        self.assertEqual(reply.content["errcode"], "M_UNKNOWN_TOKEN")

    async def until_device_is_gone(self, session: Session) -> None:
        """Wait until the Synapse has no such device."""
        await until(lambda: session.device_id not in self.device_ids(session), "its deletion")

    def device_ids(self, session: Session) -> list[str]:
        """The devices of a session's user at the Synapse."""
        rows = self.synapse.query(
            "SELECT device_id FROM devices WHERE user_id = ?", session.user_id
        )
        return [row[0] for row in rows]

    async def test_logout(self) -> None:
        """A logout deletes the device, and the token that was used before is refused."""
        session, stays = await together(self.server.login(), self.server.login())
        self.assertEqual((await self.whoami(session.token)).status, 200)
        reply = await self.server.ask("POST", f"{CLIENT}/logout", {}, session.token)
        self.assertEqual(reply.status, 200)
        await self.gone(session)
        self.assertEqual((await self.whoami(stays.token)).status, 200)

    async def test_logout_all(self) -> None:
        """A logout of all sessions deletes all devices of the user, and nobody else's."""
        one, two, other = await together(
            self.server.login(), self.server.login(), self.server.login(self.server.bob)
        )
        reply = await self.server.ask("POST", f"{CLIENT}/logout/all", {}, one.token)
        self.assertEqual(reply.status, 200)
        await self.gone(one)
        await self.gone(two)
        self.assertEqual((await self.whoami(other.token)).status, 200)

    async def test_same_device_again(self) -> None:
        """A login on the same device keeps the device, and the keys that are on it."""
        first = await self.server.login(device_id="THESAME")
        again = await self.server.login(device_id="THESAME")
        self.assertEqual((await self.whoami(again.token)).status, 200)
        self.assertIn("THESAME", self.device_ids(first))
        reply = await self.server.ask("POST", f"{CLIENT}/logout", {}, again.token)
        self.assertEqual(reply.status, 200)
        await self.gone(again)
        back = await self.server.login(device_id="THESAME")
        self.assertEqual((await self.whoami(back.token)).status, 200)

    async def test_account_gone(self) -> None:
        """The tokens of an account that vanishes are refused, and its device stays for a day."""
        self.server.change_user("dora")
        session = await self.server.login("dora")
        self.server.remove_user("dora")

        await until(lambda: " is gone at " in self.server.process.log(), "the end of its sessions")
        reply = await self.whoami(session.token)
        self.assertEqual(reply.status, 401, reply)
        self.assertIn(session.device_id, self.device_ids(session))

    async def test_operators_command(self) -> None:
        """A session that an operator revokes by command is deleted by the running server."""
        session = await self.server.login(self.server.bob)
        await self.command("sessions", "revoke", session.user_id)
        await self.gone(session)

    async def test_operator_revokes_everybody(self) -> None:
        """When an operator revokes all sessions of all users, all their devices are deleted."""
        logged_in = [await self.server.login(name) for name in ("", "", self.server.bob)]
        said = await self.command("sessions", "revoke", "--everybody", "--yes")
        self.assertRegex(said, rb"\A[0-9]+ sessions revoked\n\Z")
        self.assertEqual(await self.command("sessions", "list"), b"")
        for session in logged_in:
            await self.gone(session)


class AccountTests(LifeCase):
    """Whose account at the Synapse a login gets."""

    async def refused(self, name: str, errcode: str = "M_FORBIDDEN") -> Any:
        """Check that a login with the right password is refused with 403."""
        reply = await self.server.try_login(name)
        self.assertEqual((reply.status, reply.content["errcode"]), (403, errcode), reply)
        return reply.content["error"]

    async def test_existing_account(self) -> None:
        """An account that the Synapse has already is not taken over."""
        await make_user(self.synapse, "earlier")
        self.server.change_user("earlier")
        self.assertIn("not linked", await self.refused("earlier"))
        self.assertEqual(
            self.synapse.query(
                "SELECT 1 FROM devices WHERE user_id = ?", f"@earlier:{SERVER_NAME}"
            ),
            [],
        )
        self.assertIn("existing_accounts: all", self.server.process.log())

    async def test_deactivated_there(self) -> None:
        """An account that is deactivated at the Synapse cannot log in, and stays deactivated."""
        self.server.change_user("ended")
        session = await self.server.login("ended")
        await deactivate(self.synapse, "ended")
        await self.refused("ended", "M_USER_DEACTIVATED")
        self.assertTrue(is_deactivated(self.synapse, session.user_id))

    async def test_many_first_logins_at_once(self) -> None:
        """Of many first logins of one person at once, each succeeds and gets a device."""
        self.server.change_user("eager")
        sessions = await together(*(self.server.login("eager") for _ in range(8)))
        for session in sessions:
            self.assertEqual((await self.whoami(session.token)).status, 200)

    async def test_local_user_is_there(self) -> None:
        """A user who vanished from the Synapse, as after a restore, is made again."""
        self.server.write_users({**self.server.users, "frank": user()})
        session = await self.server.login("frank")
        reply = await self.at_synapse("GET", WHOAMI, session.token)
        self.assertEqual(reply.status, 200)
