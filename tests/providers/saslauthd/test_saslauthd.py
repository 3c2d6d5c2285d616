"""Tests for saslauthd as a provider: Debian's own, and ones that misbehave."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from synapse_login_module import testing
from synapse_login_module.errors import (
    ConfigError,
    InvalidCredentials,
    ProviderBusy,
    ProviderUnavailable,
    ProviderUnreachable,
)
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus, Level
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.providers.saslauthd.provider import SaslauthdProvider
from synapse_login_module.providers.saslauthd.wire import question
from tests.providers.case import PASSWORD, ProviderCase, email, fake_hashing, phone, reactor, user
from tests.providers.saslauthd.test_wire import GARBAGE, OUTAGES, REFUSALS, strings_in
from tests.support.accounts import ALICE
from tests.support.pam import PAMService
from tests.support.saslauthd import Saslauthd
from tests.support.waiting import until

ALICE_ACCOUNT = Account(ALICE, subject="alice")


class _Line(Protocol):
    """A connection of a client."""

    transport: Any

    def __init__(self, server: ScriptedSaslauthd) -> None:
        self._server = server
        self.received = b""

    def connectionMade(self) -> None:
        self._server.lines.add(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        asked = strings_in(self.received)
        self._server.asked.append(asked)
        if self._server.decide is not None:
            self.transport.write(question(self._server.decide(asked)))
        else:
            self._server.respond(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.lines.discard(self)


class ScriptedSaslauthd(Factory):
    """A socket on which a test answers.

    :ivar respond: called with the connection at each question.
    :ivar decide: if it is there, called in its place with the strings; it returns the answer.
    :ivar asked: the strings of each question.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="scripted-"))
        self.socket = self.folder / "mux"
        self.lines: set[_Line] = set()
        self.asked: list[list[bytes]] = []
        self.respond: Callable[[Any], object] = lambda transport: None
        self.decide: Callable[[list[bytes]], bytes] | None = None
        self._listening = reactor.listenUNIX(str(self.socket), self)

    def buildProtocol(self, addr: Any) -> _Line:
        return _Line(self)

    def answer(self, text: bytes) -> None:
        """Answer so from now on."""
        self.respond = lambda transport: transport.write(question(text))

    def say(self, given: bytes) -> None:
        """Send these bytes from now on, and close the connection."""

        def respond(transport: Any) -> None:
            transport.write(given)
            transport.loseConnection()

        self.respond = respond

    async def stop(self) -> None:
        """Listen no more."""
        await maybeDeferred(self._listening.stopListening)
        for line in list(self.lines):
            line.transport.abortConnection()
        await until(lambda: not self.lines)
        self.folder.rmdir()


class RealCase(ProviderCase):
    """A provider on Debian's saslauthd, with a PAM service of the test's own."""

    def real(self, *lines: str, **keys: Any) -> SaslauthdProvider:
        """Start a saslauthd; a provider for it.

        :param lines: the lines of its PAM service; by default those of :class:`PAMService`.
        """
        service = PAMService(self.folder())
        if lines:
            service.write(*lines)
        daemon = Saslauthd(service.environment)
        self.addCleanup(daemon.remove)
        daemon.start_and_wait(daemon.listens)
        config = {"socket": str(daemon.socket), "failure_time": 50, **keys}
        provider: SaslauthdProvider = self.build(SaslauthdProvider, config)
        return provider


class ContractTests(testing.PasswordProviderContract, testing.DiagnosableContract, RealCase):
    """The contract where every refusal is final."""

    knows_accounts = False

    def make_provider(self) -> IPasswordProvider:
        return self.real()

    async def test_interface(self) -> None:
        """A refusal of an unknown user is one of the interface's answers."""
        await self.fails(self.real().authenticate(user("nobody"), "x"), InvalidCredentials)

    async def test_unknown_user(self) -> None:
        """An unknown user is refused like a wrong password."""
        provider = self.real()
        for name in ("nobody", "alice'", "é", "alice)(uid=*", "x" * 200):
            await self.fails(provider.authenticate(user(name), PASSWORD), InvalidCredentials)
        for name in ("", "al\0ice", "al ice", "alice:x"):
            self.assertIsNone(await provider.authenticate(user(name), PASSWORD))


class NextContractTests(testing.PasswordProviderContract, RealCase):
    """The contract where every refusal goes on to the next provider."""

    knows_accounts = False

    def make_provider(self) -> IPasswordProvider:
        return self.real(unknown="next")

    async def test_wrong_password(self) -> None:
        """A wrong password is not told from an unknown user: the next is asked."""
        provider = self.real(unknown="next")
        for password in ("looking-glass", "", "wonderland\0", "x" * 400, "\ud800"):
            self.assertIsNone(await provider.authenticate(user("alice"), password))


class RealTests(RealCase):
    """Debian's saslauthd."""

    async def test_states(self) -> None:
        """An account that PAM refuses after a right password is locked; a wrong password tells
        nothing of that.
        """
        provider = self.real("auth required MATRIX", "account required pam_deny.so")
        account = await provider.authenticate(user("alice"), PASSWORD)
        assert account is not None
        self.assertIs(account.status, AccountStatus.LOCKED)
        await self.fails(provider.authenticate(user("alice"), "x"), InvalidCredentials)


class ScriptedCase(ProviderCase):
    """A provider on a socket of the test's own."""

    def setUp(self) -> None:
        self.server = ScriptedSaslauthd()
        self.addCleanup(self.server.stop)

    def provider(self, **keys: Any) -> SaslauthdProvider:
        """A provider for the socket."""
        config = {"socket": str(self.server.socket), "failure_time": 1, **keys}
        provider: SaslauthdProvider = self.build(SaslauthdProvider, config)
        return provider

    def ask(self, provider: SaslauthdProvider, name: str = "alice") -> Deferred[Any]:
        """Log in."""
        return provider.authenticate(user(name), PASSWORD)


class AnswerTests(ScriptedCase):
    """Each answer of a saslauthd."""

    async def test_question(self) -> None:
        """It is asked about the name in lower case, with the service and the realm."""
        self.server.answer(b"OK")
        provider = self.provider(service="matrix", realm="EXAMPLE.COM")
        self.assertEqual(await self.ask(provider, "Alice"), ALICE_ACCOUNT)
        self.assertEqual(self.server.asked, [[b"alice", b"wonderland", b"matrix", b"EXAMPLE.COM"]])

    async def test_answers(self) -> None:
        """A refusal is one, and all else that is not OK is an outage."""
        provider = self.provider()
        for answer in REFUSALS:
            self.server.answer(answer)
            await self.fails(self.ask(provider), InvalidCredentials)
        for answer in (*OUTAGES, *GARBAGE):
            self.server.answer(answer)
            await self.fails(self.ask(provider), ProviderUnavailable)
        self.assertEqual(await provider.account_status("alice"), AccountStatus.UNVERIFIABLE)

    async def test_pieces(self) -> None:
        """An answer may come byte by byte, and the connection may end after it."""

        def respond(transport: Any) -> None:
            *first, last = (bytes([byte]) for byte in question(b"OK"))
            for delay, byte in enumerate(first):
                reactor.callLater(delay / 100, transport.write, byte)
            reactor.callLater(0.05, send_last, transport, last)

        def send_last(transport: Any, last: bytes) -> None:
            transport.write(last)
            transport.loseConnection()

        self.server.respond = respond
        self.assertEqual(await self.ask(self.provider()), ALICE_ACCOUNT)

    async def test_not_asked(self) -> None:
        """It is not asked about a name that makes no user ID, or that is an address, nor about a
        password that it would read in another way.
        """
        self.server.answer(b"OK")
        provider = self.provider()
        for name, password in (
            ("käse", PASSWORD),
            ("x" * 300, PASSWORD),
            ("alice", ""),
            ("alice", f"{PASSWORD}\0"),
            ("alice", "x" * 257),
        ):
            asked = provider.authenticate(user(name), password)
            if len(name) < 300:
                await self.fails(asked, InvalidCredentials)
            else:
                self.assertIsNone(await asked)
        for identifier in (email(), phone(), user("alice", "elsewhere.example")):
            self.assertIsNone(await provider.authenticate(identifier, PASSWORD))
        self.assertEqual(self.server.asked, [])

    async def test_even(self) -> None:
        """Each refusal takes the same time, and costs one decoy."""
        environment = self.environment()
        config = {"socket": str(self.server.socket), "failure_time": 300}
        provider = self.build(SaslauthdProvider, config, environment)
        self.server.answer(b"NO")
        for password in ("x", ""):
            began = reactor.seconds()
            await self.fails(provider.authenticate(user("alice"), password), InvalidCredentials)
            self.assertTrue(0.3 <= reactor.seconds() - began < 0.8)
        self.assertEqual(fake_hashing(environment).decoys, ["x", ""])


class OutageTests(ScriptedCase):
    """A saslauthd that is not there, or hangs."""

    async def outage(self, provider: SaslauthdProvider, text: str, kind: Any) -> None:
        """A login is an outage, and the doctor finds it."""
        error = await self.fails(self.ask(provider), kind)
        self.assertIn(text, str(error))
        (found,) = await provider.diagnose()
        self.assertIs(found.level, Level.FAILED)
        self.assertIn(text, found.found)
        self.assertNotIn("see the log", found.advice if kind is ProviderUnreachable else "")

    async def test_no_socket(self) -> None:
        """There is no socket."""
        provider = self.provider(socket=str(self.server.folder / "none"))
        await self.outage(provider, "No such file", ProviderUnreachable)

    async def test_left_over(self) -> None:
        """The socket is left from one that has ended."""
        path = self.server.folder / "left"
        listening = reactor.listenUNIX(str(path), self.server)
        os.link(path, kept := self.server.folder / "kept")
        await maybeDeferred(listening.stopListening)
        self.addCleanup(kept.unlink)
        await self.outage(
            self.provider(socket=str(kept)), "Connection refused", ProviderUnreachable
        )

    async def test_closed(self) -> None:
        """It closes the connection, before or in its answer."""
        provider = self.provider()
        for said in (b"", b"\0", b"\0\x02O"):
            self.server.say(said)
            await self.outage(provider, "closed the connection", ProviderUnavailable)

    async def test_hanging(self) -> None:
        """It does not answer. Its connections are closed, and others are let in then."""
        provider = self.provider(timeout=200, connections=2)
        asked = [self.ask(provider) for _ in range(3)]
        await self.fails(asked.pop(), ProviderBusy)
        for each in asked:
            error = await self.fails(each, ProviderUnavailable)
            self.assertEqual(str(error), "saslauthd did not answer in 0.2 seconds")
        await until(lambda: not self.server.lines)
        self.server.answer(b"OK")
        self.assertEqual(await self.ask(provider), ALICE_ACCOUNT)

    async def test_crowd(self) -> None:
        """It accepts no connection, and too many wait for that: busy, which is no outage."""
        path = self.server.folder / "full"
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(path.unlink)
        self.addCleanup(listening.close)
        listening.bind(str(path))
        listening.listen(1)
        provider = self.provider(socket=str(path), timeout=200)
        asked = [self.ask(provider) for _ in range(6)]
        errors = [await self.fails(each, ProviderUnavailable) for each in asked]
        self.assertEqual(
            [isinstance(each, ProviderBusy) for each in errors], [False] * 2 + [True] * 4
        )

    async def test_cancelled(self) -> None:
        """A login that is cancelled closes its connection, and is no outage."""
        provider = self.provider()
        asked = self.ask(provider)
        await until(lambda: self.server.asked)
        asked.cancel()
        await self.fails(asked, CancelledError)
        await until(lambda: not self.server.lines)

    async def test_slow(self) -> None:
        """One that takes longer than ``failure_time`` is a warning of the doctor."""
        answer = question(b"NO PAM auth error")
        self.server.respond = lambda transport: reactor.callLater(0.1, transport.write, answer)
        for failure_time, level in ((50, Level.WARNING), (5_000, Level.OK)):
            (found,) = await self.provider(failure_time=failure_time).diagnose()
            self.assertIs(found.level, level, found)

    async def test_accepts_all(self) -> None:
        """One that accepts any password is found."""
        self.server.answer(b"OK")
        (found,) = await self.provider().diagnose()
        self.assertIs(found.level, Level.FAILED)
        self.assertIn("any password", found.found)


class ConfigTests(SynchronousTestCase):
    """The configuration."""

    def test_interfaces(self) -> None:
        """The class is a plugin and implements a provider."""
        self.assertTrue(IPluginClass.providedBy(SaslauthdProvider))
        self.assertTrue(verifyClass(IPasswordProvider, SaslauthdProvider))

    def test_mistakes(self) -> None:
        """Each mistake is named."""
        for config, path in (
            ({"service": "a/b"}, "service"),
            ({"realm": "a b"}, "realm"),
            ({"failure_time": 10_000}, "failure_time"),
            ({"connections": 0}, "connections"),
            ({"socket": "x" * 103}, "socket"),
        ):
            with self.assertRaises(ConfigError) as raised:
                SaslauthdProvider.parse_config(config, Path("/run"))
            self.assertEqual(raised.exception.path, path)
        SaslauthdProvider.parse_config({"socket": "x" * 102}, Path("/run"))

    def test_not_tried(self) -> None:
        """check-config says what was not connected to."""
        parsed = SaslauthdProvider.parse_config({"socket": "mux"}, Path("/etc"))
        self.assertEqual(parsed.not_tried, ["saslauthd at /etc/mux"])
