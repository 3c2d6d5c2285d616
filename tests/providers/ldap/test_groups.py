"""Groups that list their members, in a real slapd."""

from __future__ import annotations

from typing import Any

from synapse_login_module.errors import InvalidCredentials, UnusableAccount
from synapse_login_module.model import AccountStatus, EmailIdentifier
from synapse_login_module.model.findings import Level
from synapse_login_module.providers.ldap import LDAPProvider
from tests.providers.ldap.case import SEARCH, LDAPCase, person, user
from tests.providers.ldap.test_alike import count
from tests.providers.ldap.wire import Proxy
from tests.support.slapd import PEOPLE, READER_DN, SUFFIX, Slapd

GROUP = f"cn=matrix,ou=groups,{SUFFIX}"
OTHER = f"cn=other,ou=groups,{SUFFIX}"
WRONG = "looking-glass"
ODD = "a.b=c/d+e"
ODDER = "o*(n)\\e"


def unix(uid: str, gid: int = 100, **more: Any) -> str:
    """An entry of a person with a Unix account."""
    return person(
        uid,
        **{
            "objectClass": ["inetOrgPerson", "posixAccount"],
            "uidNumber": "1000",
            "gidNumber": str(gid),
            "homeDirectory": "/home",
            **more,
        },
    )


def posix_group(dn: str, gid: int, *names: str) -> str:
    """An entry of a group that lists names."""
    members = "".join(f"memberUid: {each}\n" for each in names)
    return f"dn: {dn}\nobjectClass: posixGroup\ncn: {dn[3:].partition(',')[0]}\n" + (
        f"gidNumber: {gid}\n{members}\n"
    )


class GroupsCase(LDAPCase):
    """A test case that says who is a member."""

    async def assert_members(self, provider: LDAPProvider, **expected: bool) -> None:
        """Check who is known: with the right and with a wrong password, and at a look."""
        for name, is_member in expected.items():
            status = await provider.account_status(f"@{name}:example.com")
            self.assertIs(status, AccountStatus.ACTIVE if is_member else None, name)
            if is_member:
                await self.assert_logs_in(provider, name)
                await self.assert_rejected(provider, name, WRONG)
            else:
                self.assertIsNone(await self.log_in(provider, name), name)
                self.assertIsNone(await self.log_in(provider, name, WRONG), name)

    def change_group(self, slapd: Slapd, how: str, attribute: str, value: str) -> None:
        """Add a value to the group, or delete one."""
        slapd.change(f"dn: {GROUP}\nchangetype: modify\n{how}: {attribute}\n{attribute}: {value}\n")


class PosixGroupTests(GroupsCase):
    """Groups that list names, and those that an account has as its primary group."""

    def posix(self, slapd: Slapd, *groups: str, **more: object) -> LDAPProvider:
        """A provider of the members of some groups."""
        keys = {"groups": list(groups or (GROUP,)), "group_type": "posix", **more}
        return self.searching(slapd, **keys)

    async def test_members(self) -> None:
        """Who is listed is a member, by name and by address; who leaves is gone, everywhere."""
        slapd = self.slapd(
            unix("bob", mail="bob@example.com"),
            unix("carol", gid=200),
            unix("dave", mail="dave@example.com"),
            posix_group(GROUP, 200, "bob", "nobody-at-all"),
        )
        provider = self.posix(slapd)
        await self.assert_members(provider, bob=True, carol=True, dave=False, alice=False)
        bob, dave = EmailIdentifier("bob@example.com"), EmailIdentifier("dave@example.com")
        account = await self.assert_logs_in(provider, bob, "can-we-fix-it", "@bob:example.com")
        self.assertIsNone(await self.log_in(provider, dave, "pw-dave"))
        self.assertIs(await provider.account_status(account.subject), AccountStatus.ACTIVE)
        found = await provider.find(user("bob"))
        self.assertEqual(found, account)
        self.change_group(slapd, "delete", "memberUid", "bob")
        await self.assert_members(provider, bob=False)
        self.assertIsNone(await provider.account_status(account.subject))
        self.assertIsNone(await provider.find(user("bob")))

    async def test_names(self) -> None:
        """The name counts as the entry spells it, whatever was typed and whatever is in it."""
        slapd = self.slapd(
            unix("Dora", rdn="cn=dora", mail="dora@example.com"),
            unix("erik"),
            unix(ODD, rdn="cn=odd", userPassword="pw-odd"),
            unix(ODDER, rdn="cn=odder", mail="odder@example.com", userPassword="pw-odder"),
            unix("zoe").replace("uid: zoe\n", "uid: zoe\nuid: zora\n"),
            posix_group(GROUP, 200, "Dora", "Erik", ODD, ODDER, "zora", "*"),
        )
        provider = self.posix(slapd)
        for typed in ("dora", "Dora", "DORA"):
            await self.assert_logs_in(provider, typed, "pw-Dora", "@dora:example.com")
        # memberUid is compared with regard to case, as Unix does.
        await self.assert_members(provider, erik=False)
        await self.assert_logs_in(provider, ODD, "pw-odd")
        await self.assert_logs_in(provider, "zoe")
        with self.assertRaises(InvalidCredentials) as raised:
            await self.log_in(provider, EmailIdentifier("odder@example.com"), "pw-odder")
        self.assertEqual(raised.exception.reason, "bad_user_id")  # so it is a member

    async def test_another_name(self) -> None:
        """A person who is renamed is no member under the new name, and a new person with a name
        that is still listed is one.
        """
        slapd = self.slapd(unix("eve"), posix_group(GROUP, 200, "eve"))
        provider = self.posix(slapd)
        eve = await self.assert_logs_in(provider, "eve")
        slapd.change(
            f"dn: uid=eve,{PEOPLE}\nchangetype: modrdn\nnewrdn: uid=eva\ndeleteoldrdn: 1\n"
        )
        self.assertIsNone(await provider.account_status(eve.subject))
        self.assertIsNone(await self.log_in(provider, "eva", "pw-eve"))
        another = unix("eve", userPassword="pw-another")
        slapd.change(another.replace("\nobj", "\nchangetype: add\nobj", 1))
        account = await self.assert_logs_in(provider, "eve", "pw-another")
        self.assertNotEqual(account.subject, eve.subject)

    async def test_several_groups(self) -> None:
        """A member of one of several groups is enough, also if another one is not there. Whether
        others were members of that one cannot be said, so their sessions do not end.
        """
        slapd = self.slapd(unix("bob"), unix("carol"), unix("dave"), posix_group(OTHER, 300, "bob"))
        provider = self.posix(slapd, GROUP, OTHER)
        await self.assert_members(provider, bob=True)
        self.assertIsNone(await self.log_in(provider, "carol"))
        with self.assertRaisesRegex(UnusableAccount, f"LDAP: cannot see the group {GROUP}$"):
            await provider.account_status("@carol:example.com")
        self.assertIsNone(await provider.account_status("@nobody:example.com"))
        added = posix_group(GROUP, 200, "carol").replace("\nobj", "\nchangetype: add\nobj", 1)
        slapd.change(added)
        await self.assert_members(provider, bob=True, carol=True, dave=False)

    async def test_template(self) -> None:
        """With a template there is no difference."""
        slapd = self.slapd(unix("bob"), unix("carol"), posix_group(GROUP, 200, "bob"))
        template = f"uid={{localpart}},{PEOPLE}"
        provider = self.posix(slapd, bind_dn_template=template)
        await self.assert_members(provider, bob=True, carol=False)

    async def test_alike(self) -> None:
        """A member with a wrong password, one who is not a member, and an unknown user cost the
        same requests.
        """
        slapd = self.slapd(unix("bob"), unix("carol"), posix_group(GROUP, 200, "bob"))
        proxy = Proxy(slapd.port)
        self.addCleanup(proxy.stop)
        groups = {"groups": [GROUP, OTHER], "group_type": "posix"}
        provider = self.provider({**SEARCH, **groups, "servers": [proxy.url]})
        await self.assert_logs_in(provider, "bob")
        for who in (user("bob"), user("carol"), user("nobody"), user("x", "elsewhere.example")):
            heard = [len(line.received) for line in proxy.lines]
            try:
                self.assertIsNone(await self.log_in(provider, who, WRONG))
            except InvalidCredentials:
                self.assertEqual(who, user("bob"))
            asked = [line.received[n:] for line, n in zip(proxy.lines, heard, strict=True)]
            self.assertEqual([count(each) for each in asked], [3, 1], who)


class NamedGroupTests(GroupsCase):
    """Groups that list distinguished names, where no entry has ``memberOf``."""

    async def test_members(self) -> None:
        """Both attributes count; the name of a member is compared as a name."""
        for kind, attribute in (
            ("groupOfNames", "member"),
            ("groupOfUniqueNames", "uniqueMember"),
        ):
            slapd = self.slapd(
                person("bob"),
                person("carol", rdn="cn=Carol \\2c the other"),
                person("dave"),
                f"dn: {GROUP}\nobjectClass: {kind}\ncn: matrix\n"
                f"{attribute}: uid=BOB, {PEOPLE}\n"
                f"{attribute}: cn=Carol \\, the other,{PEOPLE}\n\n",
            )
            provider = self.searching(slapd, directory="openldap", groups=[GROUP])
            await self.assert_members(provider, bob=True, carol=True, dave=False)
            self.change_group(slapd, "delete", attribute, f"uid=bob,{PEOPLE}")
            await self.assert_members(provider, bob=False, carol=True)


class MissingGroupTests(GroupsCase):
    """A group that is not there."""

    async def test_told(self) -> None:
        """Nobody is a member; the log says so at the start, and so does the diagnosis."""
        slapd = self.slapd(posix_group(OTHER, 300, "alice"))
        keys = {"groups": [GROUP, OTHER], "group_type": "posix"}
        provider = self.searching(slapd, **keys)
        provider.startService()
        await provider.looking
        line = f"LDAP: there is no group {GROUP}, or the search account may not see it"
        self.assertEqual(self.logged, [line])
        await self.assert_members(provider, alice=True)
        found = [each for each in await provider.diagnose() if each.what == "group"]
        self.assertEqual([each.level for each in found], [Level.FAILED, Level.OK])
        self.assertEqual(found[0].found, f"there is no {GROUP}, or {READER_DN} may not see it")
        self.assertIn(OTHER, found[1].found)
