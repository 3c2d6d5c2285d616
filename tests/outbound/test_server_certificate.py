"""Descriptions of servers' certificates, and the comparison of their names."""

from __future__ import annotations

import ipaddress
import warnings

from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.outbound.server_certificate import Host, chain_problem, name_problem
from tests.support.certificates import Authority, Certificate

AUTHORITY = Authority()

LABELS = st.sampled_from(["*", "a", "A", "b", "a*", "xn--a", "1", "_x", ""])
PRESENTED = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
HOSTS = st.lists(st.sampled_from(["a", "B", "xn--a", "_x"]), min_size=1, max_size=4).map(".".join)


def read(certificate: Certificate) -> x509.Certificate:
    """Return the certificate of a pair."""
    return x509.load_pem_x509_certificate(certificate.certificate)


def service_identity_takes(certificate: x509.Certificate, host: str) -> bool:
    """Say whether service-identity accepts a certificate for a host."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            verify_certificate_hostname(certificate, host)
        except (CertificateError, VerificationError, ValueError):
            return False
    return True


class NameTests(SynchronousTestCase):
    """The hosts that a certificate is for."""

    @settings(max_examples=200)
    @given(presented=PRESENTED, host=HOSTS)
    def test_as_service_identity(self, presented: str, host: str) -> None:
        """A name is accepted if and only if service-identity accepts it."""
        certificate = read(AUTHORITY.sign(f"DNS:{presented}"))
        taken = name_problem(certificate, Host.parse(host)) is None
        self.assertEqual(taken, service_identity_takes(certificate, host))

    def test_odd_names_beside_a_good_one(self) -> None:
        """Other entries of the certificate have no effect."""
        odd = ("*", "DNS:", "*.*.lan", "urn:uuid:1", "x@localhost", "::1")
        certificate = read(AUTHORITY.sign(*odd, "localhost"))
        self.assertIsNone(name_problem(certificate, Host.parse("localhost")))
        certificate = read(AUTHORITY.sign(*odd))
        problem = name_problem(certificate, Host.parse("localhost"))
        self.assertEqual(
            problem,
            "its certificate is not for localhost, but for other names: *, , *.*.lan, ::1",
        )

    def test_addresses(self) -> None:
        """An address is compared as such, however it is written."""
        certificate = read(AUTHORITY.sign("::1", "127.0.0.1"))
        for host in ("::1", "0:0:0:0:0:0:0:1", "::1%lo", "127.0.0.1"):
            self.assertIsNone(name_problem(certificate, Host.parse(host)), host)
        for host in ("::2", "127.0.0.2", "::ffff:127.0.0.1", "localhost"):
            self.assertIsNotNone(name_problem(certificate, Host.parse(host)), host)

    def test_unreadable(self) -> None:
        """Names that cannot be read are no names."""
        value = b"\x30\x05\x87\x03abc"  # an address of three octets
        broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, value)
        certificate = read(AUTHORITY.sign(common_name="localhost", extension=broken))
        problem = name_problem(certificate, Host.parse("localhost"))
        self.assertEqual(problem, "its certificate names nobody: its subjectAltName cannot be read")

    def test_one_line(self) -> None:
        """Any number of names, with any characters, makes one short line."""
        names = [f"DNS:{index}\nx.{'y' * 5000}" for index in range(100)]
        problem = name_problem(read(AUTHORITY.sign(*names, common_name="x")), Host.parse("a"))
        assert problem is not None
        self.assertTrue(problem.isprintable())
        self.assertTrue(problem.endswith("… and 95 more"), problem)
        self.assertLess(len(problem), 500)


class HostTests(SynchronousTestCase):
    """Hosts of URLs."""

    def test_good(self) -> None:
        """Names are converted to ASCII and lower case, addresses are parsed."""
        for text, name in (
            ("LDAP.Example.com", "ldap.example.com"),
            ("ldap.example.com.", "ldap.example.com"),
            ("b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example", "xn--bcher-kva.example"),
            ("auth_service", "auth_service"),
        ):
            self.assertEqual(Host.parse(text), Host(name, None))
        self.assertEqual(Host.parse("::1"), Host("::1", ipaddress.IPv6Address("::1")))

    def test_bad(self) -> None:
        """A text that no certificate can be for is rejected."""
        for text in ("", ".", "a..b", "*", "*.example.com", "a b", "a\0b", "x" * 64, "\u2024"):
            with self.assertRaises(ValueError):
                Host.parse(text)


class ChainTests(SynchronousTestCase):
    """OpenSSL's errors about a chain."""

    def test_kinds(self) -> None:
        """Each of OpenSSL's error numbers has a text, even an unknown one."""
        certificate = read(AUTHORITY.sign("localhost"))
        for error, words in (
            (20, "is not signed by a known authority (its issuer: the authority of the tests)"),
            (7, "(one named the authority of the tests has another key)"),
            (10, f"its certificate expired on {certificate_end(certificate)}"),
            (79, "has the wrong purpose: it is no authority's"),
            (66, "(OpenSSL's error 66)"),
            (12345, "is not good: not verified (OpenSSL's error 12345)"),
        ):
            self.assertIn(words, chain_problem(certificate, error, 0))
        self.assertIn(
            "is signed by localhost, whose own expired on", chain_problem(certificate, 10, 1)
        )


def certificate_end(certificate: x509.Certificate) -> str:
    """The moment that it expires at, to the minute."""
    return f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
