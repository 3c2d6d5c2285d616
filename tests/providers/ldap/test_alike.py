"""The requests of a login that fails do not reveal which accounts exist."""

from __future__ import annotations

from functools import partial
from typing import Any

from ldaptor.protocols import pureldap  # type: ignore[import-untyped]
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.model import (
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
)
from synapse_login_module.providers.ldap import LDAPProvider
from synapse_login_module.providers.ldap.bind_times import BindTimes
from synapse_login_module.providers.ldap.result_codes import INVALID_CREDENTIALS, SUCCESS
from tests.providers.ldap.case import PASSWORDS, SEARCH, LDAPCase, person, user
from tests.providers.ldap.wire import FakeLDAP, Listener, Proxy
from tests.support.slapd import PEOPLE, READER_DN, READER_PASSWORD, SUFFIX
from tests.support.waiting import until

WRONG = "looking-glass"

STATUSES = {"disabled_filter": "(title=gone)", "locked_filter": "(title=locked)"}

PEOPLE_OF_ALL_KINDS = (
    person("bob", mail="bob@example.com"),
    person("larry", title="locked", mail="larry@example.com"),
    person("dora", title="gone"),
    person("twin", mail="twin@example.com", rdn="cn=twin 1"),
    person("twin", mail="twin@example.com", rdn="cn=twin 2"),
    person("two", mail="two@example.com").replace("uid: two\n", "uid: two\nuid: zwei\n"),
)

WHO: dict[str, Identifier] = {
    "known": user("bob"),
    "unknown": user("nobody"),
    "locked": user("larry"),
    "deactivated": user("dora"),
    "two entries": user("twin"),
    "another server's": UserIdentifier(UserId("bob", "elsewhere.example")),
    "no name": user("al ice"),
    "known address": EmailIdentifier("bob@example.com"),
    "locked, by address": EmailIdentifier("larry@example.com"),
    "unknown address": EmailIdentifier("nobody@example.com"),
    "two entries of an address": EmailIdentifier("twin@example.com"),
    "two names of an entry": EmailIdentifier("two@example.com"),
    "no address": EmailIdentifier("a b@example.com"),
    "unknown number": PhoneIdentifier("4912345"),
}
"""Logins with a wrong password, by whose they are."""


class AlikeTests(LDAPCase):
    """The requests of logins that fail."""

    async def test_requests(self) -> None:
        """Every login makes the same number of searches and one bind, for any identifier."""
        slapd = self.slapd(*PEOPLE_OF_ALL_KINDS, anonymous=True)
        template = {"bind_dn_template": f"uid={{localpart}},{PEOPLE}"}
        for more in ({}, {"filter": "(|(uid={localpart})(cn={localpart}))"}, template):
            proxy = Proxy(slapd.port)
            self.addCleanup(proxy.stop)
            provider = self.provider({**SEARCH, **STATUSES, **more, "servers": [proxy.url]})
            await self.assert_logs_in(provider, "alice")
            for what, identifier in WHO.items():
                heard = [len(line.received) for line in proxy.lines]
                await self.fails(provider, identifier, WRONG)
                self.assertEqual(len(proxy.lines), 2, what)
                asked = [
                    line.received[before:] for line, before in zip(proxy.lines, heard, strict=True)
                ]
                self.assertEqual(count(asked[0]), 1 + len(STATUSES), what)
                self.assertEqual(count(asked[1]), 1, what)
                self.assertIn(WRONG.encode(), asked[1])

    async def test_no_password(self) -> None:
        """Without a password that may be sent there is no bind, for any identifier."""
        proxy = Proxy(self.slapd(*PEOPLE_OF_ALL_KINDS).port)
        self.addCleanup(proxy.stop)
        provider = self.provider({**SEARCH, "servers": [proxy.url]})
        for identifier in WHO.values():
            for password in ("", "\0", "\0x"):
                await self.fails(provider, identifier, password)
        self.assertEqual(len(proxy.lines), 1)

    async def test_unknown_entry(self) -> None:
        """The DN that is bound for an unknown user is below the base, and another one after each
        start. If it existed and the password were right, the login would fail all the same.
        """
        names = set()
        for _ in range(2):
            names.add(await self.bound_for_unknown({"base": PEOPLE}))
            names.add(
                await self.bound_for_unknown({"bind_dn_template": f"uid={{localpart}},{PEOPLE}"})
            )
        self.assertEqual(len(names), 4)
        for name in names:
            self.assertTrue(name.endswith(f",{PEOPLE}".encode()))

    async def bound_for_unknown(self, config: dict[str, Any]) -> bytes:
        """Return the DN that is bound for an unknown user."""
        names: list[bytes] = []

        def answer(request: Any) -> list[Any]:
            if isinstance(request, pureldap.LDAPSearchRequest):
                return [pureldap.LDAPSearchResultDone(SUCCESS)]
            names.append(request.dn)
            return [pureldap.LDAPBindResponse(SUCCESS)]

        server = FakeLDAP(answer)
        self.addCleanup(server.stop)
        provider = self.provider({"servers": [server.url], "start_tls": False, **config})
        self.assertIsNone(await self.log_in(provider, "nobody", WRONG))
        (name,) = names
        return name

    async def fails(self, provider: LDAPProvider, identifier: Identifier, password: str) -> None:
        """Assert that a login fails: the account is unknown, or the password wrong."""
        try:
            account = await self.log_in(provider, identifier, password)
        except InvalidCredentials:
            return
        self.assertIsNone(account)


def _octets(number: int, size: int) -> bytes:
    """Encode a number in ``size`` octets."""
    return number.to_bytes(size, "big")


class BindTimesTests(SynchronousTestCase):
    """How long a refusal is delayed."""

    def test_drawn(self) -> None:
        """It takes as long as one of the wrong passwords that were seen, from when it was sent."""
        for drawn, expected in ((0, 2.0), (1, 5.0), (2, 2.0)):
            clock = Clock()
            times = BindTimes(clock, partial(_octets, drawn))
            for seconds in (2.0, 5.0):
                began = times.now()
                clock.advance(seconds)
                times.saw(began)
            began = times.now()
            clock.advance(0.5)
            waiting = times.wait(began)
            clock.advance(expected - 0.75)
            self.assertNoResult(waiting)
            clock.advance(0.25)
            self.successResultOf(waiting)

    def test_nothing_to_wait_for(self) -> None:
        """It is not delayed if none was seen, or if it took longer by itself."""
        clock = Clock()
        times = BindTimes(clock, bytes)
        self.successResultOf(times.wait(times.now()))
        clock.advance(1)
        times.saw(0.0)
        clock.advance(1)
        self.successResultOf(times.wait(0.0))

    def test_last_ones(self) -> None:
        """Only the latest times are kept."""
        clock = Clock()
        times = BindTimes(clock, bytes)
        clock.advance(100)
        times.saw(0.0)
        for _ in range(64):
            times.saw(times.now())
        self.successResultOf(times.wait(times.now()))


class SizeLimitTests(LDAPCase):
    """Servers that ignore the size limit."""

    async def test_abandoned(self) -> None:
        """The search is abandoned, its later responses are ignored, and the connection is used
        again.
        """
        entries = [
            pureldap.LDAPSearchResultEntry(f"uid=m{each},{PEOPLE}".encode(), [(b"uid", [b"m"])])
            for each in range(200)
        ]
        alice = pureldap.LDAPSearchResultEntry(
            f"uid=alice,{PEOPLE}".encode(), [(b"uid", [b"alice"])]
        )
        done = pureldap.LDAPSearchResultDone(SUCCESS)

        def answer(request: Any) -> list[Any]:
            if isinstance(request, pureldap.LDAPSearchRequest):
                many = b"many" in request.filter.toWire()
                return [*(entries if many else [alice]), done]
            if isinstance(request, pureldap.LDAPBindRequest):
                good = request.dn == READER_DN.encode() or request.auth == b"wonderland"
                return [pureldap.LDAPBindResponse(SUCCESS if good else INVALID_CREDENTIALS)]
            return []

        server = FakeLDAP(answer)
        self.addCleanup(server.stop)
        provider = self.provider({**SEARCH, **STATUSES, "servers": [server.url], "connections": 1})
        for _ in range(3):
            self.assertIsNone(await self.log_in(provider, "many", WRONG))
            # Another search on the connection is not disturbed.
            account = await self.log_in(provider, "alice")
            assert account is not None
        self.assertEqual(len(server.lines), 2)
        await until(lambda: len(self.abandoned(server)) == 9, "the requests to abandon")
        self.assertEqual(
            self.logged,
            ["LDAP: @many:example.com is taken for unknown: there are several entries"] * 3,
        )

    def abandoned(self, server: FakeLDAP) -> list[Any]:
        """Return the abandon requests."""
        return [each for each in server.requests if isinstance(each, pureldap.LDAPAbandonRequest)]


class SameEntryTests(LDAPCase):
    """The entry whose password is tried is the one that makes the account."""

    async def test_address_and_filter(self) -> None:
        """An account that the filter rejects by name cannot log in by e-mail address."""
        wanted = "(&(uid={localpart})(title=here))"
        provider = self.searching(
            self.slapd(
                person("bob", mail="bob@example.com", title="here"),
                person("eve", mail="eve@example.com"),
            ),
            filter=wanted,
        )
        bob, eve = EmailIdentifier("bob@example.com"), EmailIdentifier("eve@example.com")
        await self.assert_logs_in(provider, bob, PASSWORDS["bob"], "@bob:example.com")
        self.assertIsNone(await self.log_in(provider, eve, "pw-eve"))

    async def test_address_and_template(self) -> None:
        """An entry that the template does not name is unknown by its e-mail address too."""
        other = person("alice", "other", mail="other@example.com", below=f"ou=others,{SUFFIX}")
        slapd = self.slapd(other, anonymous=True)
        provider = self.provider(
            {
                "servers": [slapd.url],
                "start_tls": False,
                "base": SUFFIX,
                "bind_dn_template": f"uid={{localpart}},{PEOPLE}",
            }
        )
        self.assertIsNone(
            await self.log_in(provider, EmailIdentifier("other@example.com"), "other")
        )
        self.assertIn("a name that bind_dn_template does not make", self.logged[-1])
        alice = EmailIdentifier("alice@example.com")
        await self.assert_logs_in(provider, alice, "wonderland", "@alice:example.com")

    async def test_status_by_the_user_id(self) -> None:
        """An account is looked at by the attribute of its user ID, not by the typed name."""
        entry = person("bob", rdn="cn=The Builder", cn="The Builder", sAMAccountName="fixer")
        slapd = self.slapd(entry, anonymous=True)
        template = f"cn={{localpart}},{PEOPLE}"
        for more, typed in (
            ({"base": PEOPLE, "filter": "(sAMAccountName={localpart})"}, "fixer"),
            ({"bind_dn_template": template}, "The Builder"),
        ):
            provider = self.provider({"servers": [slapd.url], "start_tls": False, **more})
            if " " not in typed:
                await self.assert_logs_in(provider, typed, PASSWORDS["bob"], "@bob:example.com")
            for subject in ("@bob:example.com", "bob"):
                status = await provider.account_status(subject)
                self.assertIs(status, AccountStatus.ACTIVE, (more, subject))
            for subject in ("@fixer:example.com", "@The Builder:example.com"):
                self.assertIsNone(await provider.account_status(subject), (more, subject))


class VisibilityTests(LDAPCase):
    """The warning at the start about a directory that shows no account."""

    async def test_warning(self) -> None:
        """There is a warning if the search account sees no account, and none if it sees one."""
        template = f"uid={{localpart}},{PEOPLE}"
        reader = {"bind_dn": READER_DN, "bind_password": READER_PASSWORD}
        for more, seen in (
            ({"base": PEOPLE, **reader}, True),
            ({"bind_dn_template": template, **reader}, True),
            ({"base": f"ou=others,{SUFFIX}", **reader}, False),
            ({"base": PEOPLE, "attributes": {"uid": "employeeNumber"}, **reader}, False),
            ({"base": PEOPLE, "filter": "(&(uid={localpart})(title=here))", **reader}, False),
        ):
            self.events.clear()
            slapd = self.slapd()
            provider = self.provider({"servers": [slapd.url], "start_tls": False, **more})
            provider.startService()
            await provider.looking
            warned = ["sees no account below" in each for each in self.logged]
            self.assertEqual(warned, [] if seen else [True], more)
            await provider.stopService()
            slapd.remove()

    async def test_outage(self) -> None:
        """A directory that is down at the start has the line of an outage and no other."""
        slapd = self.slapd(start=False)
        provider = self.searching(slapd)
        provider.startService()
        await provider.looking
        self.assertEqual(len(self.logged), 1)
        self.assertIn("is left alone for now", self.logged[0])

    async def test_stopped(self) -> None:
        """A service that stops before the response logs nothing."""
        silent = Listener()
        self.addCleanup(silent.stop)
        port = silent.number
        for more in ({}, {"servers": [f"ldaps://127.0.0.1:{port}"]}):
            provider = self.provider({**SEARCH, "servers": [silent.url], **more})
            provider.startService()
            await until(lambda: silent.open, "the connection")
            await provider.stopService()
            await provider.looking
            await silent.empty()
        self.assertEqual(self.logged, [])


def count(octets: bytes) -> int:
    """How many messages there are."""
    number = 0
    while octets:
        length, size = octets[1], 2
        if length & 0x80:
            size = 2 + (length & 0x7F)
            length = int.from_bytes(octets[2:size], "big")
        octets = octets[size + length :]
        number += 1
    return number
