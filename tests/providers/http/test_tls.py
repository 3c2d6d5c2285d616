"""Certificates of HTTPS services, on real sockets."""

from __future__ import annotations

from typing import Any

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.providers import HTTPProvider
from tests.providers.backends import HTTPBackend
from tests.providers.case import PASSWORD, EverythingIsHere, ProviderCase, lines, user
from tests.support.certificates import Authority, Certificate, served_certificates
from tests.support.ports import has_ipv6


class HTTPSCertificateTests(ProviderCase):
    """Which certificates of HTTPS services are accepted."""

    def setUp(self) -> None:
        EverythingIsHere(self)
        self.authority = Authority()
        self.write("ca.pem", self.authority.certificate)

    async def ask(self, backend: HTTPBackend, host: str, **config: Any) -> str | None:
        """What is wrong with a service that is asked for Alice, if anything is."""
        ascii_host = host if host.isascii() else host.encode("idna").decode()
        url = f"https://{ascii_host}:{backend.port}"
        provider = self.build(HTTPProvider, {"endpoint": url, "ca_file": "ca.pem", **config})
        try:
            self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        except ProviderUnavailable as error:
            return str(error)
        finally:
            await provider.stopService()
        return None

    def serve(self, certificate: Certificate) -> HTTPBackend:
        """A service that shows a certificate."""
        backend = HTTPBackend(certificate.server())
        self.addCleanup(backend.stop)
        return backend

    async def test_every_kind(self) -> None:
        """A good certificate is accepted. Any other is an outage with its reason, and no request is
        sent.
        """
        for kind, (certificate, host, expected) in served_certificates(self.authority).items():
            backend = self.serve(certificate)
            problem = await self.ask(backend, host)
            if expected is None:
                self.assertIsNone(problem, kind)
                self.assertEqual(len(backend.service.seen), 1, kind)
            else:
                self.assertIsNotNone(problem, kind)
                self.assertTrue(f"{problem}".startswith(f"TLS: {expected}"), f"{kind}: {problem}")
                self.assertEqual(backend.service.seen, [], kind)

    async def test_ipv6(self) -> None:
        """A literal IPv6 address is connected to, and checked as one."""
        if not has_ipv6():
            self.skipTest("there is no IPv6 loopback")
        for names, is_good in ((["::1"], True), (["DNS:::1", "127.0.0.1"], False)):
            backend = HTTPBackend(self.authority.sign(*names).server(), interface="::1")
            self.addCleanup(backend.stop)
            problem = await self.ask(backend, "[::1]")
            self.assertEqual(problem is None, is_good, problem)
            self.assertEqual(len(backend.service.seen), int(is_good))
            if problem is not None:
                self.assertIn("is not for ::1, but for other names: ::1, 127.0.0.1", problem)

    async def test_expired_authority(self) -> None:
        """A certificate of an expired authority is rejected, and the error names the authority."""
        old = Authority("an old authority", days=-1)
        self.write("old.pem", old.certificate)
        backend = self.serve(old.sign("localhost"))
        problem = await self.ask(backend, "localhost", ca_file="old.pem")
        self.assertIn("signed by an old authority, whose own expired on", str(problem))
        self.assertEqual(backend.service.seen, [])

    async def test_system_authorities(self) -> None:
        """Without ca_file the system's authorities are trusted, and the test's is not."""
        backend = self.serve(self.authority.sign("localhost"))
        problem = await self.ask(backend, "localhost", ca_file=None)
        self.assertIn("its certificate is not signed by a known authority", str(problem))

    async def test_log(self) -> None:
        """The verification itself logs nothing: the caller logs the outage."""
        events = self.catch_log()
        backend = self.serve(self.authority.sign(common_name="ldap"))
        self.assertIsNotNone(await self.ask(backend, "localhost"))
        self.assertEqual(lines(events), [])
