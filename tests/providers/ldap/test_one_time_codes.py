"""Tests for passwords with a one-time code appended, at a slapd that checks both."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Sequence
from typing import Any

from ldaptor.protocols import pureldap  # type: ignore[import-untyped]

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.ldap.result_codes import SUCCESS
from tests.providers.ldap.case import PASSWORDS, SEARCH, LDAPCase, person
from tests.providers.ldap.test_outages import BRIEF, DONE, ENTRY, OutageCase
from tests.providers.ldap.wire import FakeLDAP
from tests.providers.served import ComposedCase
from tests.support.slapd import SUFFIX, Slapd

_SECRET = b"twenty random bytes."
_PERIOD = 30
_TOKEN = f"""\
dn: cn=parameters,{SUFFIX}
objectClass: device
objectClass: oathTOTPParams
cn: parameters
oathOTPLength: 6
oathHMACAlgorithm: 1.2.840.113549.2.7
oathTOTPTimeStepPeriod: {_PERIOD}
oathTOTPTimeStepWindow: 2

dn: cn=token,{SUFFIX}
objectClass: device
objectClass: oathTOTPToken
cn: token
oathTOTPParams: cn=parameters,{SUFFIX}
oathSecret:: {base64.b64encode(_SECRET).decode()}

"""
_CAROL = person(
    "carol",
    objectClass=["inetOrgPerson", "adLike", "oathTOTPUser"],
    oathTOTPToken=f"cn=token,{SUFFIX}",
)


def code(step: int) -> str:
    """The code of a time step (RFC 6238), six digits."""
    digest = hmac.digest(_SECRET, step.to_bytes(8, "big"), "sha1")
    start = digest[-1] & 15
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


class OverlayTests(LDAPCase):
    """OpenLDAP's overlay ``otp``."""

    async def test_codes(self) -> None:
        """The password with its code logs in, once. Without one it is wrong, and the account is
        looked at without any.
        """
        provider = self.searching(self.slapd(_TOKEN, _CAROL, overlays=["otp"]))
        step = int(time.time()) // _PERIOD
        now, later = (f"pw-carol{code(each)}" for each in (step, step + 1))
        await self.assert_rejected(provider, "carol", "pw-carol")
        await self.assert_rejected(provider, "carol", f"x{code(step - 1)}")
        account = await self.log_in(provider, "carol", now)
        assert account is not None
        self.assertEqual(account.user_id, "@carol:example.com")
        await self.assert_rejected(provider, "carol", now)
        self.assertIsNotNone(await self.log_in(provider, "carol", later))
        await self.assert_rejected(provider, "carol", later)
        await self.assert_rejected(provider, "carol", now)
        self.assertIs(await provider.account_status(account.subject), AccountStatus.ACTIVE)
        await self.assert_logs_in(provider, "alice")


class ServedTests(ComposedCase):
    """A whole server whose users log in with codes of that overlay."""

    async def test_sessions(self) -> None:
        """A code is needed for each login and for no refresh."""
        slapd = Slapd(overlays=["otp"])
        self.addCleanup(slapd.remove)
        slapd.fill(_TOKEN + _CAROL)
        slapd.start()
        config = {**SEARCH, "servers": [slapd.url]}
        self.serve(
            {
                "module": "synapse_login_module.providers.LDAPProvider",
                "one_time_codes": True,
                "config": config,
            },
            rate_limits=dict.fromkeys(("address", "account", "failed_attempts")),
            tokens={"refresh_token": "always", "account_check_interval": 1},
        )
        step = int(time.time()) // _PERIOD
        password = f"pw-carol{code(step)}"
        body = {"type": "m.login.password", "user": "carol", "password": password}
        status, answer = await self.post("login", body)
        self.assertEqual((status, answer.get("user_id")), (200, "@carol:example.com"))
        for _ in range(3):
            token = {"refresh_token": answer["refresh_token"]}
            status, answer = await self.post("refresh", token)
            self.assertEqual(status, 200, answer)
        self.assertEqual(await self.log_in("carol", password), (403, "M_FORBIDDEN"))
        self.assertEqual(await self.log_in("carol", "pw-carol"), (403, "M_FORBIDDEN"))
        later = f"pw-carol{code(step + 1)}"
        self.assertEqual(await self.log_in("carol", later), (200, "@carol:example.com"))


class OnceTests(OutageCase):
    """A bind whose result is lost."""

    def lost(self) -> FakeLDAP:
        """A server that finds the account, and does not answer the bind."""
        return self.fake([ENTRY, DONE], ())

    def good(self) -> FakeLDAP:
        """A server that accepts any password."""
        return self.fake([ENTRY, DONE], [pureldap.LDAPBindResponse(SUCCESS)])

    def asked(self, *servers: FakeLDAP, one_time_codes: bool) -> Any:
        """A login of Alice, with these servers."""
        config = {**SEARCH, **BRIEF, "servers": [each.url for each in servers]}
        provider = self.provider(config, one_time_codes=one_time_codes)
        return self.log_in(provider, "alice")

    async def test_repeated(self) -> None:
        """Without one-time codes, another server is asked."""
        servers = self.lost(), self.good()
        self.assertIsNotNone(await self.asked(*servers, one_time_codes=False))
        self.assertEqual([binds(each) for each in servers], [1, 1])

    async def test_once(self) -> None:
        """With one-time codes the login is an outage, and no server gets the code again."""
        servers = self.lost(), self.good()
        with self.assertRaises(ProviderUnavailable) as raised:
            await self.asked(*servers, one_time_codes=True)
        self.assertNotIsInstance(raised.exception, InvalidCredentials)
        self.assertIn(f"LDAP: {servers[0].url}: ", str(raised.exception))
        self.assertEqual([binds(each) for each in servers], [1, 0])


def binds(server: FakeLDAP) -> int:
    """How many binds with Alice's password a server got."""
    password = PASSWORDS["alice"].encode()
    requests: Sequence[Any] = server.requests
    found = [each for each in requests if isinstance(each, pureldap.LDAPBindRequest)]
    return sum(each.auth == password for each in found)
