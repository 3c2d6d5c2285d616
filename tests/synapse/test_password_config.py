"""``password_config`` of homeserver.yaml, and what it means for the module."""

from __future__ import annotations

from tests.support.synapse.profile import PASSWORD, Profile
from tests.synapse.case import user_id
from tests.synapse.logins import LoginCase


class PasswordConfigCase(LoginCase):
    """Helpers for tests of it."""

    async def kinds(self, base: str) -> set[str]:
        """The login types that a listener offers."""
        answer = await self.client.send("GET", f"{base}/_matrix/client/v3/login")
        return {flow["type"] for flow in answer.json["flows"]}

    async def assert_own_login_disabled(self) -> None:
        """Synapse's own ``/login`` takes no password, and does not offer to."""
        self.assertNotIn("m.login.password", await self.kinds(self.client.own))
        for user, password in (("alice", PASSWORD), await self.local_user()):
            answer = await self.client.login(self.client.own, user, password)
            self.assert_error(answer, 400, "M_UNKNOWN")

    async def assert_module_serves_providers_alone(self) -> None:
        """The module's takes the providers' passwords, and none of Synapse's own."""
        self.assertIn("m.login.password", await self.kinds(self.client.module))
        pair = await self.client.pair()
        await self.assert_live(await self.client.rotate(pair))
        name, password = await self.local_user()
        answer = await self.client.login(self.client.module, name, password)
        self.assert_error(answer, 403, "M_FORBIDDEN")


class DisabledTests(PasswordConfigCase):
    """``enabled: false``."""

    profile = Profile("passwords-off", synapse={"password_config": {"enabled": False}})

    async def test_logins(self) -> None:
        """Passwords are taken at the module's listener alone, and the providers' alone."""
        await self.assert_own_login_disabled()
        await self.assert_module_serves_providers_alone()

    async def test_said_at_the_start(self) -> None:
        """The log says so."""
        self.assertIn("Synapse's own /login asks no provider", self.server.log())


class OnlyForReauthTests(PasswordConfigCase):
    """``enabled: only_for_reauth``."""

    profile = Profile(
        "only-for-reauth", synapse={"password_config": {"enabled": "only_for_reauth"}}
    )

    async def test_logins(self) -> None:
        """Logins are as without passwords."""
        await self.assert_own_login_disabled()
        await self.assert_module_serves_providers_alone()

    async def test_reauth(self) -> None:
        """Who is logged in and gives the password again gives the provider's, or the local one if
        the account is not linked.
        """
        name, password = await self.linked_user()
        for given in ("wrong", password):
            pair = await self.client.pair(name)
            answer = await self.client.delete_device(pair.device_id, pair.access, name, given)
            self.assertEqual(answer.status, 401, str(answer))
        self.server.query("DELETE FROM synapse_login_links WHERE user_id = ?", user_id(name))
        answer = await self.client.delete_device(pair.device_id, pair.access, name, password)
        self.assertEqual(answer.status, 200, str(answer))
        self.set_local_hash(name, None)
        pair = await self.client.pair(name)
        answer = await self.client.delete_device(pair.device_id, pair.access, name, PASSWORD)
        self.assertEqual(answer.status, 200, str(answer))


class NoLocalPasswordsTests(PasswordConfigCase):
    """``localdb_enabled: false``."""

    profile = Profile("no-local", synapse={"password_config": {"localdb_enabled": False}})

    async def test_logins(self) -> None:
        """The providers' passwords are taken at both listeners, and Synapse's own at neither."""
        for base in (self.client.own, self.client.module):
            self.assertIn("m.login.password", await self.kinds(base))
            good = await self.client.login(base)
            self.assertEqual(good.status, 200, str(good))
            name, password = await self.local_user()
            self.assert_error(await self.client.login(base, name, password), 403, "M_FORBIDDEN")
        await self.assert_module_serves_providers_alone()

    async def test_reauth(self) -> None:
        """The same holds for re-authentication."""
        name, password = await self.linked_user()
        pair = await self.client.pair(name)
        for given, status in ((password, 401), (PASSWORD, 200)):
            answer = await self.client.delete_device(pair.device_id, pair.access, name, given)
            self.assertEqual(answer.status, status, str(answer))
