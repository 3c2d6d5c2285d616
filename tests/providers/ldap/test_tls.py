"""TLS with a real slapd: which certificates are accepted, and what is sent in the clear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldaptor.protocols import pureldap  # type: ignore[import-untyped]
from OpenSSL import SSL
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from synapse_login_module.providers.ldap import LDAPProvider
from tests.providers.case import EverythingIsHere
from tests.providers.ldap.case import SEARCH, LDAPCase, reactor
from tests.providers.ldap.wire import Listener, Proxy, Talker
from tests.support.certificates import Authority, served_certificates
from tests.support.certificates import Certificate as Pair
from tests.support.ports import has_ipv6
from tests.support.slapd import READER_PASSWORD, Slapd

BOTH = ("ldap", "ldaps")


class TLSCase(LDAPCase):
    """A test case with an authority of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.ca_file = str(self.authority.write(Path(self.mktemp()).absolute()))

    def secure(self, slapd: Slapd, scheme: str, host: str = "127.0.0.1", **more: Any) -> Any:
        """Make a provider that uses StartTLS, or TLS from the start."""
        port = slapd.tls_port if scheme == "ldaps" else slapd.port
        config = {
            **SEARCH,
            "servers": [f"{scheme}://{host}:{port}"],
            "start_tls": True,
            "ca_file": self.ca_file,
            **more,
        }
        return self.provider(config)


class CertificateTests(TLSCase):
    """Certificates of all kinds, with StartTLS and with TLS from the start."""

    timeout = 180

    async def test_every_kind(self) -> None:
        """A good certificate is accepted; any other is an outage, with its reason in the log."""
        EverythingIsHere(self)
        for kind, (certificate, host, expected) in served_certificates(self.authority).items():
            slapd = self.slapd(certificate=certificate)
            for scheme in BOTH:
                provider = self.secure(slapd, scheme, host)
                if expected is None:
                    await self.assert_logs_in(provider, "alice")
                    await self.assert_rejected(provider, "alice")
                    await self.assert_logs_in(provider, "alice")
                    continue
                del self.events[:]
                message = await self.unavailable(provider)
                self.assertIn(expected, message, kind)
                (line,) = self.logged
                self.assertIn(f"LDAP: {scheme}://{host}", line, kind)
                self.assertIn(f" is left alone for now: {expected}", line, kind)
            slapd.remove()

    async def test_nothing_leaves(self) -> None:
        """A server with a bad certificate gets no name and no password."""
        EverythingIsHere(self)
        for kind, (certificate, host, expected) in served_certificates(self.authority).items():
            for scheme in BOTH:
                server = Eavesdropper(certificate, start_tls=scheme == "ldap")
                servers = [f"{scheme}://{host}:{server.number}"]
                provider = self.provider(
                    {**SEARCH, "servers": servers, "start_tls": True, "ca_file": self.ca_file}
                )
                await self.unavailable(provider)
                self.assertEqual(bool(server.overheard), expected is None, kind)
                await provider.stopService()
                await server.stop()

    async def test_ipv6(self) -> None:
        """A literal IPv6 address is checked as one."""
        if not has_ipv6():
            self.skipTest("there is no IPv6 loopback")
        for names, is_good in ((["::1"], True), (["DNS:::1", "127.0.0.1"], False)):
            server = Eavesdropper(self.authority.sign(*names), False, "::1")
            self.addCleanup(server.stop)
            servers = [f"ldaps://[::1]:{server.number}"]
            provider = self.provider({**SEARCH, "servers": servers, "ca_file": self.ca_file})
            message = await self.unavailable(provider)
            self.assertEqual("is not for ::1, but for other names: ::1" in message, not is_good)
            self.assertEqual(bool(server.overheard), is_good)

    async def test_system_authorities(self) -> None:
        """Without ca_file the system's authorities are trusted, and the test's is not."""
        slapd = self.slapd(certificate=self.authority.sign("127.0.0.1"))
        for scheme in BOTH:
            message = await self.unavailable(self.secure(slapd, scheme, ca_file=None))
            self.assertIn("its certificate is not signed by a known authority", message)

    async def test_unverified(self) -> None:
        """Without verification every certificate is accepted, and the log warns of it."""
        slapd = self.slapd(certificate=Authority("another").sign("elsewhere", days=-1))
        for scheme in BOTH:
            for host in ("127.0.0.1", "localhost"):
                provider = self.secure(slapd, scheme, host, verify_certificate=False)
                self.assertIn("certificates are not checked", self.logged[-1])
                await self.assert_logs_in(provider, "alice")

    async def test_good_second(self) -> None:
        """After a server with a bad certificate the next one is asked."""
        bad = self.slapd(certificate=Authority("another").sign("127.0.0.1"))
        good = self.slapd(certificate=self.authority.sign("127.0.0.1"))
        provider = self.secure(bad, "ldap", servers=[bad.url, f"ldaps://127.0.0.1:{good.tls_port}"])
        await self.assert_logs_in(provider, "alice")


class HandshakeTests(TLSCase):
    """Data before and after the handshake."""

    async def test_nothing_in_the_clear(self) -> None:
        """Neither names nor passwords go over the wire in the clear."""
        slapd = self.slapd(certificate=self.authority.sign("127.0.0.1"))
        for scheme, port in (("ldap", slapd.port), ("ldaps", slapd.tls_port)):
            proxy = Proxy(port)
            self.addCleanup(proxy.stop)
            servers = [f"{scheme}://127.0.0.1:{proxy.number}"]
            provider = self.secure(slapd, scheme, servers=servers)
            await self.assert_logs_in(provider, "alice")
            self.assertTrue(proxy.received)
            for secret in (b"wonderland", b"alice", b"reader", READER_PASSWORD.encode()):
                self.assertNotIn(secret, proxy.received)

    async def test_no_tls(self) -> None:
        """A server without StartTLS gets no password, and is an outage."""
        proxy = Proxy(self.slapd().port)
        self.addCleanup(proxy.stop)
        message = await self.unavailable(self.at(proxy))
        self.assertIn("it refuses StartTLS: protocolError", message)
        self.assertNotIn(READER_PASSWORD.encode(), proxy.received)

    async def test_injected(self) -> None:
        """Data that a server sends in the clear after StartTLS is not read as if sent under TLS."""
        agreed = pureldap.LDAPExtendedResponse(0)
        injected = pureldap.LDAPBindResponse(0)
        server = Talker(
            b"".join(
                pureldap.LDAPMessage(each, id=number).toWire()
                for number, each in ((1, agreed), (2, injected))
            )
        )
        self.addCleanup(server.stop)
        self.assertIn("in the clear after StartTLS", await self.unavailable(self.at(server)))

    async def test_silent_handshake(self) -> None:
        """A server that agrees to StartTLS and is silent then is an outage after the timeout."""
        agreed = pureldap.LDAPMessage(pureldap.LDAPExtendedResponse(0), id=1)
        server = Talker(agreed.toWire())
        self.addCleanup(server.stop)
        provider = self.at(server, connect_timeout="1s")
        self.assertIn("cannot be reached within 1 seconds", await self.unavailable(provider))
        await server.empty()

    async def test_silent_from_the_start(self) -> None:
        """A server that is silent at the start of TLS is an outage after the timeout."""
        server = Listener()
        self.addCleanup(server.stop)
        servers = [f"ldaps://127.0.0.1:{server.number}"]
        provider = self.at(server, connect_timeout="1s", servers=servers)
        self.assertIn("cannot be reached within 1 seconds", await self.unavailable(provider))
        await server.empty()

    async def test_garbage(self) -> None:
        """A server that sends something else at the start of TLS is an outage."""
        server = Talker(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.addCleanup(server.stop)
        servers = [f"ldaps://127.0.0.1:{server.number}"]
        self.assertIn("TLS failed", await self.unavailable(self.at(server, servers=servers)))

    async def test_server_name(self) -> None:
        """The server is sent its name (SNI), unless that is an address."""
        names: list[bytes | None] = []
        pair = self.authority.sign("localhost", "127.0.0.1")
        server = listening_with_tls(pair, names)
        self.addCleanup(server.stopListening)
        for host in ("localhost", "127.0.0.1"):
            for verify in (True, False):
                provider = self.provider(
                    {
                        **SEARCH,
                        "servers": [f"ldaps://{host}:{server.getHost().port}"],
                        "ca_file": self.ca_file,
                        "verify_certificate": verify,
                    }
                )
                await self.unavailable(provider)
        self.assertEqual(names, [b"localhost", b"localhost", None, None])

    def at(self, server: Listener, **more: Any) -> LDAPProvider:
        """A provider that wants StartTLS from a server."""
        config = {**SEARCH, "servers": [server.url], "start_tls": True, "ca_file": self.ca_file}
        return self.provider({**config, **more})


class Eavesdropper(Factory):
    """A server that shows a certificate, and hangs up at the first word under TLS.

    :param start_tls: whether TLS begins after the first request.
    :ivar overheard: what it was told under TLS.
    """

    def __init__(self, pair: Pair, start_tls: bool, interface: str = "127.0.0.1") -> None:
        self.overheard = b""
        self.options = pair.server()
        self.start_tls = start_tls
        if start_tls:
            self._port = reactor.listenTCP(0, self, interface=interface)
        else:
            self._port = reactor.listenSSL(0, self, self.options, interface=interface)
        self.number: int = self._port.getHost().port

    def buildProtocol(self, addr: object) -> Protocol:
        return _Overhears(self)

    async def stop(self) -> None:
        """Listen no more."""
        await maybeDeferred(self._port.stopListening)


class _Overhears(Protocol):
    transport: Any

    def __init__(self, server: Eavesdropper) -> None:
        self._server = server
        self._secure = not server.start_tls

    def dataReceived(self, data: bytes) -> None:
        if self._secure:
            self._server.overheard += data
            self.transport.loseConnection()
            return
        self._secure = True
        agreed = pureldap.LDAPMessage(pureldap.LDAPExtendedResponse(0), id=1)
        self.transport.write(agreed.toWire())
        self.transport.startTLS(self._server.options)


class _HangUp(Factory):
    """Hangs up when TLS is up."""

    def buildProtocol(self, addr: object) -> Protocol:
        return _HangingUp()


@implementer(IHandshakeListener)
class _HangingUp(Protocol):
    def handshakeCompleted(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


def listening_with_tls(pair: Pair, names: list[bytes | None]) -> Any:
    """A TLS server that hangs up after the handshake, and notes the names it is asked for by."""
    options = PrivateCertificate.loadPEM(pair.certificate + pair.key).options()
    context = options.getContext()

    def asked(connection: SSL.Connection) -> None:
        names.append(connection.get_servername())

    context.set_tlsext_servername_callback(asked)
    return reactor.listenTCP(
        0, TLSMemoryBIOFactory(options, False, _HangUp()), interface="127.0.0.1"
    )
