"""Groups in a real Active Directory, Samba's, and its servers that fail."""

from __future__ import annotations

from collections.abc import Awaitable
from uuid import UUID

from synapse_login_module.errors import UnusableAccount
from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.ldap import LDAPProvider
from synapse_login_module.providers.ldap.filters import ANY
from synapse_login_module.providers.ldap.messages import Search
from tests.providers.ldap.load import restart_under_load
from tests.providers.ldap.test_ad_states import PASSWORD, WRONG, StatesCase
from tests.support.ports import free_port
from tests.support.samba import SUFFIX, USERS


class GroupsTests(StatesCase):
    """Members of a group: listed, nested, and by their primary group."""

    def group(self, name: str, *members: str, below: str = USERS) -> str:
        """Add a group, which is removed after the test; return its distinguished name."""
        dn = f"cn={name},{below}"
        lines = "".join(f"member: {each}\n" for each in members)
        self.samba.change(
            f"dn: {dn}\nchangetype: add\nobjectClass: group\nsAMAccountName: {name}\n{lines}"
        )
        self.addCleanup(self.samba.change, f"dn: {dn}\nchangetype: delete\n")
        return dn

    def change_members(self, group: str, how: str, member: str) -> None:
        """Add a member to a group, or delete one."""
        self.samba.change(f"dn: {group}\nchangetype: modify\n{how}: member\nmember: {member}\n")

    async def assert_members(self, provider: LDAPProvider, **expected: bool) -> None:
        """Check who is known: with the right and a wrong password, and at a look."""
        for name, is_member in expected.items():
            status = await provider.account_status(f"@{name}:example.com")
            self.assertIs(status, AccountStatus.ACTIVE if is_member else None, name)
            if is_member:
                await self.assert_logs_in(provider, name, PASSWORD)
                await self.assert_rejected(provider, name, WRONG)
            else:
                self.assertIsNone(await self.log_in(provider, name, PASSWORD), name)
                self.assertIsNone(await self.log_in(provider, name, WRONG), name)

    async def test_nested(self) -> None:
        """Members of groups within the group are members, until they leave."""
        for name in ("ann", "ben", "cat"):
            self.add(name)
        inner = self.group("inner", f"cn=ann,{USERS}")
        group = self.group("matrix", inner, f"cn=ben,{USERS}")
        provider = self.by_preset(groups=[group])
        await self.assert_members(provider, ann=True, ben=True, cat=False)
        ann = await self.assert_logs_in(provider, "ann", PASSWORD)
        self.change_members(inner, "delete", f"cn=ann,{USERS}")
        self.change_members(group, "add", f"cn=cat,{USERS}")
        await self.assert_members(provider, ann=False, ben=True, cat=True)
        self.assertIsNone(await provider.account_status(ann.subject))

    async def test_primary(self) -> None:
        """The primary group, which ``memberOf`` does not name, counts: itself, and where it is
        within another one.
        """
        self.add("ann")
        everybody = f"cn=Domain Users,{USERS}"
        by_filter = self.by_preset(group_filter=f"(memberOf={everybody})")
        await self.assert_members(by_filter, ann=False)
        await self.assert_members(self.by_preset(groups=[everybody]), ann=True)
        # "Users", which the domain users are in, by the id that it has in every domain.
        await self.assert_members(self.by_preset(groups=["<SID=S-1-5-32-545>"]), ann=True)
        await self.assert_members(self.by_preset(groups=["<SID=S-1-5-32-544>"]), ann=False)
        group = self.group("matrix")
        provider = self.by_preset(groups=[group])
        await self.assert_members(provider, ann=False)
        self.change_members(group, "add", everybody)
        await self.assert_members(provider, ann=True)
        self.assertIsNone(await self.log_in(provider, "nobody", WRONG))

    async def assert_not_there(self, provider: LDAPProvider, *names: str) -> None:
        """Check that nobody logs in by a group that is not there, and that nobody is gone."""
        for name in names:
            self.assertIsNone(await self.log_in(provider, name, PASSWORD), name)
            with self.assertRaisesRegex(UnusableAccount, "cannot see the group"):
                await provider.account_status(f"@{name}:example.com")

    async def test_renamed(self) -> None:
        """A group that is named by its id stays it when it is renamed or moved. One that is named
        by its name is not there then, and another one that gets the name has its own members.
        """
        for name in ("ann", "ben"):
            self.add(name)
        group = self.group("matrix", f"cn=ann,{USERS}")
        guid = await self.guid_of(group)
        by_name, by_id = self.by_preset(groups=[group]), self.by_preset(groups=[f"<GUID={guid}>"])
        for provider in (by_name, by_id):
            await self.assert_members(provider, ann=True, ben=False)
        rename = "dn: {}\nchangetype: moddn\nnewrdn: {}\ndeleteoldrdn: 1\n"
        other = f"cn=chat,{SUFFIX}"
        self.samba.change(rename.format(group, "cn=chat") + f"newsuperior: {SUFFIX}\n")
        await self.assert_not_there(by_name, "ann", "ben")
        await self.assert_members(by_id, ann=True, ben=False)
        self.samba.change(
            f"dn: {other}\nchangetype: modify\nreplace: sAMAccountName\nsAMAccountName: chat\n"
        )
        self.samba.change(
            f"dn: {group}\nchangetype: add\nobjectClass: group\nsAMAccountName: matrix\n"
            f"member: cn=ben,{USERS}\n"
        )
        await self.assert_members(by_name, ann=False, ben=True)
        await self.assert_members(by_id, ann=True, ben=False)
        self.samba.change(f"dn: {other}\nchangetype: delete\n")
        await self.assert_not_there(by_id, "ann", "ben")

    async def guid_of(self, dn: str) -> UUID:
        """Read the id of an entry."""
        (found,) = await self.by_preset()._directory.look(Search(dn, False, ANY, ["objectGUID"]))
        return UUID(bytes_le=found.entries[0].attributes["objectguid"][0])


class ServersTests(StatesCase):
    """A domain controller that fails, and its certificate."""

    async def test_certificate(self) -> None:
        """The controller's own certificate is accepted, under LDAPS and StartTLS, by the authority
        that signed it, and by no other.
        """
        self.add("ann")
        for url in (f"ldaps://{self.samba.host}", self.samba.url):
            secure = {"servers": [url], "start_tls": True, "allow_plaintext": False}
            provider = self.by_preset(**secure, ca_file=str(self.samba.ca_file))
            await self.assert_logs_in(provider, "ann", PASSWORD)
            await self.assert_rejected(provider, "ann", WRONG)
            untrusted = self.by_preset(**secure)
            self.assertIn("certificate", await self.unavailable(untrusted, "ann"))

    async def test_dead_controller(self) -> None:
        """If the first controller is dead, the second one answers."""
        self.add("ann")
        dead = f"ldap://127.0.0.1:{free_port()}"
        provider = self.by_preset(servers=[dead, self.samba.url])
        await self.assert_logs_in(provider, "ann", PASSWORD)
        await self.assert_rejected(provider, "ann", WRONG)
        look = await provider.account_status("@ann:example.com")
        self.assertIs(look, AccountStatus.ACTIVE)
        self.assertEqual(len([line for line in self.logged if "left alone" in line]), 1)

    async def test_restart_under_load(self) -> None:
        """Logins during a restart succeed or are an outage, and never anything else."""
        self.add("ann")
        provider = self.by_preset(retry_after="1s", connect_timeout="1s")

        def log_in() -> Awaitable[object]:
            return self.assert_logs_in(provider, "ann", PASSWORD)

        await restart_under_load(log_in, self.samba.stop, self.samba.start_again)
        await self.assert_rejected(provider, "ann", WRONG)
