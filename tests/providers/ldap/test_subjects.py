"""Immutable ids of a real Active Directory and a real 389 Directory Server."""

from __future__ import annotations

import subprocess
from uuid import UUID

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.identifiers import subject_as_typed
from synapse_login_module.providers.ldap import LDAPProvider
from tests.providers.ldap.case import PASSWORDS, LDAPCase
from tests.providers.ldap.test_active_directory import ActiveDirectoryCase
from tests.providers.ldap.test_ds389 import DS389Case
from tests.support import ds389
from tests.support.samba import SUFFIX, USERS, person

PASSWORD = "Gretas-Passw0rd"
UNIT = f"ou=unit,{SUFFIX}"
LATER = f"ou=later,{SUFFIX}"


def moved(dn: str, rdn: str, parent: str) -> str:
    """The LDIF that renames and moves an entry."""
    return (
        f"dn: {dn}\nchangetype: modrdn\nnewrdn: {rdn}\ndeleteoldrdn: 1\nnewsuperior: {parent}\n\n"
    )


class ActiveDirectoryTests(ActiveDirectoryCase):
    """The objectGUID of an entry."""

    def setUp(self) -> None:
        super().setUp()
        self.secrets.add(PASSWORD)

    async def found(self, provider: LDAPProvider, name: str, user: str = "greta") -> str:
        """The subject of the account that logs in by a name."""
        account = await self.assert_logs_in(provider, name, PASSWORD, f"@{user}:example.com")
        self.assertIs(await provider.account_status(account.subject), AccountStatus.ACTIVE)
        return account.subject

    def person(self, name: str = "greta", **more: str) -> None:
        """Add a person."""
        self.samba.change(person(name, PASSWORD, **more))

    def printed(self, name: str) -> str:
        """The objectGUID of an entry, as a tool of Active Directory prints it."""
        database = str(self.samba._folder / "private" / "sam.ldb")
        command = ["samba-tool", "user", "show", name, "--attributes=objectGUID", "-H", database]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return shown.stdout.partition("objectGUID: ")[2].split()[0]

    async def test_moved_and_renamed(self) -> None:
        """It stays, wherever the entry moves and whatever its names are. Outside of base, the
        entry is unknown. A new entry with the old names is another account.
        """
        for unit in (UNIT, LATER):
            self.samba.change(f"dn: {unit}\nchangetype: add\nobjectClass: organizationalUnit\n\n")
            self.addCleanup(self.samba.change, f"dn: {unit}\nchangetype: delete\n\n")
        self.person()
        whole = self.directory()
        within = self.directory(base=USERS)
        subject = await self.found(whole, "greta")
        self.assertEqual(await self.found(within, "greta"), subject)
        self.samba.change(moved(f"cn=greta,{USERS}", "cn=Greta Garbo", UNIT))
        self.assertEqual(await self.found(whole, "greta"), subject)
        self.assertIsNone(await within.account_status(subject))
        self.assertIsNone(await self.log_in(within, "greta", PASSWORD))
        self.samba.change(
            f"dn: cn=Greta Garbo,{UNIT}\nchangetype: modify\n"
            "replace: sAMAccountName\nsAMAccountName: garbo\n-\n"
            "replace: userPrincipalName\nuserPrincipalName: garbo@ad.test\n\n"
        )
        self.assertEqual(await self.found(whole, "garbo", "garbo"), subject)
        self.samba.change(moved(f"cn=Greta Garbo,{UNIT}", "cn=garbo", LATER))
        self.assertIs(await whole.account_status(subject), AccountStatus.ACTIVE)
        self.person()
        self.addCleanup(self.samba.change, f"dn: cn=greta,{USERS}\nchangetype: delete\n\n")
        self.assertNotEqual(await self.found(whole, "greta"), subject)
        self.samba.change(f"dn: cn=garbo,{LATER}\nchangetype: delete\n\n")
        self.assertIsNone(await whole.account_status(subject))

    async def test_forms(self) -> None:
        """It is kept as hexadecimal octets. An operator may write it as Active Directory's tools
        print it.
        """
        self.person()
        self.addCleanup(self.samba.change, f"dn: cn=greta,{USERS}\nchangetype: delete\n\n")
        provider = self.directory()
        subject = await self.found(provider, "greta")
        self.assertRegex(subject, r"\AobjectGUID:[0-9a-f]{32}\Z")
        printed = self.printed("greta")
        for text in (printed, printed.upper(), f"{{{printed}}}"):
            self.assertEqual(subject_as_typed(f"objectGUID:{text}"), subject)
        octets = bytes.fromhex(subject.partition(":")[2])
        for text in (str(UUID(bytes=octets)), octets[::-1].hex(), printed[:-1], ""):
            typed = subject_as_typed(f"objectGUID:{text}")
            self.assertIsNone(await provider.account_status(typed), text)

    async def test_principal_name_as_local_part(self) -> None:
        """The local part may be that of the principal name, with its domain."""
        self.person(userPrincipalName="g.garbo@ad.test")
        self.addCleanup(self.samba.change, f"dn: cn=greta,{USERS}\nchangetype: delete\n\n")
        localpart = {"address": "userPrincipalName", "domains": ["ad.test"]}
        provider = self.directory(attributes={"name": "cn"}, localpart=localpart)
        subject = await self.found(provider, "G.Garbo", "g.garbo")
        self.samba.change(
            f"dn: cn=greta,{USERS}\nchangetype: modify\n"
            "replace: userPrincipalName\nuserPrincipalName: garbo@ad.test\n\n"
        )
        self.assertEqual(await self.found(provider, "garbo", "garbo"), subject)
        self.assertIsNone(await self.log_in(provider, "robert", "Bobs-Passw0rd"))


class DS389Tests(DS389Case):
    """The nsUniqueId of an entry."""

    async def test_by_itself(self) -> None:
        """It is found without being configured, and stays when the entry is renamed."""
        self.add("kim")
        provider = self.directory()
        account = await self.assert_logs_in(provider, "kim")
        self.assertRegex(account.subject, r"\AnsUniqueId:[0-9a-f-]{35}\Z")
        configured = self.directory(attributes={"subject": "nsUniqueId"})
        self.assertIs(await configured.account_status(account.subject), AccountStatus.ACTIVE)
        people = ds389.PEOPLE
        self.ds.change(moved(f"uid=kim,{people}", "uid=kimberly", people))
        after = await self.assert_logs_in(provider, "kimberly", "pw-kim")
        self.assertEqual(after.subject, account.subject)
        self.assertIs(await provider.account_status(account.subject), AccountStatus.ACTIVE)
        # An account that is linked by its name is still looked at by its name.
        self.assertIs(await provider.account_status("kimberly"), AccountStatus.ACTIVE)
        self.ds.change(moved(f"uid=kimberly,{people}", "uid=kim", people))
        self.assertIsNone(await provider.account_status("kimberly"))

    async def test_required(self) -> None:
        """With a local part from a template, an id that cannot be read is an outage, not a name."""
        self.add("kim", givenName="Kim")
        provider = self.directory(localpart="{givenName}.{sn}")
        account = await self.assert_logs_in(
            provider, "kim.kim", "pw-kim", user_id="@kim.kim:example.com"
        )
        self.assertTrue(account.subject.startswith("nsUniqueId:"))
        self.ds.let_read("objectClass || uid || cn || mail || sn || givenName")
        self.addCleanup(self.ds.let_read, "*")
        with self.assertRaises(ProviderUnavailable):
            await self.log_in(provider, "kim.kim", "pw-kim")
        self.assertIn("or they cannot be read", self.logged[-1])


class SlapdTests(LDAPCase):
    """The entryUUID of an entry."""

    async def test_by_itself(self) -> None:
        """It comes first, and is text."""
        provider = self.searching(self.slapd())
        account = await self.assert_logs_in(provider, "alice", PASSWORDS["alice"])
        self.assertEqual(account.subject, f"entryUUID:{await self.entry_uuid(provider, 'alice')}")
