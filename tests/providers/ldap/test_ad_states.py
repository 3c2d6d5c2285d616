"""The states of accounts in a real Active Directory, Samba's: at logins and at looks."""

from __future__ import annotations

import base64

from twisted.internet.task import deferLater

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.model import AccountStatus, EmailIdentifier, PhoneIdentifier
from synapse_login_module.providers.ldap import LDAPProvider
from tests.providers.ldap.case import reactor
from tests.providers.ldap.test_active_directory import ActiveDirectoryCase
from tests.support.samba import REALM, SUFFIX, USERS, person

PASSWORD = "States-Passw0rd"
WRONG = "looking-glass"
LONG_AGO = "132223104000000000"
"""The beginning of 2020, as Active Directory counts."""

FAR_AWAY = "157469184000000000"
"""The beginning of 2100."""

NEVER = "9223372036854775807"

THRESHOLD = 2
_POLICY = f"""\
dn: {SUFFIX}
changetype: modify
replace: lockoutThreshold
lockoutThreshold: {{threshold}}
-
replace: lockOutObservationWindow
lockOutObservationWindow: -{{intervals}}
-
replace: lockoutDuration
lockoutDuration: -{{intervals}}
"""


class StatesCase(ActiveDirectoryCase):
    """A test case for accounts of its own, in the configuration that ``directory`` makes."""

    def setUp(self) -> None:
        super().setUp()
        self.secrets.add(PASSWORD)

    def add(self, name: str, **more: str) -> None:
        """Add a user, who is removed after the test."""
        self.samba.change(person(name, PASSWORD, **more))
        self.addCleanup(self.samba.change, f"dn: cn={name},{USERS}\nchangetype: delete\n")

    def replace(self, name: str, attribute: str, value: str) -> None:
        """Set an attribute of a user."""
        separator = "::" if attribute == "logonHours" else ":"
        self.samba.change(
            f"dn: cn={name},{USERS}\nchangetype: modify\nreplace: {attribute}\n"
            f"{attribute}{separator} {value}\n"
        )

    def by_preset(self, **more: object) -> LDAPProvider:
        """A provider with ``directory``, and without the keys that it sets."""
        return self.reached_by(**{"directory": "active_directory", **more})

    async def status_at_login(self, provider: LDAPProvider, name: str) -> AccountStatus | None:
        """Return the status that a login with the right password gives."""
        account = await self.log_in(provider, name, PASSWORD)
        assert account is not None
        return account.status


class NamesTests(StatesCase):
    """The names that a user logs in by."""

    async def test_all_names(self) -> None:
        """The account name, alone or after the domain, the principal name, the addresses and the
        telephone number are one account.
        """
        self.add(
            "nell",
            userPrincipalName=f"nell.trent@{REALM}",
            telephoneNumber="+447700900321",
            displayName="Nell Trent",
            proxyAddresses="SMTP:Nell@Example.com\nproxyAddresses: smtp:n.trent@example.com\n"
            "proxyAddresses: X400:c=GB;s=Trent",
        )
        provider = self.by_preset(
            domain="AD",
            filter=f"(|(sAMAccountName={{localpart}})(userPrincipalName={{localpart}}@{REALM}))",
            attributes={"mail": "proxyAddresses", "phone": "telephoneNumber"},
        )
        known = set()
        for name in (
            "nell",
            "NELL",
            "AD\\nell",
            "ad\\Nell",
            "nell.trent",
            EmailIdentifier("nell@example.com"),
            EmailIdentifier("n.trent@example.com"),
            PhoneIdentifier("447700900321"),
        ):
            known.add(await self.assert_logs_in(provider, name, PASSWORD, "@nell:example.com"))
            await self.assert_rejected(provider, name, WRONG)
        (account,) = known
        self.assertEqual(account.display_name, "Nell Trent")
        self.assertEqual(account.emails, ("Nell@Example.com", "n.trent@example.com"))
        for address in ("c=gb;s=trent@example.com", "smtp:nell@example.com"):
            self.assertIsNone(await self.log_in(provider, EmailIdentifier(address), PASSWORD))


class StatesTests(StatesCase):
    """Each state: with the right password, with a wrong one, and at a look."""

    async def test_states(self) -> None:
        """The right password learns the state. A wrong one is wrong, whatever the state is."""
        provider = self.by_preset()
        active, gone = AccountStatus.ACTIVE, AccountStatus.DEACTIVATED
        none = base64.b64encode(bytes(21)).decode()
        for name, more, at_login, at_look in (
            ("fine", {}, active, active),
            ("never", {"accountExpires": NEVER}, active, active),
            ("later", {"accountExpires": FAR_AWAY}, active, active),
            ("zero", {"accountExpires": "0"}, active, active),
            ("disabled", {"userAccountControl": "514"}, gone, gone),
            ("ended", {"accountExpires": LONG_AGO}, gone, gone),
            ("old", {}, AccountStatus.PASSWORD_EXPIRED, active),
            ("must", {"pwdLastSet": "0"}, AccountStatus.PASSWORD_EXPIRED, active),
            ("away", {"userWorkstations": "elsewhere"}, AccountStatus.NOT_PERMITTED, active),
            ("asleep", {"logonHours": none}, AccountStatus.NOT_PERMITTED, active),
        ):
            self.add(name)
            for attribute, value in more.items():
                self.replace(name, attribute, value)
            if name == "old":
                self.samba.age_password(name)
            self.assertIs(await self.status_at_login(provider, name), at_login, name)
            await self.assert_rejected(provider, name, WRONG)
            look = await provider.account_status(f"@{name}:example.com")
            self.assertIs(look, at_look, name)

    async def test_reasons_without_filters(self) -> None:
        """What the directory says counts without any filter, and the log says it."""
        provider = self.directory(disabled_filter=None)
        for name, attribute, value, data, status in (
            ("dis", "userAccountControl", "514", "533", AccountStatus.DEACTIVATED),
            ("exp", "accountExpires", LONG_AGO, "701", AccountStatus.DEACTIVATED),
            ("chg", "pwdLastSet", "0", "773", AccountStatus.PASSWORD_EXPIRED),
        ):
            self.add(name)
            self.replace(name, attribute, value)
            self.assertIs(await self.status_at_login(provider, name), status)
            self.assertIn(f"data {data}", self.logged[-1])
            self.assertIn("the password is right", self.logged[-1])
            lines = len(self.logged)
            await self.assert_rejected(provider, name, WRONG)
            self.assertEqual(len(self.logged), lines)

    async def test_lockout(self) -> None:
        """A lockout refuses every password in the same way, and ends by itself."""
        self.samba.change(_POLICY.format(threshold=THRESHOLD, intervals=40_000_000))
        self.addCleanup(self.samba.change, _POLICY.format(threshold=0, intervals=18_000_000_000))
        self.add("lou")
        provider = self.by_preset()
        for _ in range(THRESHOLD):
            await self.assert_rejected(provider, "lou", WRONG)
        refusals = set()
        for password in (WRONG, PASSWORD):
            with self.assertRaises(InvalidCredentials) as raised:
                await self.log_in(provider, "lou", password)
            refusals.add((raised.exception.reason, raised.exception.detail))
            self.assertIn("data 775", self.logged[-1])
        self.assertEqual(refusals, {("wrong_password", "the account is locked out")})
        look = await provider.account_status("@lou:example.com")
        self.assertIs(look, AccountStatus.LOCKED)
        while await provider.account_status("@lou:example.com") is AccountStatus.LOCKED:
            await deferLater(reactor, 0.2)
        # lockoutTime is still there; it does not count any more, and does not for a login.
        by_time = self.by_preset(locked_filter="(lockoutTime>=1)")
        look = await by_time.account_status("@lou:example.com")
        self.assertIs(look, AccountStatus.LOCKED)
        self.assertIs(await self.status_at_login(provider, "lou"), AccountStatus.ACTIVE)

    async def test_another_person(self) -> None:
        """A user who is renamed or moved stays; one who is made again is another, and the first
        one is gone.
        """
        self.add("ida")
        provider = self.by_preset()
        account = await self.assert_logs_in(provider, "ida", PASSWORD)
        self.replace("ida", "sAMAccountName", "ida.new")
        unit = f"ou=moved,{SUFFIX}"
        self.samba.change(f"dn: {unit}\nchangetype: add\nobjectClass: organizationalUnit\n")
        self.addCleanup(self.samba.change, f"dn: {unit}\nchangetype: delete\n")
        rename = "dn: cn=ida,{0}\nchangetype: moddn\nnewrdn: cn=ida\ndeleteoldrdn: 1\n"
        self.samba.change(rename.format(USERS) + f"newsuperior: {unit}\n")
        self.assertIs(await provider.account_status(account.subject), AccountStatus.ACTIVE)
        self.assertIsNone(await provider.account_status("@ida:example.com"))
        again = await self.assert_logs_in(provider, "ida.new", PASSWORD)
        self.assertEqual(again.subject, account.subject)
        self.samba.change(rename.format(unit) + f"newsuperior: {USERS}\n")
        self.samba.change(f"dn: cn=ida,{USERS}\nchangetype: delete\n")
        self.assertIsNone(await provider.account_status(account.subject))
        self.samba.change(person("ida", PASSWORD))
        another = await self.assert_logs_in(provider, "ida", PASSWORD)
        self.assertNotEqual(another.subject, account.subject)
        self.assertIsNone(await provider.account_status(account.subject))
