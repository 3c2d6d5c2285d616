"""Names with their domain, as users of Active Directory type them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synapse_login_module import testing
from synapse_login_module.errors import ConfigError, InvalidCredentials
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account
from synapse_login_module.providers.ldap import LDAPProvider
from tests.providers.ldap.case import ALICE as ALICE_ENTRY
from tests.providers.ldap.case import PASSWORDS, SEARCH, LDAPCase, user
from tests.providers.served import ComposedCase
from tests.support.accounts import ALICE
from tests.support.slapd import Slapd

ATTRIBUTES = {"uid": "sAMAccountName", "name": "cn"}


class DomainContractTests(testing.PasswordProviderContract, LDAPCase):
    """The contract, where the configuration names the domain."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return self.searching(self.slapd(), domain="EXAMPLE")


class DomainTests(LDAPCase):
    """Active Directory's names in a real slapd."""

    def asked(self, **more: Any) -> LDAPProvider:
        """A provider that looks for sAMAccountName."""
        return self.searching(self.slapd(), attributes=ATTRIBUTES, **more)

    async def test_own_domain(self) -> None:
        """A name of the configured domain is the account's, however either is typed: the account
        that the bare name is, too.
        """
        provider = self.asked(domain="EXAMPLE")
        known: set[Account | None] = set()
        for typed in ("alice", "EXAMPLE\\alice", "example\\Alice", "Example\\ALICE"):
            account = await provider.authenticate(user(typed), PASSWORDS["alice"])
            assert account is not None, typed
            self.assertEqual(account.user_id, ALICE)
            known.add(account)
            with self.assertRaises(InvalidCredentials) as raised:
                await provider.authenticate(user(typed), "looking-glass")
            self.assertEqual(raised.exception.user_id, ALICE)
        self.assertEqual(len(known), 1)

    async def test_others(self) -> None:
        """A name with another domain, or an empty name in this domain, is unknown."""
        provider = self.asked(domain="EXAMPLE")
        for typed in (
            "OTHER\\alice",
            "\\alice",
            "EXAMPLE\\",
            "EXAMPLE\\\\alice",
            "EXAMPLE\\EXAMPLE\\alice",
            "EXAMPLE\\*",
            "EXAMPLE\\al ice",
            "EXAMPLE\\alice\0",
            "EXAMPLE/alice",
            "EXAMPLEalice",
            "alice\\EXAMPLE",
        ):
            account = await provider.authenticate(user(typed), PASSWORDS["alice"])
            self.assertIsNone(account, typed)
        stranger = user("EXAMPLE\\alice", "elsewhere.example")
        self.assertIsNone(await provider.authenticate(stranger, PASSWORDS["alice"]))

    def test_mistakes(self) -> None:
        """A domain is a name without the backslash."""
        for domain in ("", "EXAMPLE\\", "EX AMPLE", "@example.lan", 7):
            config = {**SEARCH, "servers": ["ldap://127.0.0.1"], "domain": domain}
            with self.assertRaises(ConfigError) as raised:
                LDAPProvider.parse_config(config, Path())
            self.assertEqual(raised.exception.path, "domain")

    async def test_no_domain(self) -> None:
        """Without the key, a name with a domain is unknown."""
        provider = self.asked()
        account = await provider.authenticate(user("EXAMPLE\\alice"), PASSWORDS["alice"])
        self.assertIsNone(account)


class ServedDomainTests(ComposedCase):
    """The same over HTTP."""

    async def test_login(self) -> None:
        """Who logs in with a domain is who logs in without; of two domains each has its own."""
        entries = []
        for domain in ("EXAMPLE", "OTHER"):
            slapd = Slapd()
            self.addCleanup(slapd.remove)
            slapd.fill(ALICE_ENTRY)
            slapd.start()
            config = {**SEARCH, "servers": [slapd.url], "domain": domain}
            module = "synapse_login_module.providers.ldap.LDAPProvider"
            entries.append({"module": module, "config": config, "name": domain.lower()})
        self.serve(*entries)
        for name in ("alice", "EXAMPLE\\alice", "example\\ALICE", "@EXAMPLE\\alice:example.com"):
            self.assertEqual(await self.log_in(name, PASSWORDS["alice"]), (200, ALICE), name)
        # Known there, and not to be that user here.
        self.assertEqual(
            await self.log_in("OTHER\\alice", PASSWORDS["alice"]), (403, "M_FORBIDDEN")
        )
        self.assertEqual(
            await self.log_in("THIRD\\alice", PASSWORDS["alice"]), (403, "M_FORBIDDEN")
        )
