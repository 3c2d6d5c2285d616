"""The group of server administrators, in a real slapd and a real Active Directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.errors import ConfigError, ProviderUnavailable, UnusableAccount
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Level, UserId, UserIdentifier
from synapse_login_module.providers.ldap import LDAPProvider
from synapse_login_module.providers.wrappers.cache import PasswordCache
from tests.providers.ldap.case import PASSWORDS, SEARCH, LDAPCase, person
from tests.providers.ldap.test_active_directory import PASSWORDS as AD_PASSWORDS
from tests.providers.ldap.test_active_directory import ActiveDirectoryCase
from tests.support.commands import invoke
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.samba import SUFFIX as AD_SUFFIX
from tests.support.samba import USERS
from tests.support.slapd import GROUP_DN, PEOPLE, SUFFIX, Slapd

BOB = person("bob", mail="bob@example.com")
EMPTY = "cn=nobody,dc=example,dc=com"
"""A name that a group of OpenLDAP has for a member, since it needs one."""


def change(dn: str, kind: str, *lines: str) -> str:
    """The LDIF of a change."""
    return f"dn: {dn}\nchangetype: {kind}\n" + "".join(f"{line}\n" for line in lines) + "\n"


def group(dn: str, *members: str) -> str:
    """The LDIF of a new group in slapd."""
    return change(
        dn, "add", "objectClass: groupOfNames", *(f"member: {each}" for each in (EMPTY, *members))
    )


class AdminGroupCase(LDAPCase):
    """A slapd with a group of which Alice is a member, and Bob is not."""

    def grouped(self, admin_group: str = GROUP_DN, **more: Any) -> LDAPProvider:
        """A provider with this group."""
        self.server: Slapd = self.slapd(BOB)
        self.server.change(group(GROUP_DN, f"uid=alice,{PEOPLE}"))
        return self.searching(self.server, admin_group=admin_group, **more)

    async def subject(self, provider: LDAPProvider, name: str) -> str:
        """The subject of an account."""
        return (await self.assert_logs_in(provider, name)).subject

    def member(self, uid: str, *, add: bool) -> None:
        """Add a person to the group, or delete one from it."""
        what = "add" if add else "delete"
        lines = (f"{what}: member", f"member: uid={uid},{PEOPLE}")
        self.server.change(change(GROUP_DN, "modify", *lines))


class AdminGroupContractTests(
    testing.PasswordProviderContract, testing.NamesAdministratorsContract, AdminGroupCase
):
    """The contract of providers that name administrators, and that of providers."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return self.grouped()


class AdminGroupTests(AdminGroupCase):
    """Who is in the group, and whether that can be known."""

    async def test_changes(self) -> None:
        """Membership counts at once, also when it ends, at logins and without a password."""
        provider = self.grouped()
        bob = await self.subject(provider, "bob")
        for is_member in (True, False, True):
            self.member("bob", add=is_member)
            account = await self.assert_logs_in(provider, "bob")
            self.assertIs(account.admin, is_member)
            self.assertIs(await provider.is_administrator(bob), is_member)

    async def test_emptied(self) -> None:
        """A group without members is no mistake where it is configured by its name."""
        provider = self.grouped()
        alice = await self.subject(provider, "alice")
        self.member("alice", add=False)
        self.assertIs(await provider.is_administrator(alice), False)
        self.assertEqual(self.logged, [])

    async def test_filter(self) -> None:
        """A filter may say who is a member. If none is, that proves nothing."""
        provider = self.grouped("(title=root)")
        alice = await self.subject(provider, "alice")
        bob = await self.subject(provider, "bob")
        for _ in range(3):
            self.assertIsNone(await provider.is_administrator(alice))
        line = "LDAP: admin_group (title=root) has no member, or is not there"
        self.assertEqual([each.startswith(line) for each in self.logged], [True])
        lines = ("add: title", "title: root")
        self.server.change(change(f"uid=bob,{PEOPLE}", "modify", *lines))
        self.assertIs(await provider.is_administrator(alice), False)
        self.assertIs(await provider.is_administrator(bob), True)

    async def test_mistyped(self) -> None:
        """Of a group that is not there, nothing follows. The log says so once a minute, and at
        the start.
        """
        mistyped = GROUP_DN.replace("cn=matrix", "cn=matriks")
        provider = self.grouped(mistyped)
        alice = await self.subject(provider, "alice")
        for _ in range(3):
            self.assertIsNone(await provider.is_administrator(alice))
        self.assertIsNone((await self.assert_logs_in(provider, "alice")).admin)
        problem = f"LDAP: admin_group {mistyped} has no member, or is not there, or cannot be read"
        self.assertEqual([each.startswith(problem) for each in self.logged], [True])
        self.events.clear()
        fresh = self.searching(self.server, admin_group=mistyped)
        fresh.startService()
        await fresh.looking
        self.assertEqual([each.startswith(problem) for each in self.logged], [False, True])
        self.assertIn("LDAP: admin_group is on: anyone who can add members to", self.logged[0])

    async def test_removed_group(self) -> None:
        """So it is when the group is removed: its members stay what they are."""
        provider = self.grouped()
        alice = await self.subject(provider, "alice")
        self.assertIs(await provider.is_administrator(alice), True)
        self.server.change(change(GROUP_DN, "delete"))
        self.assertIsNone(await provider.is_administrator(alice))
        self.assertIsNone((await self.assert_logs_in(provider, "alice")).admin)

    async def test_gone(self) -> None:
        """Nothing is said of an entry that is gone or is no account, or that is asked by name."""
        provider = self.grouped(group_filter="(!(title=left))")
        alice = await self.subject(provider, "alice")
        for text in ("alice", "@alice:example.com", "entryUUID:", "title:root", "*"):
            self.assertIsNone(await provider.is_administrator(text), text)
        lines = ("add: title", "title: left")
        self.server.change(change(f"uid=alice,{PEOPLE}", "modify", *lines))
        self.assertIsNone(await provider.is_administrator(alice))
        self.server.change(change(f"uid=alice,{PEOPLE}", "delete"))
        self.assertIsNone(await provider.is_administrator(alice))

    async def test_one_id_twice(self) -> None:
        """Nothing is said of an id that several entries have: one of them may be a member."""
        provider = self.grouped(attributes={"subject": "employeeNumber"})
        for name, number in (("alice", "1"), ("bob", "2")):
            lines = ("add: employeeNumber", f"employeeNumber: {number}")
            self.server.change(change(f"uid={name},{PEOPLE}", "modify", *lines))
        bob = await self.subject(provider, "bob")
        self.assertIs(await provider.is_administrator(bob), False)
        lines = ("replace: employeeNumber", "employeeNumber: 2")
        self.server.change(change(f"uid=alice,{PEOPLE}", "modify", *lines))
        self.assertIsNone(await provider.is_administrator(bob))

    async def test_outage(self) -> None:
        """An outage is no answer."""
        provider = self.grouped()
        alice = await self.subject(provider, "alice")
        self.server.stop()
        with self.assertRaises(ProviderUnavailable):
            await provider.is_administrator(alice)

    async def test_odd_names(self) -> None:
        """Characters of the group's name have no meaning in a filter."""
        odd = f"cn=*)(uid\\3d*\\2c,ou=groups,{SUFFIX}"
        provider = self.grouped(odd)
        self.server.change(group(odd, f"uid=bob,{PEOPLE}"))
        self.assertIs((await self.assert_logs_in(provider, "alice")).admin, False)
        self.assertIs((await self.assert_logs_in(provider, "bob")).admin, True)

    async def test_off(self) -> None:
        """Without the key, nothing is said."""
        provider = self.searching(self.slapd())
        account = await self.assert_logs_in(provider, "alice")
        self.assertIsNone(account.admin)
        self.assertFalse(provider.names_administrators)
        self.assertIsNone(await provider.is_administrator(account.subject))

    async def test_names(self) -> None:
        """An account that is known by its name alone cannot log in, since others may get it."""
        provider = self.grouped()
        provider._naming._subjects.attributes = ("objectGUID",)
        with self.assertRaises(UnusableAccount):
            await self.log_in(provider, "alice")

    async def test_cache(self) -> None:
        """A cached password says nothing about administrators."""
        provider = self.grouped()
        account = await self.assert_logs_in(provider, "alice")
        self.assertIs(account.admin, True)
        cache = PasswordCache(60, 10, lambda: 0.0)
        identifier = UserIdentifier(UserId("alice", "example.com"))
        cache.update(identifier, PASSWORDS["alice"], account)
        found = cache.find(identifier, PASSWORDS["alice"])
        self.assertEqual(found, replace(account, admin=None, status=None))

    async def test_diagnosis(self) -> None:
        """The doctor says whether the group is there."""
        self.grouped()
        for admin_group, level in (
            (GROUP_DN, Level.OK),
            (f"cn=none,{SUFFIX}", Level.WARNING),
            ("(uid=alice)", Level.OK),
            ("(uid=none)", Level.WARNING),
        ):
            provider = self.searching(self.server, admin_group=admin_group)
            found = [each for each in await provider.diagnose() if each.what == "admin_group"]
            self.assertEqual([each.level for each in found], [level], admin_group)


class AdminGroupConfigTests(SynchronousTestCase):
    """The key ``admin_group``."""

    def test_mistakes(self) -> None:
        """It is a name or a filter, and needs a base."""
        servers = {"servers": ["ldaps://ldap.example.com"]}
        named = {**servers, "bind_dn_template": f"uid={{localpart}},{PEOPLE}"}
        configs: Sequence[dict[str, Any]] = (
            *({**SEARCH, **servers, "admin_group": each} for each in ("", "matrix", "(cn=x", 7)),
            {**named, "admin_group": GROUP_DN},
        )
        for config in configs:
            with self.assertRaises(ConfigError) as raised:
                LDAPProvider.parse_config(config, Path())
            self.assertEqual(raised.exception.path, "admin_group", config)

    def test_subject(self) -> None:
        """Administrators are not known by a name that another person may get."""
        config = {**SEARCH, "servers": ["ldaps://ldap.example.com"], "admin_group": GROUP_DN}
        for subject in ("UID", "mail"):
            with self.assertRaises(ConfigError) as raised:
                LDAPProvider.parse_config({**config, "attributes": {"subject": subject}}, Path())
            self.assertEqual(raised.exception.path, "attributes.subject")
        LDAPProvider.parse_config({**config, "attributes": {"subject": "employeeNumber"}}, Path())

    def test_standalone(self) -> None:
        """The standalone server rejects it, and says what it has instead."""
        config = {"servers": ["ldaps://ldap.example.com"], "base": PEOPLE, "admin_group": GROUP_DN}
        module = "synapse_login_module.providers.ldap.LDAPProvider"
        entry = {"module": module, "config": config}
        folder = temporary_folder(self)
        path = write_config(folder, {**good_config(), "password_providers": [entry]})
        done = invoke("check-config", str(path))
        self.assertIn(
            "password_providers.0.config.admin_group: only inside Synapse: it makes"
            " administrators of Synapse; see homeserver.config.admins",
            done.stdout + done.stderr,
        )


class ActiveDirectoryAdminTests(ActiveDirectoryCase):
    """Groups within groups."""

    async def test_nested(self) -> None:
        """With Active Directory's own rule, members of groups in the group are members."""
        inner, outer = (f"cn={each},{USERS}" for each in ("inner admins", "matrix admins"))
        for dn, member in ((inner, f"cn=bob,{USERS}"), (outer, inner)):
            self.samba.change(change(dn, "add", "objectClass: group", f"member: {member}"))
            self.addCleanup(self.samba.change, change(dn, "delete"))
        for admin_group, expected in (
            (outer, False),
            (inner, True),
            (f"(memberOf:1.2.840.113556.1.4.1941:={outer})", True),
        ):
            provider = self.directory(admin_group=admin_group)
            bob = await self.assert_logs_in(provider, "bob", AD_PASSWORDS["bob"])
            otto = await self.assert_logs_in(provider, "otto", AD_PASSWORDS["otto"])
            for account, is_admin in ((bob, expected), (otto, False)):
                self.assertIs(account.admin, is_admin, admin_group)
                asked: Deferred[bool | None] = provider.is_administrator(account.subject)
                self.assertIs(await asked, is_admin, admin_group)
        mistyped = self.directory(admin_group=f"cn=none,{AD_SUFFIX}")
        self.assertIsNone(await mistyped.is_administrator(bob.subject))
