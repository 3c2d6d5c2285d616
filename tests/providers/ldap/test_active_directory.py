"""Accounts of a real Active Directory, Samba's."""

from __future__ import annotations

from functools import cache

from synapse_login_module.model import AccountStatus, EmailIdentifier
from synapse_login_module.providers.ldap import LDAPProvider
from tests.providers.ldap.case import LDAPCase
from tests.support.samba import READER, READER_PASSWORD, SUFFIX, USERS, Samba, person

PASSWORDS = {"bob": "Bobs-Passw0rd", "otto": "Ottos-Passw0rd", "dora": "Doras-Passw0rd"}
MANY = 70
"""How many entries have one address: more than the size limit and the bound on messages."""

PEOPLE = (
    # Each is known to Active Directory by the other's name too.
    person("bob", PASSWORDS["bob"], userPrincipalName="robert@other.test", mail="bob@other.test"),
    person("otto", PASSWORDS["otto"], userPrincipalName="bob@other.test", mail="otto@other.test"),
    person("dora", PASSWORDS["dora"], userAccountControl="514"),
    f"dn: cn=Bob elsewhere,{USERS}\nchangetype: add\n"
    "objectClass: contact\nmail: bob@other.test\n\n",
    *(person(f"m{each}", "Many-Passw0rd", mail="many@other.test") for each in range(MANY)),
)


@cache
def _server() -> Samba:
    """The one for this module, which ends with the process."""
    server = Samba()
    server.start()
    server.change("".join(PEOPLE))
    return server


class ActiveDirectoryCase(LDAPCase):
    """A test case with one domain controller for all of its class."""

    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        self.samba = _server()
        self.secrets |= {READER_PASSWORD, *PASSWORDS.values()}

    def directory(self, **more: object) -> LDAPProvider:
        """A provider as the documentation has it."""
        return self.reached_by(
            **{
                "attributes": {"uid": "sAMAccountName", "name": "displayName"},
                "disabled_filter": "active_directory",
                **more,
            }
        )

    def reached_by(self, **more: object) -> LDAPProvider:
        """A provider with the keys by which the domain controller is reached."""
        return self.provider(
            {
                "servers": [self.samba.url],
                "start_tls": False,
                "allow_plaintext": True,
                "bind_dn": READER,
                "bind_password": READER_PASSWORD,
                "base": SUFFIX,
                **more,
            }
        )


class ActiveDirectoryTests(ActiveDirectoryCase):
    """Logging in with the accounts of a domain."""

    async def test_name_in_principal_name(self) -> None:
        """A user whose principal name has the name of another does not log in as the other."""
        for template in ("{localpart}@other.test", "AD\\{localpart}"):
            provider = self.directory(bind_dn_template=template)
            await self.assert_rejected(provider, "bob", PASSWORDS["otto"])
            await self.assert_logs_in(provider, "bob", PASSWORDS["bob"])
            await self.assert_logs_in(provider, "otto", PASSWORDS["otto"])

    async def test_principal_names(self) -> None:
        """Users log in by the first half of their principal name, whatever else they are called,
        and are looked at by what their user ID is made from.
        """
        for template in (None, "{localpart}@other.test"):
            provider = self.directory(
                filter="(userPrincipalName={localpart}@other.test)", bind_dn_template=template
            )
            bob = await self.assert_logs_in(
                provider, "robert", PASSWORDS["bob"], "@bob:example.com"
            )
            otto = await self.assert_logs_in(
                provider, "bob", PASSWORDS["otto"], "@otto:example.com"
            )
            await self.assert_rejected(provider, "bob", PASSWORDS["bob"])
            for account in (bob, otto):
                self.assertTrue(account.subject.startswith("objectGUID:"))
                for asked in (account.subject, account.user_id):
                    status = await provider.account_status(asked)
                    self.assertIs(status, AccountStatus.ACTIVE, asked)
            self.assertIsNone(await provider.account_status("@robert:example.com"))

    async def test_email(self) -> None:
        """An address is the user's, not that of a contact, whatever the user's names are."""
        bob, otto = EmailIdentifier("bob@other.test"), EmailIdentifier("otto@other.test")
        for more in ({}, {"filter": "(userPrincipalName={localpart}@other.test)"}):
            provider = self.directory(**more, bind_dn_template="{localpart}@other.test")
            await self.assert_logs_in(provider, bob, PASSWORDS["bob"], "@bob:example.com")
            await self.assert_logs_in(provider, otto, PASSWORDS["otto"], "@otto:example.com")
            await self.assert_rejected(provider, bob, PASSWORDS["otto"])

    async def test_disabled(self) -> None:
        """The right password of a disabled account is right, and its status is known."""
        provider = self.directory()
        dora = await self.assert_logs_in(provider, "dora", PASSWORDS["dora"])
        self.assertIs(dora.status, AccountStatus.DEACTIVATED)
        await self.assert_rejected(provider, "dora")
        status = await provider.account_status("@dora:example.com")
        self.assertIs(status, AccountStatus.DEACTIVATED)

    async def test_many_entries(self) -> None:
        """Samba ignores the size limit, so a search that exceeds it is abandoned. The address is
        unknown then, and the same connections are used again.
        """
        provider = self.directory()
        await self.assert_logs_in(provider, "bob", PASSWORDS["bob"])
        many = EmailIdentifier("many@other.test")
        connections = set(provider._directory._connections)
        for _ in range(3):
            self.assertIsNone(await self.log_in(provider, many, "Many-Passw0rd"))
            await self.assert_logs_in(provider, "bob", PASSWORDS["bob"])
        self.assertEqual(set(provider._directory._connections), connections)
        expected = "LDAP: many@other.test is taken for unknown: there are several entries"
        self.assertEqual(self.logged, [expected] * 3)

    async def test_escaped_octets(self) -> None:
        """A filter may name an object by the octets of its id."""
        account = await self.log_in(self.directory(), "bob", PASSWORDS["bob"])
        assert account is not None
        guid = bytes.fromhex(account.subject.partition(":")[2])
        escaped = "".join(f"\\{octet:02x}" for octet in guid)
        provider = self.directory(group_filter=f"(objectGUID={escaped})")
        await self.assert_logs_in(provider, "bob", PASSWORDS["bob"])
        self.assertIsNone(await self.log_in(provider, "otto", PASSWORDS["otto"]))
