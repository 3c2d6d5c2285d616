"""Local parts that a directory's attributes make, at a real Synapse."""

from __future__ import annotations

from tests.support.slapd import PEOPLE, READER_DN, READER_PASSWORD, Slapd
from tests.support.synapse.profile import Profile
from tests.synapse.case import user_id
from tests.synapse.linkcase import NOT_LINKED
from tests.synapse.logins import LoginCase


class LocalpartTests(LoginCase):
    """People log in by their uid, and are called by their names."""

    directory: Slapd

    async def setUp(self) -> None:  # type: ignore[override]
        if not hasattr(LocalpartTests, "directory"):
            LocalpartTests.directory = Slapd()
            LocalpartTests.directory.start()
            config = {
                "servers": [LocalpartTests.directory.url],
                "start_tls": False,
                "bind_dn": READER_DN,
                "bind_password": READER_PASSWORD,
                "base": PEOPLE,
                "localpart": "{givenName}.{sn}",
                "filter": "(uid={localpart})",
            }
            module = "synapse_login_module.providers.ldap.LDAPProvider"
            entry = {"module": module, "config": config}
            LocalpartTests.profile = Profile("localparts", {"password_providers": [entry]})
        await super().setUp()

    def add(self, uid: str, given: str, surname: str) -> str:
        """Add a person; return the password."""
        password = f"{uid}-has-this-password"
        lines = (
            f"dn: uid={uid},{PEOPLE}",
            "changetype: add",
            "objectClass: inetOrgPerson",
            f"uid: {uid}",
            f"cn: {given} {surname}",
            f"givenName: {given}",
            f"sn: {surname}",
            f"userPassword: {password}",
        )
        self.directory.change("\n".join(lines) + "\n\n")
        return password

    async def test_names(self) -> None:
        """A person who is renamed keeps the account, and nobody gets it by the same name. The user
        ID confirms a password where the client asks for it once more.
        """
        password = self.add("x1", "Anna", "Smith")
        pair = await self.client.pair_with("x1", password)
        self.assertEqual(pair.user_id, user_id("anna.smith"))
        other = await self.client.pair_with("x1", password)
        deleted = await self.client.delete_device(
            other.device_id, pair.access, pair.user_id, password
        )
        self.assertEqual(deleted.status, 200, str(deleted))
        namesake = self.add("x2", "anna", "SMITH")
        for base in (self.client.own, self.client.module):
            answer = await self.client.login(base, "x2", namesake)
            self.assert_error(answer, 403, "M_FORBIDDEN")
            self.assertEqual(answer.json["error"], NOT_LINKED)
        self.directory.change(
            f"dn: uid=x1,{PEOPLE}\nchangetype: modify\nreplace: sn\nsn: Jones\n\n"
        )
        again = await self.client.pair_with("x1", password)
        self.assertEqual(again.user_id, user_id("anna.smith"))
        await self.assert_live(await self.client.rotate(pair))
        answer = await self.client.login(self.client.module, "x2", namesake)
        self.assertEqual(answer.json["error"], NOT_LINKED)
        third = self.add("x3", "Zoë", "Smith")
        answer = await self.client.login(self.client.module, "x3", third)
        self.assert_error(answer, 403, "M_FORBIDDEN")
        self.assertIn("ldap: 'Zoë.Smith' cannot log in: its name makes no user ID", self.logged())
