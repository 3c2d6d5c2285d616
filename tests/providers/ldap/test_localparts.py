"""Local parts that are made of attributes, in a real slapd."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import testing
from synapse_login_module.errors import ConfigError, InvalidCredentials, UnusableAccount
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, EmailIdentifier
from synapse_login_module.providers.ldap import LDAPProvider
from synapse_login_module.providers.ldap.localparts import Template
from synapse_login_module.providers.ldap.messages import Entry
from tests.providers.ldap.case import SEARCH, LDAPCase, person
from tests.support.slapd import PEOPLE

NAMES = "{givenName}.{sn}"
ADDRESS = {"address": "mail", "domains": ["example.com", "Example.NET"]}


def anna(uid: str, given: str = "Anna", surname: str = "Smith", **more: Any) -> str:
    """A person with two names, whose uid is something else."""
    return person(uid, **{"givenName": given, "sn": surname, **more})


class LocalpartContractTests(testing.PasswordProviderContract, LDAPCase):
    """The contract, where the local part is that of an address."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return self.searching(self.slapd(), localpart=ADDRESS)


class TemplateContractTests(testing.PasswordProviderContract, LDAPCase):
    """The contract, where the local part is made by a template that is an attribute alone."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return self.searching(self.slapd(), localpart="{sAMAccountName}")


class LocalpartTests(LDAPCase):
    """Logins and looks with such local parts."""

    def made(self, *people: str, localpart: object = NAMES, **more: Any) -> LDAPProvider:
        """A provider that makes local parts, and the slapd of these people."""
        self.server = self.slapd(*people)
        return self.searching(self.server, localpart=localpart, **more)

    def change(self, uid: str, attribute: str, value: str) -> None:
        """Give a person another value of an attribute."""
        change = f"changetype: modify\nreplace: {attribute}\n{attribute}: {value}\n"
        self.server.change(f"dn: uid={uid},{PEOPLE}\n{change}")

    async def test_template(self) -> None:
        """The user ID is made by the template; users type its local part, in any case."""
        provider = self.made(anna("x1"), anna("x2", "Otto", "von.Bismarck"), anna("x3", "A.B", "C"))
        for typed, uid, localpart in (
            ("anna.smith", "x1", "anna.smith"),
            ("Anna.SMITH", "x1", "anna.smith"),
            ("otto.von.bismarck", "x2", "otto.von.bismarck"),
            ("a.b.c", "x3", "a.b.c"),
        ):
            user_id = f"@{localpart}:example.com"
            account = await self.assert_logs_in(provider, typed, f"pw-{uid}", user_id)
            self.assertTrue(account.subject.startswith("entryUUID:"))
            for asked in (user_id, account.subject):
                status = await provider.account_status(asked)
                self.assertIs(status, AccountStatus.ACTIVE)
            await self.assert_rejected(provider, typed)
        for unknown in ("x1", "anna", "anna.", ".smith", "anna.smit", "smith.anna", "anna..smith"):
            self.assertIsNone(await self.log_in(provider, unknown, "pw-x1"), unknown)
            self.assertIsNone(await provider.account_status(f"@{unknown}:example.com"), unknown)

    async def test_text_around(self) -> None:
        """Text before and after the attributes is part of the name, in lower case."""
        provider = self.made(anna("x1", employeeNumber="7"), localpart="U-{employeeNumber}.{sn}.t")
        account = await self.assert_logs_in(
            provider, "u-7.smith.T", "pw-x1", "@u-7.smith.t:example.com"
        )
        self.assertIs(await provider.account_status(account.user_id), AccountStatus.ACTIVE)
        for typed in ("7.smith.t", "u-7.smith", "u-.smith.t", "u-7..t"):
            self.assertIsNone(await self.log_in(provider, typed, "pw-x1"), typed)

    async def test_address(self) -> None:
        """The local part of an address counts if its domain is one of those configured."""
        provider = self.made(
            anna("x1", mail="Anna@Example.com"),
            anna("x2", mail=["eve@elsewhere.example", "eve@example.net"]),
            anna("x3", mail="mallory@elsewhere.example"),
            anna("x4", mail="two@example.com@elsewhere.example"),
            anna("x5", mail=["twice@example.com", "TWICE@example.net"]),
            localpart=ADDRESS,
        )
        await self.assert_logs_in(provider, "anna", "pw-x1")
        await self.assert_logs_in(provider, "eve", "pw-x2")
        await self.assert_logs_in(provider, "twice", "pw-x5")
        for typed in ("mallory", "two", "two@example.com", "x1", "@example.com"):
            self.assertIsNone(await self.log_in(provider, typed, "pw-x3"), typed)
        address = EmailIdentifier("mallory@elsewhere.example")
        self.assertIsNone(await self.log_in(provider, address, "pw-x3"))
        self.assertEqual(
            self.logged,
            [
                "LDAP: mallory@elsewhere.example is taken for unknown: its entry has no mail in"
                " example.com, example.net"
            ],
        )

    async def test_principal_name(self) -> None:
        """So does that of a userPrincipalName."""
        provider = self.made(
            localpart={"address": "userPrincipalName", "domains": ["ad.example.com"]}
        )
        await self.assert_logs_in(provider, "A.Liddell", "wonderland", "@a.liddell:example.com")

    async def test_filter(self) -> None:
        """A filter says by which name users log in; the user ID is made as before. It is accepted
        as well, since clients give it, unless it is another user's name for logging in.
        """
        provider = self.made(
            anna("x1"),
            anna("x2", "Bob", "X1"),
            anna("eve.doe", "Ann", "Other"),
            anna("x4", "Eve", "Doe"),
            filter="(uid={localpart})",
            group_filter="(!(title=left))",
        )
        for typed in ("x1", "anna.smith", "ANNA.Smith"):
            account = await self.assert_logs_in(provider, typed, "pw-x1", "@anna.smith:example.com")
        for asked in (account.user_id, account.subject):
            self.assertIs(await provider.account_status(asked), AccountStatus.ACTIVE)
        self.assertIsNone(await provider.account_status("@x1:example.com"))
        await self.assert_logs_in(provider, "eve.doe", "pw-eve.doe", "@ann.other:example.com")
        await self.assert_logs_in(provider, "x4", "pw-x4", "@eve.doe:example.com")
        await self.assert_rejected(provider, "eve.doe", "pw-x4")
        for unknown in ("x9", "anna", "smith.anna"):
            self.assertIsNone(await self.log_in(provider, unknown, "pw-x1"), unknown)
        self.server.change(f"dn: uid=x1,{PEOPLE}\nchangetype: modify\nadd: title\ntitle: left\n")
        for typed in ("x1", "anna.smith"):
            self.assertIsNone(await self.log_in(provider, typed, "pw-x1"), typed)

    async def test_same_name(self) -> None:
        """Of two entries that make one local part, neither is the other: by that name both are
        unknown, and by other names each has its own subject.
        """
        people = anna("x1", mail="x1@example.com"), anna("x2", mail="x2@example.com")
        provider = self.made(*people)
        for uid in ("x1", "x2"):
            self.assertIsNone(await self.log_in(provider, "anna.smith", f"pw-{uid}"))
        problem = "is taken for unknown: there are several entries"
        self.assertEqual(self.logged, [f"LDAP: @anna.smith:example.com {problem}"] * 2)
        accounts = [
            await self.assert_logs_in(
                provider,
                EmailIdentifier(f"{uid}@example.com"),
                f"pw-{uid}",
                "@anna.smith:example.com",
            )
            for uid in ("x1", "x2")
        ]
        self.assertEqual(len({account.subject for account in accounts}), 2)
        # Two ways to divide one name may find two entries, too.
        provider = self.made(anna("x1", "a", "b.c"), anna("x2", "a.b", "c"))
        for uid in ("x1", "x2"):
            self.assertIsNone(await self.log_in(provider, "a.b.c", f"pw-{uid}"))

    async def test_renamed(self) -> None:
        """A person who is renamed stays the same account, and who gets the name is another."""
        provider = self.made(anna("x1"))
        before = await self.assert_logs_in(
            provider, "anna.smith", "pw-x1", "@anna.smith:example.com"
        )
        self.change("x1", "sn", "Jones")
        after = await self.assert_logs_in(
            provider, "anna.jones", "pw-x1", "@anna.jones:example.com"
        )
        self.assertEqual(after.subject, before.subject)
        self.assertIs(await provider.account_status(before.subject), AccountStatus.ACTIVE)
        self.server.change(anna("x2").replace("\n", "\nchangetype: add\n", 1))
        other = await self.assert_logs_in(
            provider, "anna.smith", "pw-x2", "@anna.smith:example.com"
        )
        self.assertNotEqual(other.subject, before.subject)

    async def test_invalid(self) -> None:
        """A name that cannot be in a user ID is refused after the right password, with a line."""
        provider = self.made(
            anna("x1", "Anna Maria"),
            anna("x2", "Zoë"),
            anna("x3", "\u212aay"),
            filter="(uid={localpart})",
        )
        for uid, name in (
            ("x1", "Anna Maria.Smith"),
            ("x2", "Zoë.Smith"),
            ("x3", "\u212aay.Smith"),
        ):
            with self.assertRaises(InvalidCredentials) as raised:
                await self.log_in(provider, uid, f"pw-{uid}")
            self.assertEqual(raised.exception.reason, "bad_user_id")
            line = f"ldap: {name!r} cannot log in: its name makes no user ID"
            self.assertEqual(self.logged[-1], line)

    async def test_several_values(self) -> None:
        """Of several names of an entry, the one that was typed counts; without that, it is
        unknown.
        """
        provider = self.made(anna("x1", mail="x1@example.com", sn=["Smith", "Jones"]))
        for typed in ("anna.smith", "anna.jones"):
            await self.assert_logs_in(provider, typed, "pw-x1")
        by_address = await self.log_in(provider, EmailIdentifier("x1@example.com"), "pw-x1")
        self.assertIsNone(by_address)
        self.assertIn(f"its entry has several values of {NAMES}", self.logged[-1])

    async def test_lacking(self) -> None:
        """An entry that lacks an attribute is no account, by whatever name."""
        provider = self.made(person("x1", mail="x1@example.com"), attributes={"name": "uid"})
        for name in ("x1", ".x1", EmailIdentifier("x1@example.com")):
            self.assertIsNone(await self.log_in(provider, name, "pw-x1"))

    async def test_no_id(self) -> None:
        """An entry without an immutable id cannot log in: no name is a subject."""
        provider = self.made(anna("x1"))
        provider._naming._subjects.attributes = ("objectGUID", "nsUniqueId")
        with self.assertRaises(UnusableAccount):
            await self.log_in(provider, "anna.smith", "pw-x1")
        self.assertEqual(
            self.logged,
            [
                "LDAP: an entry has none of objectGUID, nsUniqueId, or they cannot be read"
                " (attributes.subject): 'Anna.Smith' cannot log in"
            ],
        )

    async def test_configured_id(self) -> None:
        """Another id can be configured."""
        provider = self.made(
            anna("x1", employeeNumber="7"), attributes={"subject": "employeeNumber"}
        )
        account = await self.log_in(provider, "anna.smith", "pw-x1")
        assert isinstance(account, Account)
        self.assertEqual(account.subject, "employeenumber:7")


class TemplateTests(SynchronousTestCase):
    """Templates, and what they are divided into."""

    def test_bounds(self) -> None:
        """A name that can be divided in too many ways is nobody's, and costs no time."""
        template = Template("{a}.{b}.{c}.{d}")
        self.assertIsNotNone(template.makes("a.b.c.d.e"))
        self.assertIsNone(template.makes("a" + ".a" * 120))
        # Ways that lead nowhere count too. Here are 300,000 of them, which took some ten seconds.
        began = time.process_time()
        for text in ("{a}.{b}.{c}.{d}_{e}", "{a}.{b}.{c}.{d}_x"):
            self.assertIsNone(Template(text).makes("." * 250))
        self.assertLess(time.process_time() - began, 1)
        entry = Entry(b"", {each: [b"%d" % n for n in range(100)] for each in "abcd"})
        self.assertEqual(len(template.names(entry)), 16)
        self.assertEqual(len(Template("{a}").names(entry)), 100)

    def test_time(self) -> None:
        """A name that could be divided in very many ways, of which none fits, takes no time."""
        template = Template("{a}.{b}.{c}.{d}.{e}-x")
        began = time.process_time()
        self.assertIsNone(template.makes("a." * 120))
        self.assertLess(time.process_time() - began, 1.0)

    def test_mistakes(self) -> None:
        """A local part has attributes, some text between them, and an id that it is not."""
        good = {**SEARCH, "servers": ["ldap://127.0.0.1"]}
        for more, path in (
            ({"localpart": ""}, "localpart"),
            ({"localpart": "alice"}, "localpart"),
            ({"localpart": "{uid"}, "localpart"),
            ({"localpart": "{}"}, "localpart"),
            ({"localpart": "{given name}.{sn}"}, "localpart"),
            ({"localpart": "{givenName}{sn}"}, "localpart"),
            ({"localpart": "{sn}.{SN}"}, "localpart"),
            ({"localpart": "{givenName} {sn}"}, "localpart"),
            ({"localpart": "{givenName}@{sn}"}, "localpart"),
            ({"localpart": "ä{sn}"}, "localpart"),
            ({"localpart": 7}, "localpart"),
            ({"localpart": ["{sn}"]}, "localpart"),
            ({"localpart": {"address": "mail"}}, "localpart.domains"),
            ({"localpart": {"address": "mail", "domains": []}}, "localpart.domains"),
            ({"localpart": {"address": "mail", "domains": ["a@b"]}}, "localpart.domains.0"),
            ({"localpart": {"address": "m ail", "domains": ["a"]}}, "localpart.address"),
            ({"localpart": {**ADDRESS, "more": 1}}, "localpart.more"),
            ({"localpart": NAMES, "attributes": {"uid": "uid"}}, "localpart"),
            ({"localpart": NAMES, "attributes": {"subject": "SN"}}, "attributes.subject"),
            ({"localpart": NAMES, "bind_dn_template": f"uid={{localpart}},{PEOPLE}"}, "localpart"),
        ):
            with self.assertRaises(ConfigError, msg=str(more)) as raised:
                LDAPProvider.parse_config({**good, **more}, Path())
            self.assertEqual(raised.exception.path, path, more)
