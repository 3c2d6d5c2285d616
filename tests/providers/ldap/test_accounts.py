"""Accounts of a real slapd: which are known, which log in, and by which names."""

from __future__ import annotations

from collections import Counter

from ldaptor.protocols import pureldap  # type: ignore[import-untyped]
from twisted.application.service import IService
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from zope.interface.verify import verifyClass, verifyObject

from synapse_login_module import testing
from synapse_login_module.audit import AuditLog
from synapse_login_module.errors import (
    ConfigError,
    InvalidCredentials,
    ProviderUnavailable,
    UnusableAccount,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import (
    Account,
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
)
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.providers.ldap import LDAPProvider
from synapse_login_module.providers.ldap.filters import filled, for_any_name, parsed
from synapse_login_module.providers.ldap.names import filled_name
from synapse_login_module.providers.ldap.result_codes import INVALID_CREDENTIALS, SUCCESS
from synapse_login_module.standalone.server import LoginServer
from synapse_login_module.tokens.format import KEY_SIZE, KeyRing
from synapse_login_module.web.site import LoginSite
from tests.providers.ldap.case import SEARCH, LDAPCase, person, user
from tests.providers.ldap.wire import FakeLDAP, Listener, Proxy
from tests.support.slapd import GROUP_DN, PEOPLE, READER_DN, READER_PASSWORD, SUFFIX

ODD_NAMES = (
    "*",
    "a*",
    "*)(uid=*",
    "a)(|(uid=*",
    "alice)(objectClass=*",
    "*)(mail=*",
    "a)(|(mail=*",
    "alice\0",
    "\0",
    "alice\\",
    "al\\69ce",
    'alice,"+<>;=',
    f"alice,{PEOPLE}",
    " alice",
    "alice ",
    "#alice",
    "\uff41lice",
    "\u0430lice",
    "alice\udc80",
    "a" * 10_000,
    "",
)
"""Names that must find no account, by any search."""

SPECIALS = (
    ",",
    "+",
    '"',
    "\\",
    "<",
    ">",
    ";",
    "=",
    "#a",
    " b",
    "c ",
    " ",
    "a\0b",
    'x,+"\\<>;= y',
    "uid=alice,ou=people",
    "ü\u2028é",
)
"""What a name can hold that means something in a distinguished name."""


class SearchContractTests(
    testing.PasswordProviderContract,
    testing.FindsAccountsContract,
    testing.DiagnosableContract,
    LDAPCase,
):
    """The contract, for a search by an account and a bind as the user."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return self.searching(self.slapd())


class TemplateContractTests(
    testing.PasswordProviderContract,
    testing.FindsAccountsContract,
    testing.DiagnosableContract,
    LDAPCase,
):
    """The contract, for a template that makes the user's DN."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return templated(self)


def templated(case: LDAPCase, *people: str, **more: object) -> LDAPProvider:
    """A provider with a template, and a directory that allows anonymous searches."""
    slapd = case.slapd(*people, anonymous=True)
    return case.provider(
        {
            "servers": [slapd.url],
            "start_tls": False,
            "bind_dn_template": f"uid={{localpart}},{PEOPLE}",
            **more,
        }
    )


class InterfaceTests(LDAPCase):
    """The interfaces of the provider."""

    def test_interfaces(self) -> None:
        """The class is a plugin, and an instance a provider and a service."""
        self.assertTrue(IPluginClass.providedBy(LDAPProvider))
        self.assertTrue(verifyClass(IPasswordProvider, LDAPProvider))
        provider = self.provider({**SEARCH, "servers": ["ldap://localhost"]})
        self.assertTrue(verifyObject(IService, provider))

    async def test_two_in_one_parent(self) -> None:
        """Two providers of one name run in one parent service, and stop with it."""
        listener = Listener()
        self.addCleanup(listener.stop)
        slapds = [self.slapd(), self.slapd()]
        proxies = [Proxy(slapd.port) for slapd in slapds]
        for proxy in proxies:
            self.addCleanup(proxy.stop)
        providers = [self.provider({**SEARCH, "servers": [proxy.url]}) for proxy in proxies]
        site = LoginSite(Resource(), Clock())
        parent = LoginServer(
            providers, [], [site], AuditLog(), Counter(), KeyRing({1: bytes(KEY_SIZE)})
        )
        parent.startService()
        for provider in providers:
            await self.assert_logs_in(provider, "alice")
        await parent.stopService()
        for proxy in proxies:
            await proxy.empty()
        self.assertIn("stopping", await self.unavailable(providers[0]))


class LoginTests(LDAPCase):
    """Logging in by name, e-mail address and telephone number."""

    async def test_account(self) -> None:
        """A login returns all that the entry has."""
        provider = self.searching(self.slapd())
        self.assertEqual(
            await self.log_in(provider, "alice"),
            Account(
                "@alice:example.com",
                "Alice Liddell",
                ("Alice@Example.com", "alice@example.org"),
                status=AccountStatus.ACTIVE,
                subject=f"entryUUID:{await self.entry_uuid(provider, 'alice')}",
            ),
        )

    async def test_attributes(self) -> None:
        """The attributes to read are configured; a missing one is no error."""
        odd = person("x1", employeeNumber="bob", displayName="Bob the Builder")
        provider = self.searching(
            self.slapd(odd),
            attributes={
                "uid": "employeeNumber",
                "mail": None,
                "name": "displayName",
                "subject": "uid",
            },
        )
        account = await self.log_in(provider, "bob", "pw-x1")
        bob = Account(
            "@bob:example.com", "Bob the Builder", status=AccountStatus.ACTIVE, subject="uid:x1"
        )
        self.assertEqual(account, bob)
        self.assertIsNone(await self.log_in(provider, EmailIdentifier("x1@example.com"), "pw-x1"))
        bare = self.searching(self.slapd(odd), attributes={"uid": "uid", "name": "title"})
        account = await self.log_in(bare, "x1")
        assert account is not None
        self.assertEqual((account.user_id, account.display_name), ("@x1:example.com", None))
        self.assertEqual(account.emails, ())

    async def test_case(self) -> None:
        """The user ID is in lower case, for any spelling by the client and the directory."""
        provider = self.searching(self.slapd(person("Bob", "can-we-fix-it")))
        for typed in ("bob", "Bob", "BOB"):
            await self.assert_logs_in(provider, typed, "can-we-fix-it", "@bob:example.com")
        for asked in ("@bob:example.com", "@Bob:example.com"):
            self.assertIs(await provider.account_status(asked), AccountStatus.ACTIVE)

    async def test_email(self) -> None:
        """A login by any of the addresses, in any case, succeeds; a wrong password is wrong."""
        provider = self.searching(self.slapd(person("bob", mail="bob@example.com")))
        for address in ("alice@example.com", "alice@example.org"):
            alice = EmailIdentifier(address)
            await self.assert_logs_in(provider, alice, "wonderland", "@alice:example.com")
            await self.assert_rejected(provider, alice)
            await self.assert_rejected(provider, alice, "can-we-fix-it")
        for address in ("carol@example.com", "alice@example.com\0", *ODD_NAMES):
            self.assertIsNone(await self.log_in(provider, EmailIdentifier(address), "wonderland"))

    async def test_phone(self) -> None:
        """A telephone number is found with and without the plus and with spaces."""
        provider = self.searching(self.slapd(person("bob", mobile="4930901820")))
        for number, password, user_id in (
            ("447700900123", "wonderland", "@alice:example.com"),
            ("4930901820", "can-we-fix-it", "@bob:example.com"),
        ):
            await self.assert_logs_in(provider, PhoneIdentifier(number), password, user_id)
            await self.assert_rejected(provider, PhoneIdentifier(number))
        for number in ("447700900124", "7700900123", *ODD_NAMES):
            self.assertIsNone(await self.log_in(provider, PhoneIdentifier(number), "wonderland"))

    async def test_template_and_email(self) -> None:
        """With a template, addresses and numbers are searched below the base, if there is one."""
        email, phone = EmailIdentifier("alice@example.com"), PhoneIdentifier("447700900123")
        provider = templated(self, base=PEOPLE)
        for identifier in (email, phone):
            await self.assert_logs_in(provider, identifier, "wonderland", "@alice:example.com")
            await self.assert_rejected(provider, identifier)
        without = templated(self)
        for identifier in (email, phone):
            self.assertIsNone(await self.log_in(without, identifier, "wonderland"))

    async def test_template_and_account(self) -> None:
        """With a template, a directory without anonymous searches is searched with ``bind_dn``."""
        slapd = self.slapd()
        provider = self.provider(
            {
                "servers": [slapd.url],
                "start_tls": False,
                "bind_dn_template": f"uid={{localpart}},{PEOPLE}",
                "bind_dn": READER_DN,
                "bind_password": READER_PASSWORD,
            }
        )
        await self.assert_logs_in(provider, "alice")
        await self.assert_rejected(provider, "alice")

    async def test_filter(self) -> None:
        """The filter decides which entry a name means, as in Active Directory."""
        for wanted, typed in (
            ("(userPrincipalName={localpart}@ad.example.com)", "a.liddell"),
            ("(sAMAccountName={localpart})", "alice"),
            ("(&(objectClass=inetOrgPerson)(|(uid={localpart})(cn={localpart})))", "alice"),
        ):
            provider = self.searching(
                self.slapd(), filter=wanted, attributes={"uid": "sAMAccountName"}
            )
            await self.assert_logs_in(provider, typed, "wonderland", "@alice:example.com")
            await self.assert_rejected(provider, typed)
            self.assertIsNone(await self.log_in(provider, "nobody"))

    async def test_principal_name(self) -> None:
        """A template that is no distinguished name does not say whose password is tried: that is
        the entry's that was found. The log says so.
        """
        people = person("bob"), person("otto", userPrincipalName="bob@other.test")
        provider = self.searching(self.slapd(*people), bind_dn_template="{localpart}@other.test")
        self.assertIn("users bind by the name of the entry that is found", self.logged[0])
        await self.assert_logs_in(provider, "bob")
        await self.assert_rejected(provider, "bob", "pw-otto")
        email = EmailIdentifier("alice@example.com")
        await self.assert_logs_in(provider, email, "wonderland", "@alice:example.com")

    async def test_name_of_another_kind(self) -> None:
        """An account that a filter finds by another name has no status under that name."""
        provider = self.searching(self.slapd(), filter="(|(uid={localpart})(sn={localpart}))")
        other = self.searching(
            self.slapd(person("x1", sn="bob")), filter="(|(uid={localpart})(sn={localpart}))"
        )
        self.assertIs(await provider.account_status("@alice:example.com"), AccountStatus.ACTIVE)
        await self.assert_logs_in(other, "bob", "pw-x1", "@x1:example.com")
        self.assertIsNone(await other.account_status("@bob:example.com"))

    async def test_group(self) -> None:
        """Only members of the group are known; one who leaves it is gone."""
        group = f"dn: {GROUP_DN}\nobjectClass: groupOfNames\ncn: matrix\n"
        members = "".join(f"member: uid={each},{PEOPLE}\n" for each in ("alice", "nobody-at-all"))
        for template in (False, True):
            slapd = self.slapd(person("bob", mail="bob@example.com"), anonymous=True)
            slapd.change(f"{group}{members}".replace("\nobj", "\nchangetype: add\nobj", 1))
            config = {
                "servers": [slapd.url],
                "start_tls": False,
                "base": PEOPLE,
                "group_filter": f"(memberOf={GROUP_DN})",
            }
            if template:
                config["bind_dn_template"] = f"uid={{localpart}},{PEOPLE}"
            provider = self.provider(config)
            await self.assert_logs_in(provider, "alice")
            await self.assert_rejected(provider, "alice")
            self.assertIsNone(await self.log_in(provider, "bob"))
            bob = EmailIdentifier("bob@example.com")
            self.assertIsNone(await self.log_in(provider, bob, "can-we-fix-it"))
            self.assertIsNone(await provider.account_status("@bob:example.com"))
            self.assertIs(await provider.account_status("@alice:example.com"), AccountStatus.ACTIVE)
            slapd.change(
                f"dn: {GROUP_DN}\nchangetype: modify\ndelete: member\nmember: uid=alice,{PEOPLE}\n"
            )
            self.assertIsNone(await provider.account_status("@alice:example.com"))
            self.assertIsNone(await self.log_in(provider, "alice"))

    async def test_base(self) -> None:
        """Entries that are not below the base are not known."""
        elsewhere = person("bob", below=f"ou=others,{SUFFIX}")
        provider = self.searching(self.slapd(elsewhere))
        self.assertIsNone(await self.log_in(provider, "bob"))
        self.assertIsNone(await provider.account_status("@bob:example.com"))

    async def test_several_entries(self) -> None:
        """A name that several entries have is unknown, and the log says why. The account is not
        gone: with a second entry of its name, a user would lose all sessions.
        """
        twin = person("bob", mail="twin@example.com", below=f"ou=others,{SUFFIX}")
        slapd = self.slapd(person("bob", mail="twin@example.com"), twin)
        provider = self.searching(slapd, base=SUFFIX)
        for identifier in (user("bob"), EmailIdentifier("twin@example.com")):
            self.assertIsNone(await self.log_in(provider, identifier, "can-we-fix-it"))
            expected = f"LDAP: {identifier} is taken for unknown: there are several entries"
            self.assertIn(expected, self.logged)
        for subject in ("@bob:example.com", "bob"):
            with self.assertRaisesRegex(UnusableAccount, "several entries have the name bob"):
                await provider.account_status(subject)
        await self.assert_logs_in(provider, "alice")

    async def test_impossible_names(self) -> None:
        """An entry whose name makes no user ID is refused after the right password, in the time of
        a wrong one, and the log says why.
        """
        names = ("al ice", "ålice", "\u212aate", "a@b", "a:b", "a" * 300, "a!")
        for number, uid in enumerate(names):
            entry = person(uid, "pw-odd", rdn=f"cn={number}", cn=str(number), mail="o@example.com")
            hashing = testing.FakeHashing()
            config = {**SEARCH, "servers": [self.slapd(entry).url]}
            provider = self.provider(config, hashing)
            typed: list[str | Identifier] = [EmailIdentifier("o@example.com")]
            if uid in ("ålice", "\u212aate", "a!"):
                typed.append(uid)
                # slapd treats the Kelvin sign as a "k", so it is the same account.
                typed += ["kate"] if uid == "\u212aate" else []
            else:
                self.assertIsNone(await self.log_in(provider, uid, "pw-odd"), uid)
            for name in typed:
                before = len(self.logged)
                for password, reason in (("x", "wrong_password"), ("pw-odd", "bad_user_id")):
                    with self.assertRaises(InvalidCredentials) as raised:
                        await self.log_in(provider, name, password)
                    self.assertEqual(raised.exception.reason, reason)
                    self.assertEqual(hashing.decoys.pop(), password)
                self.assertEqual(
                    self.logged[before:],
                    [f"ldap: {uid!r} cannot log in: its name makes no user ID"],
                )

    async def test_no_name(self) -> None:
        """An entry without the attribute is unknown."""
        entry = person("bob", mail="bob@example.com")
        provider = self.searching(
            self.slapd(entry), filter="(cn=The {localpart})", attributes={"uid": "employeeNumber"}
        )
        self.assertIsNone(await self.log_in(provider, "bob"))
        self.assertIn("its entry has no employeeNumber", self.logged[-1])

    async def test_several_names(self) -> None:
        """An entry with several names is found by each, and not by its e-mail address."""
        entry = person("bob", mail="bob@example.com").replace("uid: bob", "uid: bob\nuid: Rob")
        provider = self.searching(self.slapd(entry))
        await self.assert_logs_in(provider, "bob")
        await self.assert_logs_in(provider, "rob", "can-we-fix-it")
        self.assertIs(await provider.account_status("@rob:example.com"), AccountStatus.ACTIVE)
        bob = EmailIdentifier("bob@example.com")
        self.assertIsNone(await self.log_in(provider, bob, "can-we-fix-it"))
        self.assertIn("several values of uid", self.logged[-1])

    async def test_decoy(self) -> None:
        """A wrong password hashes a decoy, as an unknown user does, and a right one does not."""
        hashing = testing.FakeHashing()
        provider = self.provider({**SEARCH, "servers": [self.slapd().url]}, hashing)
        await self.assert_logs_in(provider, "alice")
        self.assertIsNone(await self.log_in(provider, "nobody", "x"))
        self.assertEqual(hashing.decoys, [])
        for password in ("looking-glass", ""):
            await self.assert_rejected(provider, "alice", password)
        self.assertEqual(hashing.decoys, ["looking-glass", ""])

    async def test_no_password(self) -> None:
        """An empty password, or one that could be read as empty, is never sent: the directory would
        accept it.
        """
        proxy = Proxy(self.slapd().port)
        self.addCleanup(proxy.stop)
        provider = self.provider({**SEARCH, "servers": [proxy.url]})
        for password in ("", "\0", "\0wonderland"):
            await self.assert_rejected(provider, "alice", password)
        self.assertEqual(len(proxy.lines), 1)
        self.assertNotIn(f"uid=alice,{PEOPLE}".encode(), proxy.lines[0].received)

    async def test_kept_connections(self) -> None:
        """All logins use one connection for searches, one for binds, and one for looks."""
        proxy = Proxy(self.slapd(person("bob")).port)
        self.addCleanup(proxy.stop)
        provider = self.provider({**SEARCH, "servers": [proxy.url]})
        for _ in range(3):
            await self.assert_logs_in(provider, "alice")
            await self.assert_rejected(provider, "alice")
            await self.assert_logs_in(provider, "bob")
            await provider.account_status("@bob:example.com")
        self.assertEqual(len(proxy.lines), 3)
        searching, binding, looking = proxy.lines
        for line in (searching, looking):
            self.assertEqual(line.received.count(READER_PASSWORD.encode()), 1)
            self.assertNotIn(b"wonderland", line.received)
        self.assertNotIn(READER_PASSWORD.encode(), binding.received)

    async def test_long_password(self) -> None:
        """A password of any length and any characters is right or wrong, and not an error."""
        odd = "ö\u2028\U0001f916" * 300
        self.secrets.add(odd)
        provider = self.searching(self.slapd(person("bob", odd)))
        await self.assert_logs_in(provider, "bob", odd)
        for password in (odd[:-1], odd + "x", "x" * 60_000, "\udc80", "\0"):
            await self.assert_rejected(provider, "bob", password)


class InjectionTests(LDAPCase):
    """Names with characters that are special in a filter or a distinguished name."""

    async def test_search(self) -> None:
        """An odd name finds no account by a search, and has no status."""
        provider = self.searching(self.slapd())
        for name in ODD_NAMES:
            self.assertIsNone(await self.log_in(provider, name, "wonderland"), repr(name))
            self.assertIsNone(await provider.account_status(f"@{name}:example.com"), repr(name))

    async def test_template(self) -> None:
        """An odd name finds no account by a template, and has no status."""
        provider = templated(self)
        for name in ODD_NAMES:
            self.assertIsNone(await self.log_in(provider, name, "wonderland"), repr(name))
            self.assertIsNone(await provider.account_status(f"@{name}:example.com"), repr(name))

    async def test_template_specials(self) -> None:
        """Characters that Matrix allows in a name, and that are special in a DN, are escaped."""
        names = ("a+b=c", "=", "+cn=x", "a.b_c-d/e", "-x")
        people = [
            person(name, rdn="uid=" + "".join(f"\\{ord(each):02x}" for each in name))
            for name in names
        ]
        provider = templated(self, *people)
        for name in names:
            await self.assert_logs_in(provider, name)
            await self.assert_rejected(provider, name)
            status = await provider.account_status(f"@{name}:example.com")
            self.assertIs(status, AccountStatus.ACTIVE)

    async def test_specials_in_entries(self) -> None:
        """The bind uses the entry's DN as the server spells it, with any characters."""
        rdn = 'cn=O\\, \\"Mad\\" \\+ H\\=\\<x\\>\\;\\\\ \\#'
        entry = person("hatter", rdn=rdn, cn='O, "Mad" + H=<x>;\\ #')
        provider = self.searching(self.slapd(entry))
        await self.assert_logs_in(provider, "hatter")
        await self.assert_rejected(provider, "hatter")

    async def test_escaped_names(self) -> None:
        """slapd finds the entry of a name with special characters by the escaped name."""
        people = [
            person(
                f"s{number}",
                rdn="cn=" + "".join(f"\\{octet:02x}" for octet in special.encode()),
            ).replace(f"cn: The s{number}\n", "")
            for number, special in enumerate(SPECIALS)
        ]
        provider = self.searching(self.slapd(*people))
        for number, special in enumerate(SPECIALS):
            name = filled_name(f"cn={{localpart}},{PEOPLE}", special)
            for password, code in ((f"pw-s{number}", SUCCESS), ("x", INVALID_CREDENTIALS)):
                result = await provider._directory.bind(name, password)
                self.assertEqual(result.code, code, (special, name, str(result)))

    async def test_values_in_filters(self) -> None:
        """slapd reads a name in a filter as a value, and nothing else."""
        provider = self.searching(self.slapd(), filter="(|(uid={localpart})(sn={localpart}))")
        for name in ODD_NAMES:
            template = provider._config.user_filter
            search = provider._searches.for_identifier(user("alice"))
            assert search is not None
            odd = type(search)(search.base, True, filled(template, name), search.attributes)
            (result,) = await provider._directory.search(odd)
            # slapd prepares strings (RFC 4518), so some names are equal to alice.
            same = name in (" alice", "alice ", "\uff41lice")
            self.assertEqual(bool(result.entries), same, repr(name))


class FilledTests(SynchronousTestCase):
    """A local part in a parsed filter."""

    def test_places(self) -> None:
        """It is filled in at every place where a value is compared."""
        text = "(&(a={localpart})(!(b={localpart}@x))(|(c>={localpart})(d=y)(e=*))(f~={localpart}))"
        wanted = text.replace("{localpart}", "z")
        self.assertEqual(filled(parsed(text), "z").toWire(), parsed(wanted).toWire())

    def test_template_is_kept(self) -> None:
        """The template can be used again."""
        template = parsed("(a={localpart})")
        for name in ("x", "y"):
            self.assertEqual(filled(template, name).toWire(), parsed(f"(a={name})").toWire())

    def test_no_syntax(self) -> None:
        """Special characters in it stay a part of the value."""
        self.assertIn(b"*)(uid=*", filled(parsed("(a={localpart})"), "*)(uid=*").toWire())

    def test_for_any_name(self) -> None:
        """Any name matches where a name is compared; the rest of the filter stays."""
        for text, wanted in (
            ("(a={localpart})", "(a=*)"),
            ("(&(a={localpart})(b=x)(!(c=y)))", "(&(a=*)(b=x)(!(c=y)))"),
            ("(|(a={localpart})(b={localpart}@x)(c=*))", "(|(a=*)(b=*)(c=*))"),
            ("(&(a=x)(!(b={localpart})))", "(&(a=x)(objectClass=*))"),
        ):
            found = for_any_name(parsed(text)).toWire()
            self.assertEqual(found, parsed(wanted).toWire(), text)


class SubjectTests(LDAPCase):
    """The subjects of accounts."""

    async def subject(self, provider: LDAPProvider, name: str, password: str | None = None) -> str:
        """The subject of an account that logs in."""
        account = await self.log_in(provider, name, password)
        assert account is not None
        return account.subject

    async def test_renamed(self) -> None:
        """A renamed entry keeps its subject; an entry that gets its old name has another one."""
        slapd = self.slapd(person("bob"))
        provider = self.searching(slapd)
        bob = await self.subject(provider, "bob")
        slapd.change(
            f"dn: uid=bob,{PEOPLE}\nchangetype: modrdn\nnewrdn: uid=robert\ndeleteoldrdn: 1\n"
        )
        self.assertIs(await provider.account_status(bob), AccountStatus.ACTIVE)
        self.assertIsNone(await provider.account_status("@bob:example.com"))
        self.assertEqual(await self.subject(provider, "robert", "can-we-fix-it"), bob)
        another = person("bob", "another")
        slapd.change(another.replace("\nobj", "\nchangetype: add\nobj", 1))
        self.assertNotEqual(await self.subject(provider, "bob", "another"), bob)
        slapd.change(f"dn: uid=robert,{PEOPLE}\nchangetype: delete\n")
        self.assertIsNone(await provider.account_status(bob))
        self.assertIs(await provider.account_status("@bob:example.com"), AccountStatus.ACTIVE)

    async def test_statuses(self) -> None:
        """The status of a login is the status of its subject."""
        slapd = self.slapd(person("bob", title="locked"), person("carol", title="gone"))
        proxy = Proxy(slapd.port)
        self.addCleanup(proxy.stop)
        provider = self.provider(
            {
                **SEARCH,
                "servers": [proxy.url],
                "disabled_filter": "(title=gone)",
                "locked_filter": "(title=locked)",
            }
        )
        for name, status in (
            ("alice", AccountStatus.ACTIVE),
            ("bob", AccountStatus.LOCKED),
            ("carol", AccountStatus.DEACTIVATED),
        ):
            account = await self.log_in(provider, name)
            assert account is not None
            self.assertIs(account.status, status)
            self.assertEqual(len(proxy.lines), 2)
        for name, status in (("bob", AccountStatus.LOCKED), ("carol", AccountStatus.DEACTIVATED)):
            subject = await self.subject(provider, name)
            self.assertIs(await provider.account_status(subject), status)

    async def test_filters(self) -> None:
        """An account that no longer matches the filter or the group is gone, by its subject too."""
        wanted = "(&(objectClass=inetOrgPerson)(uid={localpart})(title=here))"
        for more in ({"filter": wanted}, {"group_filter": "(title=here)"}):
            slapd = self.slapd(person("bob", title="here"))
            provider = self.searching(slapd, **more)
            bob = await self.subject(provider, "bob")
            self.assertIs(await provider.account_status(bob), AccountStatus.ACTIVE)
            slapd.change(f"dn: uid=bob,{PEOPLE}\nchangetype: modify\nreplace: title\ntitle: left\n")
            self.assertIsNone(await provider.account_status(bob))

    async def test_configured(self) -> None:
        """The attribute can be named; an entry without it cannot log in, and the log says so."""
        slapd = self.slapd(
            person("bob", title="17"),
            person("x", title=["1", "2"]),
            person("y", title="17"),
        )
        provider = self.searching(slapd, attributes={"subject": "title"})
        self.assertEqual(await self.subject(provider, "bob"), "title:17")
        self.assertIsNone(await provider.account_status("title:18"))
        for name in ("alice", "x"):
            problem = await self.unavailable(provider, name)
            self.assertEqual(problem, "LDAP: title of an entry cannot be its subject")
            self.assertIn(f"{problem} (attributes.subject): {name!r} cannot log in", self.logged)
            with self.assertRaises(UnusableAccount):
                await self.log_in(provider, name)
        with self.assertRaises(UnusableAccount):
            await provider.account_status("title:17")
        self.assertIn("LDAP: several entries have one title", self.logged)
        slapd.change(f"dn: uid=y,{PEOPLE}\nchangetype: delete\n")
        status = await provider.account_status("title:17")
        self.assertIs(status, AccountStatus.ACTIVE)

    async def test_names(self) -> None:
        """Without an id, or without a base to search below, the subject is the name as spelled."""
        provider = templated(self, person("Bob", "can-we-fix-it"))
        for typed in ("bob", "BOB"):
            self.assertEqual(await self.subject(provider, typed, "can-we-fix-it"), "Bob")
        for subject, status in (
            ("Bob", AccountStatus.ACTIVE),
            ("bob", None),
            ("@bob:example.com", AccountStatus.ACTIVE),
            ("nobody", None),
        ):
            self.assertIs(await provider.account_status(subject), status, subject)
        with self.assertRaises(ProviderUnavailable):
            await provider.account_status("entryUUID:1016bb88-8060-1041-939a-71f62b2bc97e")
        with self.assertRaises(ConfigError) as raised:
            templated(self, attributes={"subject": "entryUUID"})
        self.assertEqual(raised.exception.path, "base")

    async def test_active_directory(self) -> None:
        """An objectGUID is any 16 octets, and is searched for as octets."""
        guid = bytes(range(240, 256))
        asked: list[bytes] = []
        entry = pureldap.LDAPSearchResultEntry(
            f"CN=Alice,{SUFFIX}".encode(),
            [(b"sAMAccountName", [b"Alice"]), (b"objectGUID", [guid])],
        )

        def answer(request: object) -> list[object]:
            if isinstance(request, pureldap.LDAPSearchRequest):
                asked.append(request.filter.toWire())
                self.assertEqual(
                    {b"entryUUID", b"objectGUID"} <= set(request.attributes),
                    b"sAMAccountName" in request.attributes,
                )
                return [entry, pureldap.LDAPSearchResultDone(SUCCESS)]
            return [pureldap.LDAPBindResponse(SUCCESS)]

        server = FakeLDAP(answer)
        self.addCleanup(server.stop)
        provider = self.provider(
            {
                "servers": [server.url],
                "start_tls": False,
                "base": SUFFIX,
                "attributes": {"uid": "sAMAccountName"},
            }
        )
        subject = await self.subject(provider, "alice", "wonderland")
        self.assertEqual(subject, f"objectGUID:{guid.hex()}")
        self.assertIs(await provider.account_status(subject), AccountStatus.ACTIVE)
        self.assertIn(b"objectGUID\x04\x10" + guid, asked[-1])


class StatusTests(LDAPCase):
    """Looks at accounts."""

    async def test_gone(self) -> None:
        """A removed account is unknown at once."""
        slapd = self.slapd()
        provider = self.searching(slapd)
        await self.assert_logs_in(provider, "alice")
        self.assertIs(await provider.account_status("@alice:example.com"), AccountStatus.ACTIVE)
        slapd.change(f"dn: uid=alice,{PEOPLE}\nchangetype: delete\n")
        self.assertIsNone(await provider.account_status("@alice:example.com"))
        self.assertIsNone(await self.log_in(provider, "alice"))

    async def test_strangers(self) -> None:
        """Users of other servers, and texts that are not user IDs, are unknown."""
        provider = self.searching(self.slapd())
        for user_id in ("@alice:elsewhere.example", "@alice", "@:example.com", "", "@nobody:x"):
            self.assertIsNone(await provider.account_status(user_id), user_id)

    async def test_presets(self) -> None:
        """Each preset finds the accounts that it is for; their right password is right."""
        for key, preset, attribute, expected in (
            ("disabled_filter", "active_directory", "userAccountControl: 514", "DEACTIVATED"),
            ("disabled_filter", "active_directory", "userAccountControl: 512", "ACTIVE"),
            ("locked_filter", "389ds", "nsAccountLock: true", "LOCKED"),
            ("locked_filter", "389ds", "nsAccountLock: false", "ACTIVE"),
            ("locked_filter", "ppolicy", "pwdAccountLockedTime: 20200101000000Z", "LOCKED"),
            ("locked_filter", "ppolicy", "title: locked", "ACTIVE"),
            ("locked_filter", "(title=locked*)", "title: locked out", "LOCKED"),
            ("disabled_filter", "(!(title=here))", "title: gone", "DEACTIVATED"),
        ):
            for template in (False, True):
                slapd = self.slapd(anonymous=True)
                name = f"dn: uid=alice,{PEOPLE}\nchangetype: modify\n"
                slapd.change(f"{name}add: {attribute.split(':')[0]}\n{attribute}\n")
                config = {"servers": [slapd.url], "start_tls": False, key: preset}
                if template:
                    config["bind_dn_template"] = f"uid={{localpart}},{PEOPLE}"
                else:
                    config["base"] = PEOPLE
                provider = self.provider(config)
                status = await provider.account_status("@alice:example.com")
                self.assertIs(status, AccountStatus[expected], (preset, attribute))
                self.assertIsNone(await provider.account_status("@nobody:example.com"))
                await self.assert_logs_in(provider, "alice")
                await self.assert_rejected(provider, "alice")

    async def test_both(self) -> None:
        """An account that is disabled and locked is deactivated."""
        slapd = self.slapd(person("bob", title=["gone", "locked"]), person("carol", title="locked"))
        provider = self.searching(
            slapd, disabled_filter="(title=gone)", locked_filter="(title=locked)"
        )
        for name, expected in (
            ("alice", AccountStatus.ACTIVE),
            ("bob", AccountStatus.DEACTIVATED),
            ("carol", AccountStatus.LOCKED),
        ):
            self.assertIs(await provider.account_status(f"@{name}:example.com"), expected)

    async def test_lockout(self) -> None:
        """A password policy that has locked an account refuses its right password."""
        slapd = self.slapd()
        slapd.change(
            f"dn: cn=policy,{SUFFIX}\nchangetype: modify\nreplace: pwdLockout\npwdLockout: TRUE\n"
        )
        provider = self.searching(slapd, locked_filter="ppolicy")
        await self.assert_logs_in(provider, "alice")
        slapd.change(
            f"dn: uid=alice,{PEOPLE}\nchangetype: modify\n"
            "add: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n"
        )
        self.assertIs(await provider.account_status("@alice:example.com"), AccountStatus.LOCKED)
        await self.assert_rejected(provider, "alice", "wonderland")

    async def test_end_of_a_lockout(self) -> None:
        """A lock that the right password ends does not block that login."""
        slapd = self.slapd()
        slapd.change(
            f"dn: cn=policy,{SUFFIX}\nchangetype: modify\nreplace: pwdLockout\npwdLockout: TRUE\n"
            "-\nreplace: pwdLockoutDuration\npwdLockoutDuration: 60\n"
        )
        slapd.change(
            f"dn: uid=alice,{PEOPLE}\nchangetype: modify\n"
            "add: pwdAccountLockedTime\npwdAccountLockedTime: 20200101000000Z\n"
        )
        provider = self.searching(slapd, locked_filter="ppolicy")
        self.assertIs(await provider.account_status("@alice:example.com"), AccountStatus.LOCKED)
        account = await self.assert_logs_in(provider, "alice")
        self.assertIs(account.status, AccountStatus.ACTIVE)
