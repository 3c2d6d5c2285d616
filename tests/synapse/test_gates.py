"""What Synapse refuses logins and refreshes for, other than a wrong password."""

from __future__ import annotations

import re

from tests.support.synapse.profile import PASSWORD, Profile
from tests.synapse.case import HomeserverCase, fresh, user_id
from tests.synapse.client import Pair
from tests.synapse.tokens import TokenCase

_CONTACT = "mailto:admin@hs.example"


class LimitCase(TokenCase):
    """Helpers for tests of a homeserver that accepts no further users."""

    async def assert_no_room(self, pair: Pair, name: str, limit_type: str) -> None:
        """Logins and refreshes are refused as Synapse's own are; a pair stays as it is."""
        for answer in (
            await self.client.login(self.client.own, name),
            await self.client.login(self.client.module, name),
            await self.client.tokenrefresh(pair),
            await self.client.refresh(pair),
            await self.client.own_refresh(pair),
        ):
            self.assert_error(answer, 403, "M_RESOURCE_LIMIT_EXCEEDED")
            self.assertEqual(answer.json["limit_type"], limit_type, str(answer))
            self.assertEqual(answer.json["admin_contact"], _CONTACT, str(answer))


class ActiveUsersTests(LimitCase):
    """``limit_usage_by_mau``, with room for one user."""

    profile = Profile(
        "active-users",
        synapse={"limit_usage_by_mau": True, "max_mau_value": 1, "admin_contact": _CONTACT},
    )

    async def test_full(self) -> None:
        """Who is active already goes on; the others are refused, and lose nothing by it."""
        bob = await self.client.pair("bob")
        alice = await self.client.pair("alice")
        await self.assert_live(alice)
        await self.assert_no_room(bob, "bob", "monthly_active_user")
        alice = await self.client.rotate(alice)
        alice = alice.then(await self.client.refresh(alice))
        await self.assert_live(alice)
        self.assertEqual((await self.client.login(self.client.module)).status, 200)
        newcomer = self.new_user()
        for base in (self.client.module, self.client.own):
            answer = await self.client.login(base, newcomer)
            self.assert_error(answer, 403, "M_RESOURCE_LIMIT_EXCEEDED")
            self.assertEqual(answer.json["limit_type"], "monthly_active_user", str(answer))
            self.assertEqual(answer.json["admin_contact"], _CONTACT, str(answer))
        found = self.server.query("SELECT 1 FROM users WHERE name = ?", user_id(newcomer))
        self.assertEqual(found, [])
        await self.server.restart({"max_mau_value": 2})
        await self.assert_live(await self.client.rotate(bob))


class DisabledTests(LimitCase):
    """``hs_disabled``."""

    profile = Profile("disabled")

    async def test_disabled(self) -> None:
        """While the homeserver is disabled, logins and refreshes fail; afterwards they work."""
        pair = await self.client.rotate(await self.client.pair())
        await self.server.restart({"hs_disabled": True, "admin_contact": _CONTACT})
        await self.assert_no_room(pair, "alice", "hs_disabled")
        await self.server.restart({})
        await self.assert_live(await self.client.rotate(pair))


class SpamCheckerTests(HomeserverCase):
    """``check_login_for_spam`` of other modules."""

    profile = Profile(
        "guarded",
        client_listener={"x_forwarded": True},
        more_modules=[{"module": "tests.synapse.modules.LoginGuard"}],
    )

    async def log_in(self, base: str, device: str) -> tuple[int, object]:
        """Log in through a proxy; return the response's status and content."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": PASSWORD,
            "device_id": device,
            "initial_device_display_name": "A device",
        }
        headers = {
            "X-Forwarded-For": "198.51.100.66",
            "X-Forwarded-Proto": "https",
            "User-Agent": "Client/1.0 (of the tests)",
        }
        url = f"{base}/_matrix/client/v3/login"
        answer = await self.client.send("POST", url, body, headers=headers)
        return answer.status, answer.json

    async def test_told(self) -> None:
        """They are told of a login at the module's listener what they are told at Synapse's."""
        device = fresh("DEVICE")
        for base in (self.client.own, self.client.module):
            status, said = await self.log_in(base, device)
            self.assertEqual(status, 200, said)
        own, ours = re.findall(r"guard: (.*)", self.logged())
        self.assertEqual(ours, own)
        self.assertIn("[('Client/1.0 (of the tests)', '198.51.100.66')]", ours)

    async def test_refused(self) -> None:
        """What they refuse is refused with their code, and with what they add."""
        answers = [await self.log_in(base, "BAD") for base in (self.client.own, self.client.module)]
        self.assertEqual(answers[0], answers[1])
        status, said = answers[1]
        self.assertEqual(status, 403)
        self.assertEqual(
            said,
            {
                "errcode": "M_LIMIT_EXCEEDED",
                "error": "Login was blocked by the server",
                "org.example.reason": "guarded",
            },
        )
        devices = self.server.query("SELECT 1 FROM devices WHERE device_id = ?", "BAD")
        self.assertEqual(devices, [])


class ApprovalTests(HomeserverCase):
    """``require_approval_for_new_accounts`` (MSC3866)."""

    profile = Profile("approval")

    async def test_approval(self) -> None:
        """A new account has to be approved before its first login, at either listener."""
        admin = await self.administrator()
        gate = {"enabled": True, "require_approval_for_new_accounts": True}
        await self.server.restart({"experimental_features": {"msc3866": gate}})
        for base in (self.client.own, self.client.module):
            name = self.new_user()
            for _ in range(2):
                answer = await self.client.login(base, name)
                self.assert_error(answer, 403, "ORG.MATRIX.MSC3866_USER_AWAITING_APPROVAL")
                self.assertEqual(answer.json["approval_notice_medium"], "org.matrix.msc3866.none")
            devices = self.server.query(
                "SELECT 1 FROM access_tokens WHERE user_id = ?", user_id(name)
            )
            self.assertEqual(devices, [])
            approved = await self.client.change_user(admin, name, approved=True)
            self.assertEqual(approved.status, 200, str(approved))
            answer = await self.client.login(base, name)
            self.assertEqual(answer.status, 200, str(answer))
