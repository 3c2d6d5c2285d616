"""Accounts of a real 389 Directory Server."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Awaitable
from functools import cache
from pathlib import Path

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.model import AccountStatus, EmailIdentifier, PhoneIdentifier
from synapse_login_module.providers.ldap import LDAPProvider
from tests.providers.ldap.case import LDAPCase, reactor, user
from tests.providers.ldap.load import restart_under_load
from tests.support import REPOSITORY
from tests.support.certificates import Authority
from tests.support.ds389 import (
    DS389,
    MAX_FAILURES,
    PEOPLE,
    READER_DN,
    READER_PASSWORD,
    SUFFIX,
)
from tests.support.ports import free_port

WRONG = "looking-glass"

POLICY = """\
dn: cn=config
changetype: modify
replace: passwordMustChange
passwordMustChange: {value}
-
replace: passwordExp
passwordExp: {value}
"""

ANN = (
    f"dn: uid=ann,{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\n"
    "uid: ann\ncn: ann\nsn: ann\nuserPassword: pw-ann\n"
)

INACTIVE_ROLE = f"""\
dn: cn=inactive,{SUFFIX}
changetype: add
objectClass: LDAPsubentry
objectClass: nsRoleDefinition
objectClass: nsSimpleRoleDefinition
objectClass: nsManagedRoleDefinition
cn: inactive

dn: cn=templates,{SUFFIX}
changetype: add
objectClass: nsContainer
cn: templates

dn: cn="cn=inactive,{SUFFIX}",cn=templates,{SUFFIX}
changetype: add
objectClass: extensibleObject
objectClass: costemplate
objectClass: ldapsubentry
cosPriority: 1
nsAccountLock: true

dn: cn=locks,{SUFFIX}
changetype: add
objectClass: ldapsubentry
objectClass: cosSuperDefinition
objectClass: cosClassicDefinition
cosTemplateDn: cn=templates,{SUFFIX}
cosSpecifier: nsRole
cosAttribute: nsAccountLock operational
"""
"""A role that inactivates its members, as the server's own commands make one."""

UNDO_INACTIVE_ROLE = "".join(
    f"dn: {each},{SUFFIX}\nchangetype: delete\n\n"
    for each in (
        "cn=locks",
        f'cn="cn=inactive,{SUFFIX}",cn=templates',
        "cn=templates",
        "cn=inactive",
    )
)


@cache
def _server() -> DS389:
    """The one for this module, which ends with the process."""
    server = DS389()
    server.start()
    return server


class DS389Case(LDAPCase):
    """A test case with one server for all of its class, and people of its own for each test."""

    def setUp(self) -> None:
        super().setUp()
        self.ds = _server()

    def add(self, uid: str, **more: str) -> None:
        """Add a person, who is removed after the test."""
        attributes = {
            "objectClass": "inetOrgPerson",
            "uid": uid,
            "cn": uid,
            "sn": uid,
            "userPassword": f"pw-{uid}",
            **more,
        }
        lines = "".join(f"{key}: {value}\n" for key, value in attributes.items())
        self.ds.change(f"dn: uid={uid},{PEOPLE}\nchangetype: add\n{lines}")
        self.addCleanup(self.ds.change, f"dn: uid={uid},{PEOPLE}\nchangetype: delete\n")

    def replace(self, uid: str, attribute: str, value: str) -> None:
        """Set an attribute of a person."""
        change = f"changetype: modify\nreplace: {attribute}\n{attribute}: {value}\n"
        self.ds.change(f"dn: uid={uid},{PEOPLE}\n{change}")

    def directory(self, **more: object) -> LDAPProvider:
        """A provider of its accounts."""
        return self.provider(
            {
                "servers": [self.ds.url],
                "start_tls": False,
                "bind_dn": READER_DN,
                "bind_password": READER_PASSWORD,
                "base": PEOPLE,
                **more,
            }
        )

    async def lock_out(self, provider: LDAPProvider, uid: str) -> None:
        """Try wrong passwords until the server locks the account, and once more."""
        for _ in range(MAX_FAILURES + 1):
            await self.assert_rejected(provider, uid, WRONG)


class DS389Tests(DS389Case):
    """Logging in with its accounts."""

    async def test_locked_out(self) -> None:
        """An account that wrong passwords locked is refused like a wrong password, whatever the
        filters; with the preset its status is known.
        """
        for number, more in enumerate(({}, {"locked_filter": "389ds"})):
            uid = f"max{number}"
            self.add(uid)
            provider = self.directory(**more)
            await self.lock_out(provider, uid)
            await self.assert_rejected(provider, uid, f"pw-{uid}")
            expected = AccountStatus.LOCKED if more else AccountStatus.ACTIVE
            self.assertIs(await provider.account_status(f"@{uid}:example.com"), expected)
            self.assertIn("constraintViolation", self.logged[-1])
            self.assertIsNone(await self.log_in(provider, "nobody", WRONG))

    async def test_inactivated(self) -> None:
        """An account that an administrator locked is refused in the same way."""
        self.add("lou", nsAccountLock="TRUE")
        for more, expected in (
            ({}, AccountStatus.ACTIVE),
            ({"locked_filter": "389ds"}, AccountStatus.LOCKED),
        ):
            provider = self.directory(**more)
            await self.assert_rejected(provider, "lou", "pw-lou")
            await self.assert_rejected(provider, "lou", WRONG)
            self.assertIs(await provider.account_status("@lou:example.com"), expected)

    async def test_reasons(self) -> None:
        """The log and ``check-login`` have the reason; a wrong password has none."""
        self.add("lou", nsAccountLock="TRUE")
        self.add("ann")
        provider = self.directory(directory="389ds")
        details = []
        for name, password in (("lou", "pw-lou"), ("lou", WRONG), ("ann", WRONG)):
            with self.assertRaises(InvalidCredentials) as raised:
                await self.log_in(provider, name, password)
            details.append(raised.exception.detail)
        self.assertEqual(details, ["the account is locked", "the account is locked", ""])
        self.assertIn("Account inactivated", self.logged[-1])
        look = await provider.account_status("@lou:example.com")
        self.assertIs(look, AccountStatus.DEACTIVATED)

    async def test_inactivated_by_a_role(self) -> None:
        """An account that a role inactivates is closed: the server computes that it is."""
        self.add("rob")
        self.ds.change(INACTIVE_ROLE)
        self.addCleanup(self.ds.change, UNDO_INACTIVE_ROLE)
        provider = self.directory(directory="389ds")
        self.assertIs(await provider.account_status("@rob:example.com"), AccountStatus.ACTIVE)
        self.replace("rob", "nsRoleDN", f"cn=inactive,{SUFFIX}")
        await self.assert_rejected(provider, "rob", "pw-rob")
        look = await provider.account_status("@rob:example.com")
        self.assertIs(look, AccountStatus.DEACTIVATED)

    async def test_must_change(self) -> None:
        """A password that an administrator has set is accepted by the bind, for nothing but its
        change: it is no login. Nor is one that has expired. A wrong one is wrong.
        """
        for uid in ("old", "soon", "own"):
            self.add(uid)
        self.ds.change(POLICY.format(value="on"))
        self.addCleanup(self.ds.change, POLICY.format(value="off"))
        self.add("mia")
        self.replace("old", "passwordExpirationTime", "20200101000000Z")
        tomorrow = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + 3600))
        self.replace("soon", "passwordExpirationTime", tomorrow)
        provider = self.directory(directory="389ds")
        for uid, expected in (
            ("mia", AccountStatus.PASSWORD_EXPIRED),
            ("old", AccountStatus.PASSWORD_EXPIRED),
            ("soon", AccountStatus.ACTIVE),
            ("own", AccountStatus.ACTIVE),
        ):
            account = await self.assert_logs_in(provider, uid)
            self.assertIs(account.status, expected, uid)
            await self.assert_rejected(provider, uid, WRONG)
            look = await provider.account_status(f"@{uid}:example.com")
            self.assertIs(look, AccountStatus.ACTIVE, uid)

    async def test_groups(self) -> None:
        """Members of a group that lists them, without a word about it in their entries."""
        group = f"cn=matrix,{SUFFIX}"
        self.add("ann")
        self.add("ben")
        self.ds.change(
            f"dn: {group}\nchangetype: add\nobjectClass: groupOfNames\ncn: matrix\n"
            f"member: uid=ann,{PEOPLE}\n"
        )
        self.addCleanup(self.ds.change, f"dn: {group}\nchangetype: delete\n")
        provider = self.directory(directory="389ds", groups=[group])
        account = await self.assert_logs_in(provider, "ann")
        self.assertIsNone(await self.log_in(provider, "ben"))
        self.assertIs(await provider.account_status(account.subject), AccountStatus.ACTIVE)
        self.ds.change(
            f"dn: {group}\nchangetype: modify\nreplace: member\nmember: uid=ben,{PEOPLE}\n"
        )
        self.assertIsNone(await provider.account_status(account.subject))
        await self.assert_logs_in(provider, "ben")

    async def test_end_of_a_lock(self) -> None:
        """A lock that has expired does not count; one without an end does."""
        self.add("mia")
        provider = self.directory(locked_filter="389ds")
        await self.lock_out(provider, "mia")
        for until, expected in (
            ("20200101000000Z", AccountStatus.ACTIVE),
            ("29991231000000Z", AccountStatus.LOCKED),
            ("19700101000000Z", AccountStatus.LOCKED),
        ):
            self.replace("mia", "accountUnlockTime", until)
            self.assertIs(await provider.account_status("@mia:example.com"), expected, until)
        self.replace("mia", "accountUnlockTime", "20200101000000Z")
        account = await self.assert_logs_in(provider, "mia")
        self.assertIs(account.status, AccountStatus.ACTIVE)

    async def test_rights_on_the_lock(self) -> None:
        """A search account that may not read the lock sees no lock; the server still refuses."""
        self.add("lou", nsAccountLock="TRUE")
        self.ds.let_read("uid || cn || mail || objectClass")
        self.addCleanup(self.ds.let_read, "*")
        provider = self.directory(locked_filter="389ds")
        status = await provider.account_status("@lou:example.com")
        self.assertIs(status, AccountStatus.ACTIVE)
        await self.assert_rejected(provider, "lou", "pw-lou")

    async def test_documented_rights(self) -> None:
        """The rights in the documentation are enough, also for what ``directory`` sets."""
        text = (REPOSITORY / "docs" / "providers" / "ldap.rst").read_text(encoding="utf-8")
        block = re.findall(r"^    dn: ou=people.*\n(?:    .+\n)+", text, re.MULTILINE)[0]
        rights = textwrap.dedent(block).replace(
            "cn=matrix,ou=services,dc=example,dc=com", READER_DN
        )
        self.add("lou", nsAccountLock="TRUE")
        self.add("ann", mail="ann@example.com")
        self.ds.let_read("")
        self.addCleanup(self.ds.let_read, "*")
        self.ds.change(rights)
        self.addCleanup(self.ds.change, f"dn: {PEOPLE}\nchangetype: modify\ndelete: aci\n")
        provider = self.directory(directory="389ds")
        account = await self.assert_logs_in(
            provider, EmailIdentifier("ann@example.com"), "pw-ann", "@ann:example.com"
        )
        self.assertTrue(account.subject.startswith("nsUniqueId:"))
        look = await provider.account_status("@lou:example.com")
        self.assertIs(look, AccountStatus.DEACTIVATED)

    async def test_no_rights(self) -> None:
        """A search account that may read nothing finds no account; the log warns at the start."""
        self.add("bob")
        line = f"LDAP: {READER_DN} sees no account below {PEOPLE}"
        for attributes, warned in (("", True), ("*", False)):
            self.events.clear()
            self.ds.let_read(attributes)
            self.addCleanup(self.ds.let_read, "*")
            provider = self.directory()
            provider.startService()
            await provider.looking
            self.assertEqual([line in each for each in self.logged], [True] if warned else [])
            account = await self.log_in(provider, "bob", "can-we-fix-it" if warned else "pw-bob")
            self.assertIs(account is None, warned)

    async def test_escaped_octets(self) -> None:
        """An escape in a filter stands for an octet, so two of them can be one letter."""
        self.add("kay", cn="Köln")
        provider = self.directory(group_filter="(cn=K\\c3\\b6ln)")
        await self.assert_logs_in(provider, "kay")

    async def test_names(self) -> None:
        """The name, the address and the telephone number are one account, which stays the same when
        it is renamed. A new one with the old name is another.
        """
        self.add("kim", mail="kim@example.com", mobile="+447700900123")
        provider = self.directory(directory="389ds")
        known = set()
        for name in (
            user("kim"),
            user("KIM"),
            EmailIdentifier("kim@example.com"),
            PhoneIdentifier("447700900123"),
        ):
            account = await self.assert_logs_in(provider, name, "pw-kim", "@kim:example.com")
            known.add(account.subject)
            await self.assert_rejected(provider, name, WRONG)
        (subject,) = known
        self.assertTrue(subject.startswith("nsUniqueId:"), subject)
        rename = "dn: uid={},{}\nchangetype: modrdn\nnewrdn: uid={}\ndeleteoldrdn: 1\n"
        self.ds.change(rename.format("kim", PEOPLE, "kit"))
        self.addCleanup(self.ds.change, f"dn: uid=kit,{PEOPLE}\nchangetype: delete\n")
        self.assertIs(await provider.account_status(subject), AccountStatus.ACTIVE)
        self.ds.change(
            f"dn: uid=kim,{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\n"
            "uid: kim\ncn: kim\nsn: kim\nuserPassword: pw-new\n"
        )
        another = await self.assert_logs_in(provider, "kim", "pw-new")
        self.assertNotEqual(another.subject, subject)

    async def test_dead_server(self) -> None:
        """If the first server is dead, the second one answers."""
        self.add("ann")
        dead = f"ldap://127.0.0.1:{free_port()}"
        provider = self.directory(servers=[dead, self.ds.url])
        await self.assert_logs_in(provider, "ann")
        await self.assert_rejected(provider, "ann", WRONG)
        self.assertEqual(len([line for line in self.logged if "left alone" in line]), 1)

    async def test_time_of_a_refusal(self) -> None:
        """An unknown user is refused no sooner than the quickest wrong password, which the server
        hashes.
        """
        self.add("zoe")
        provider = self.directory()
        await self.assert_rejected(provider, "zoe", WRONG)
        (quickest,) = provider._binds.times._seen
        began = reactor.seconds()
        self.assertIsNone(await self.log_in(provider, "nobody", WRONG))
        self.assertGreaterEqual(reactor.seconds() - began, quickest)


class OwnServerTests(DS389Case):
    """A server of a test's own, which the test may restart."""

    async def test_restart_under_load(self) -> None:
        """Logins during a restart succeed or are an outage, and never anything else."""
        server = DS389()
        self.addCleanup(server.remove)
        server.start()
        server.change(ANN)
        provider = self.directory(servers=[server.url], retry_after="1s", connect_timeout="1s")

        def log_in() -> Awaitable[object]:
            return self.assert_logs_in(provider, "ann")

        await restart_under_load(log_in, server.stop, server.start_again)
        await self.assert_rejected(provider, "ann", WRONG)

    async def test_password_of_the_searcher(self) -> None:
        """A search account whose password must be changed can search nothing: an outage, which
        says why.
        """
        server = DS389()
        self.addCleanup(server.remove)
        server.start()
        server.change(POLICY.format(value="on"))
        server.change(
            f"dn: {READER_DN}\nchangetype: modify\nreplace: userPassword\n"
            f"userPassword: {READER_PASSWORD}\n"
        )
        problem = await self.unavailable(self.directory(servers=[server.url]))
        self.assertIn(f"the password of bind_dn {READER_DN} must be changed first", problem)

    async def test_certificate(self) -> None:
        """It is accepted by the authority that signed it, over LDAPS and StartTLS, and by no
        other.
        """
        server = DS389()
        self.addCleanup(server.remove)
        server.start()
        authority = Authority()
        server.secure(authority.sign("127.0.0.1"))
        server.change(ANN)
        ca_file = authority.write(Path(self.mktemp()))
        for url in (f"ldaps://127.0.0.1:{server.tls_port}", server.url):
            secure = {"servers": [url], "start_tls": True}
            provider = self.directory(**secure, ca_file=str(ca_file))
            await self.assert_logs_in(provider, "ann")
            await self.assert_rejected(provider, "ann", WRONG)
            untrusted = self.directory(**secure)
            self.assertIn("certificate", await self.unavailable(untrusted, "ann"))
