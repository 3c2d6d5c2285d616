"""Directories that are down, hang, die, send garbage or send without end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ldaptor.protocols import pureldap  # type: ignore[import-untyped]
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from synapse_login_module import testing
from synapse_login_module.errors import InvalidCredentials, ProviderBusy, ProviderUnavailable
from synapse_login_module.model import AccountStatus, EmailIdentifier, PhoneIdentifier
from synapse_login_module.providers.ldap import LDAPProvider
from synapse_login_module.providers.ldap.messages import MESSAGE_BYTES
from synapse_login_module.providers.ldap.result_codes import INVALID_CREDENTIALS, SUCCESS
from synapse_login_module.providers.wrappers.chain import ProviderChain
from tests.providers.case import NoAnswer
from tests.providers.ldap.case import SEARCH, LDAPCase, person, reactor, user
from tests.providers.ldap.wire import FakeLDAP, Flood, Listener, Proxy, Talker, Trickler
from tests.support.ports import free_ports
from tests.support.slapd import PEOPLE, READER_DN, Slapd
from tests.support.waiting import together, until

BRIEF = {"connect_timeout": 1000, "read_timeout": 200, "timeout": 5000, "retry_after": "1h"}
"""Times for a directory that does not answer."""

PATIENT = {"connect_timeout": "20s", "read_timeout": "20s", "timeout": "30s"}
"""Times for what has to be over long before them."""

BUSY, UNAVAILABLE, REFERRAL, OTHER = 51, 52, 10, 80

REFUSALS = (19, 32, 34, 48, 49, 50, 53)
"""The results of a bind that are about who binds; RFC 4511, appendix A."""

ENTRY = pureldap.LDAPSearchResultEntry(f"uid=alice,{PEOPLE}".encode(), [(b"uid", [b"alice"])])
DONE = pureldap.LDAPSearchResultDone(SUCCESS)


class OutageCase(LDAPCase):
    """A test case with servers that misbehave."""

    def at(self, *servers: Listener | Slapd, **more: Any) -> LDAPProvider:
        """A provider that goes to these servers."""
        return self.provider({**SEARCH, "servers": [each.url for each in servers], **more})

    def proxy(self, slapd: Slapd) -> Proxy:
        """A proxy before a slapd."""
        proxy = Proxy(slapd.port)
        self.addCleanup(proxy.stop)
        return proxy

    def silent(self) -> Listener:
        """A server that takes connections and says nothing."""
        server = Listener()
        self.addCleanup(server.stop)
        return server

    def fake(self, search: Sequence[Any] | None, bind: Sequence[Any] | None = ()) -> FakeLDAP:
        """A server that answers each search, and each bind but that of bind_dn, in this way."""

        def answer(request: Any) -> Sequence[Any] | None:
            if isinstance(request, pureldap.LDAPSearchRequest):
                return search
            if isinstance(request, pureldap.LDAPBindRequest):
                own = request.dn == READER_DN.encode()
                return [pureldap.LDAPBindResponse(SUCCESS)] if own else bind
            return None

        server = FakeLDAP(answer)
        self.addCleanup(server.stop)
        return server


class DownTests(OutageCase):
    """Directories that are not there."""

    async def test_before_the_start(self) -> None:
        """A directory that is down when the service starts is used once it is up."""
        slapd = self.slapd(start=False)
        provider = self.at(slapd)
        for _ in range(2):
            self.assertIn("refused", await self.unavailable(provider))
            with self.assertRaises(ProviderUnavailable):
                await provider.account_status("@alice:example.com")
        slapd.start()
        await self.assert_logs_in(provider, "alice")
        self.assertEqual(
            [line.split(": ")[2] if "alone" in line else line for line in self.logged],
            ["it cannot be reached", f"LDAP: {slapd.url} answers again"],
        )
        self.assertIn(f"LDAP: {slapd.url} is left alone for now", self.logged[0])

    async def test_no_such_host(self) -> None:
        """A host without an address is an outage."""
        provider = self.provider(
            {**SEARCH, "servers": ["ldap://nowhere.invalid"], "allow_plaintext": True, **PATIENT}
        )
        self.assertIn("cannot be reached", await self.unavailable(provider))

    async def test_restart(self) -> None:
        """A restart of the directory between two logins has no effect on the second."""
        slapd = self.slapd()
        provider = self.at(slapd)
        await self.assert_logs_in(provider, "alice")
        slapd.stop()
        slapd.start()
        await self.assert_logs_in(provider, "alice")
        self.assertIs(await provider.account_status("@alice:example.com"), AccountStatus.ACTIVE)
        self.assertEqual(self.logged, [])

    async def test_dies_during_the_bind(self) -> None:
        """A directory that dies during the bind is an outage, and not a wrong password."""
        await self.dies_at(b"wonderland")

    async def test_dies_during_the_search(self) -> None:
        """A directory that dies during the search is an outage, and not an unknown user."""
        await self.dies_at(b"alice")

    async def dies_at(self, word: bytes) -> None:
        """Have a directory die when it hears a word, in the first login and in the second."""
        for logins in range(2):
            proxy = self.proxy(self.slapd())
            provider = self.at(proxy)
            for _ in range(logins):
                await self.assert_logs_in(provider, "alice")

            def watch(data: bytes, proxy: Proxy = proxy) -> bool:
                if word not in data:
                    return True
                proxy.hang_up()
                proxy.stop_listening()
                return False

            proxy.watch = watch
            message = await self.unavailable(provider)
            self.assertTrue("closed" in message or "refused" in message, message)

    async def test_dies_and_next(self) -> None:
        """A login during which a directory dies is finished by the next one."""
        for word in (b"alice", b"wonderland"):
            for logins in range(2):
                proxy = self.proxy(self.slapd())
                provider = self.at(proxy, self.slapd())
                for _ in range(logins):
                    await self.assert_logs_in(provider, "alice")

                def watch(data: bytes, proxy: Proxy = proxy, word: bytes = word) -> bool:
                    if word in data:
                        proxy.hang_up()
                        proxy.stop_listening()
                    return word not in data

                proxy.watch = watch
                await self.assert_logs_in(provider, "alice")
                self.assertIn(f"{proxy.url} is left alone for now", self.logged[-1])

    async def test_bind_account(self) -> None:
        """A wrong ``bind_password`` is an outage, and the log names the setting."""
        provider = self.searching(self.slapd(), bind_password="not-this")
        self.secrets.add("not-this")
        expected = f"it refuses bind_dn {READER_DN} with bind_password: invalidCredentials"
        self.assertIn(expected, await self.unavailable(provider))
        self.assertIn(expected, self.logged[-1])

    async def test_no_such_base(self) -> None:
        """A base that does not exist is an outage, and does not make all accounts look gone."""
        provider = self.searching(self.slapd(), base="ou=nowhere,dc=example,dc=com")
        self.assertIn("noSuchObject", await self.unavailable(provider))
        self.assertIn("below ou=nowhere,dc=example,dc=com", self.logged[-1])
        with self.assertRaises(ProviderUnavailable):
            await provider.account_status("@alice:example.com")

    async def test_not_allowed_to_search(self) -> None:
        """A directory that shows no entries has no users, and is no error."""
        provider = self.provider(
            {"servers": [self.slapd().url], "start_tls": False, "base": SEARCH["base"]}
        )
        self.assertIn("noSuchObject", await self.unavailable(provider))


class FailoverTests(OutageCase):
    """Several servers."""

    def pair(self) -> tuple[Slapd, Slapd]:
        """Start two directories with different users."""
        return self.slapd(person("first")), self.slapd(person("second"))

    async def test_first(self) -> None:
        """The first server is used as long as it answers."""
        provider = self.at(*self.pair())
        await self.assert_logs_in(provider, "first")
        self.assertIsNone(await self.log_in(provider, "second"))

    async def test_over_and_back(self) -> None:
        """The second server is used while the first is down, and the first when it is back."""
        first, second = self.pair()
        provider = self.at(first, second, retry_after=1)
        await self.assert_logs_in(provider, "first")
        first.stop()
        await self.assert_logs_in(provider, "second")
        self.assertIn(f"{first.url} is left alone for now", self.logged[-1])
        await self.assert_logs_in(provider, "second")
        first.start()
        await deferLater(reactor, 0.01)
        await self.assert_logs_in(provider, "first")
        self.assertIn(f"{first.url} answers again", self.logged[-1])
        self.assertIsNone(await self.log_in(provider, "second"))

    async def test_left_alone(self) -> None:
        """A server that failed is not tried again too soon, when there is another."""
        first, second = self.pair()
        provider = self.at(first, second, retry_after="1h")
        first.stop()
        await self.assert_logs_in(provider, "second")
        first.start()
        await self.assert_logs_in(provider, "second")
        second.stop()
        await self.assert_logs_in(provider, "first")

    async def test_silent(self) -> None:
        """A server that hangs holds up one login, which the next server then answers."""
        silent = self.silent()
        provider = self.at(silent, self.slapd(), **BRIEF)
        for _ in range(3):
            await self.assert_logs_in(provider, "alice")
        self.assertEqual(len(silent.lines), 1)
        self.assertIn("it did not answer within 0.2 seconds", self.logged[-1])

    async def test_busy(self) -> None:
        """A server that says that it is busy or unavailable is left for the next one."""
        for code in (BUSY, UNAVAILABLE):
            fakes = (
                self.fake([pureldap.LDAPSearchResultDone(code, errorMessage="no time")]),
                self.fake([ENTRY, DONE], [pureldap.LDAPBindResponse(code)]),
            )
            for fake in fakes:
                provider = self.at(fake, self.slapd())
                await self.assert_logs_in(provider, "alice")
                self.assertIn(f"{fake.url} is left alone for now: it answers", self.logged[-1])
                self.assertIn(("busy", "unavailable")[code - BUSY], self.logged[-1])

    async def test_all_down(self) -> None:
        """When all are down, each is named with its reason."""
        first, second = (f"ldap://127.0.0.1:{port}" for port in free_ports(2))
        message = await self.unavailable(self.provider({**SEARCH, "servers": [first, second]}))
        self.assertIn(f"{first}: it cannot be reached", message)
        self.assertIn(f"{second}: it cannot be reached", message)


class HangTests(OutageCase):
    """Directories that take a connection and do not answer."""

    async def test_deadline(self) -> None:
        """A login ends after the timeout, and its connection too."""
        silent = self.silent()
        provider = self.at(silent, **BRIEF)
        self.assertIn("did not answer within 0.2 seconds", await self.unavailable(provider))
        await silent.empty()

    async def test_total(self) -> None:
        """The timeout includes all of a login, even the waiting."""
        provider = self.at(
            self.silent(), self.silent(), connect_timeout=300, read_timeout=300, timeout=400
        )
        self.assertIn("no answer within 0.4 seconds", await self.unavailable(provider))

    async def test_bind_hangs(self) -> None:
        """A directory that answers the search and not the bind is an outage."""
        fake = self.fake([ENTRY, DONE], None)
        self.assertIn("did not answer", await self.unavailable(self.at(fake, **BRIEF)))

    async def test_trickle(self) -> None:
        """The timeout includes a response that comes an octet at a time."""
        trickler = Trickler()
        self.addCleanup(trickler.stop)
        provider = self.at(trickler, **BRIEF)
        self.assertIn("did not answer within 0.2 seconds", await self.unavailable(provider))
        await trickler.empty()

    async def test_hangs_later(self) -> None:
        """A directory that hangs after logins went well is an outage until it answers."""
        proxy = self.proxy(self.slapd())
        provider = self.at(proxy, **BRIEF)
        await self.assert_logs_in(provider, "alice")
        proxy.silent = True
        self.assertIn("did not answer", await self.unavailable(provider))
        with self.assertRaises(ProviderUnavailable):
            await provider.account_status("@alice:example.com")
        proxy.silent = False
        await self.assert_logs_in(provider, "alice")

    async def test_at_once(self) -> None:
        """While no server answers, one caller tries to connect, and the others fail at once."""
        provider = self.at(self.silent(), **{**BRIEF, **PATIENT, "read_timeout": 200})
        await self.unavailable(provider)
        trying = provider.authenticate(user("alice"), "wonderland")
        for _ in range(100):
            self.failureResultOf(
                provider.authenticate(user("alice"), "wonderland"), ProviderUnavailable
            )
            self.failureResultOf(provider.account_status("@alice:example.com"), ProviderUnavailable)
        self.assertNoResult(trying)
        with self.assertRaises(ProviderUnavailable):
            await trying

    async def test_hundred_logins(self) -> None:
        """Of a hundred logins few wait, the others are shed at once; other providers' logins and
        looks at accounts go on, and all is well when the directory is.
        """
        slapd = self.slapd()
        proxy = self.proxy(slapd)
        proxy.silent = True
        provider = self.at(proxy, **BRIEF, connections=4, queue=16)
        other = testing.FakeProvider({"@bob:example.com": "can-we-fix-it"})
        chain = ProviderChain([other, provider], testing.FakeHashing())
        logins = [chain.authenticate(user("alice"), "wonderland") for _ in range(100)]
        shed = [login for login in logins if login.called]
        self.assertEqual(len(shed), 80)
        for login in shed:
            self.failureResultOf(login, ProviderBusy)
        for _ in range(100):
            account = self.successResultOf(chain.authenticate(user("bob"), "can-we-fix-it"))
            assert account is not None
            self.assertEqual(account.user_id, "@bob:example.com")
            status = self.successResultOf(chain.account_status("fake", "@bob:example.com"))
            self.assertIs(status, AccountStatus.ACTIVE)
        with self.assertRaises(ProviderUnavailable):
            await chain.account_status("ldap", "alice")
        for login in logins:
            if login not in shed:
                with self.assertRaises(ProviderUnavailable):
                    await login
        self.assertLessEqual(len(proxy.lines), 9)
        proxy.silent = False
        await self.assert_logs_in(provider, "alice")

    async def test_cancelled(self) -> None:
        """A login that is cancelled gives its place to the next."""
        proxy = self.proxy(self.slapd())
        provider = self.at(proxy, connections=1, queue=1, **PATIENT)
        for prepare in (0, 1):
            for _ in range(prepare):
                await self.assert_logs_in(provider, "alice")
            proxy.silent = True
            held = provider.authenticate(user("alice"), "wonderland")
            waiting = provider.authenticate(user("alice"), "wonderland")
            await deferLater(reactor, 0.01)
            for login in (waiting, held):
                login.cancel()
                self.failureResultOf(login, CancelledError)
            proxy.silent = False
            await self.assert_logs_in(provider, "alice")

    async def test_cancelled_early(self) -> None:
        """A client that goes away while the server's name is looked up is no outage of the server,
        and others' logins go on.
        """
        url = f"ldap://localhost:{self.slapd().port}"
        provider = self.provider({**SEARCH, "servers": [url], "connections": 1})
        with_no_answer = NoAnswer(self)
        gone = provider.authenticate(user("alice"), "wonderland")
        waiting = provider.authenticate(user("alice"), "wonderland")
        with_no_answer.end()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertIsNotNone(await waiting)
        self.assertEqual(self.logged, [])

    async def test_stop(self) -> None:
        """A service that stops does not wait for logins."""
        silent = self.silent()
        provider = self.at(silent, **PATIENT, connections=1)
        logins = [provider.authenticate(user("alice"), "wonderland") for _ in range(3)]
        while not silent.lines:
            await deferLater(reactor, 0.01)
        await provider.stopService()
        for login in logins:
            with self.assertRaises(ProviderUnavailable):
                await login

    async def test_many_at_once(self) -> None:
        """Many logins share few connections, and all succeed."""
        slapd = self.slapd(*(person(f"user{number}") for number in range(50)))
        proxy = self.proxy(slapd)
        provider = self.at(proxy, connections=3, queue=100)
        accounts = await together(*(self.log_in(provider, f"user{n}") for n in range(50)))
        self.assertEqual(
            [account.user_id for account in accounts if account],
            [f"@user{number}:example.com" for number in range(50)],
        )
        self.assertEqual(len(proxy.lines), 6)


class NonsenseTests(OutageCase):
    """Directories that do not speak LDAP, or send too much of it."""

    async def test_garbage(self) -> None:
        """What is not LDAP ends the connection, and is an outage."""
        message = pureldap.LDAPMessage(pureldap.LDAPBindResponse(SUCCESS), id=1).toWire()
        for garbage in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\0" * 100,
            b"\xff" * 100,
            b"\x30\x00",
            b"\x30\x80\x02\x01\x01\x61\x00\x00\x00",
            b"\x30\x03\x02\x01\x01",
            b"\x30\x05\x02\x01\x01\x61\x00",
            b"\x30\x05\x02\x01\x01\x7f\x00",
            b"\x30\x84\xff\xff\xff\xff" + b"\0" * 100,
            b"\x30\x89" + b"\xff" * 100,
            b"\x30\x08\x02\x01\x01\x61\x03\x0a\x01\x00",
            b"\x30\x82\x7f\x00" + b"\x30\x82\x7e\x00" * 8_128,
            message[:4] + b"\x63" + message[5:],
            pureldap.LDAPMessage(DONE, id=1).toWire(),
            pureldap.LDAPMessage(pureldap.LDAPExtendedResponse(SUCCESS), id=1).toWire(),
            message.replace(b"\x02\x01\x01", b"\x02\x01\x07"),
            message.replace(b"\x0a\x01\x00", b"\x04\x01\x00"),
        ):
            server = Talker(garbage)
            self.addCleanup(server.stop)
            provider = self.at(server, **PATIENT)
            self.assertIn("not LDAP", await self.unavailable(provider), repr(garbage[:20]))
            await server.empty()

    async def test_random(self) -> None:
        """For any octets the login fails."""
        for seed in range(20):
            server = Talker(b"\x30" + random.Random(seed).randbytes(7 * seed))
            self.addCleanup(server.stop)
            await self.unavailable(self.at(server, **BRIEF))
            await server.empty()

    async def test_numbers_for_text(self) -> None:
        """A number in the place of text is not used as a length to allocate."""
        entry = pureldap.LDAPMessage(ENTRY, id=1).toWire()
        done = pureldap.LDAPMessage(DONE, id=1).toWire()
        for text in (b"\x04\x05alice", b"\x04\x03uid", b"\x04%"):
            server = Talker(entry.replace(text, b"\x02" + text[1:]) + done)
            self.addCleanup(server.stop)
            provider = self.provider({"servers": [server.url], "start_tls": False, "base": "dc=x"})
            self.assertIn("not LDAP", await self.unavailable(provider), repr(text))

    async def test_long_message(self) -> None:
        """A message that is too long, of 10 MB or without end, is not read."""
        for head in (
            b"\x30\x84\x00\x98\x96\x80",
            b"\x30\x83" + (MESSAGE_BYTES + 1).to_bytes(3, "big"),
            b"\x30\x88\x7f" + b"\xff" * 7,
        ):
            await self.flooded(head, b"\0" * 65_536)

    async def test_long_search(self) -> None:
        """A search with endless entries is abandoned."""
        introduced = pureldap.LDAPMessage(pureldap.LDAPBindResponse(SUCCESS), id=1).toWire()
        entry = pureldap.LDAPMessage(
            pureldap.LDAPSearchResultEntry(b"uid=a", [(b"uid", [b"x" * 10_000])]), id=2
        )
        reference = pureldap.LDAPMessage(
            pureldap.LDAPSearchResultReference([pureldap.LDAPString(b"ldap://elsewhere")]), id=2
        )
        await self.flooded(introduced, reference.toWire(), bind_first=True)
        flood = Flood(introduced, entry.toWire(), after=2)
        self.addCleanup(flood.stop)
        self.assertIsNone(await self.log_in(self.at(flood, **PATIENT), "alice"))
        await until(lambda: len(flood.open) < len(flood.lines), "the end of the flood")
        self.assertLess(flood.sent, 20_000_000)
        self.assertFalse([line for line in self.logged if flood.url in line])

    async def flooded(self, head: bytes, again: bytes, bind_first: bool = False) -> None:
        """Assert that a server cannot send much more than the bound."""
        flood = Flood(head, again, after=2 if bind_first else 1)
        self.addCleanup(flood.stop)
        self.assertIn("not LDAP, or too much", await self.unavailable(self.at(flood, **PATIENT)))
        await flood.empty()
        # The system's buffers take some data before the connection is aborted.
        self.assertLess(flood.sent, 20_000_000)

    async def test_unasked_answer(self) -> None:
        """A notice that the connection is closed ends it, and the next login is on another."""
        notice = pureldap.LDAPMessage(pureldap.LDAPExtendedResponse(UNAVAILABLE), id=0).toWire()
        server = Talker(notice)
        self.addCleanup(server.stop)
        self.assertIn("announced", await self.unavailable(self.at(server, **PATIENT)))

    async def test_referrals(self) -> None:
        """A reference among the entries is not followed; a referral in their place is an outage."""
        elsewhere = self.silent()
        reference = pureldap.LDAPSearchResultReference(
            [pureldap.LDAPString(f"{elsewhere.url}/dc=example".encode())]
        )
        refused = [pureldap.LDAPBindResponse(INVALID_CREDENTIALS)]
        provider = self.at(self.fake([reference, DONE], refused), **PATIENT)
        self.assertIsNone(await self.log_in(provider, "alice"))
        self.assertIsNone(await provider.account_status("@alice:example.com"))
        provider = self.at(self.fake([pureldap.LDAPSearchResultDone(REFERRAL)]), **PATIENT)
        self.assertIn("answered with referral", await self.unavailable(provider))
        self.assertEqual(elsewhere.lines, [])

    async def test_odd_addresses(self) -> None:
        """An invalid e-mail address is neither searched for nor logged, whatever characters the
        directory would ignore.
        """
        refused = [pureldap.LDAPBindResponse(INVALID_CREDENTIALS)]
        fake = self.fake([ENTRY, ENTRY, DONE], refused)
        provider = self.at(fake)
        for odd in ("alice\x1b[31m@example.com", "alice@example.com\nlogin outcome=ok", "\ud800"):
            for identifier in (EmailIdentifier(odd), PhoneIdentifier(odd)):
                self.assertIsNone(await self.log_in(provider, identifier, "x"))
        self.assertEqual(self.logged, [])
        half = "\ud800".encode("utf-8", "surrogatepass")
        for word in (b"[31m", b"outcome=ok", b"alice@example.com", half):
            asked = [each for each in fake.requests if word in each.toWire()]
            self.assertEqual(asked, [], word)

    async def test_odd_results(self) -> None:
        """A result of another kind is an outage, with its text on one line of the log."""
        text = "out of\n\x1b[31morder " * 100
        odd = pureldap.LDAPSearchResultDone(OTHER, errorMessage=text)
        provider = self.at(self.fake([odd]))
        self.assertIn("other (out of [31morder", await self.unavailable(provider))
        self.assertLess(len(self.logged[-1]), 400)
        bind = pureldap.LDAPBindResponse(OTHER, errorMessage=text)
        provider = self.at(self.fake([ENTRY, DONE], [bind]))
        self.assertIn("a bind is answered with other", await self.unavailable(provider))
        self.assertIn("the bind of @alice:example.com", self.logged[-1])

    async def test_codes(self) -> None:
        """Each result of a bind is a refusal, whatever the filters, or an outage; and it is the
        same for a user whom the directory does not have.
        """
        for code in (*range(1, 123), 4096):
            if code in (BUSY, UNAVAILABLE):
                continue  # they are for the next server: FailoverTests.test_busy
            bind = [pureldap.LDAPBindResponse(code, errorMessage="inactivated")]
            for search, refusal in (([ENTRY, DONE], InvalidCredentials), ([DONE], None)):
                provider = self.at(self.fake(search, bind), locked_filter="389ds")
                if code not in REFUSALS:
                    self.assertIn("inactivated", await self.unavailable(provider))
                elif refusal is None:
                    self.assertIsNone(await self.log_in(provider, "alice"))
                else:
                    await self.assert_rejected(provider, "alice")
                await provider.stopService()
