"""Certificates for tests: good ones, and bad ones of every kind."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.ssl import Certificate as AuthorityCertificate
from twisted.internet.ssl import PrivateCertificate


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, both as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both into a folder; return their paths."""
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return certificate, key

    def server(self, clients: Authority | None = None) -> Any:
        """Make the context factory of a server with this certificate.

        :param clients: the authority that must have signed clients' certificates.
        """
        own = PrivateCertificate.loadPEM(self.certificate + self.key)
        if clients is None:
            return own.options()
        return own.options(AuthorityCertificate.loadPEM(clients.certificate))


class Authority:
    """An authority that signs certificates.

    :param days: the number of days that its own certificate is valid.
    :param constraints: the name constraints of its own certificate.
    :ivar certificate: its own certificate as PEM.
    """

    def __init__(
        self,
        name: str = "the authority of the tests",
        days: int = 365,
        constraints: x509.NameConstraints | None = None,
    ) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        basic = x509.BasicConstraints(ca=True, path_length=None)
        builder = _builder(self._name, self._name, self._key.public_key(), -60, days)
        builder = builder.add_extension(basic, critical=True)
        if constraints is not None:
            builder = builder.add_extension(constraints, critical=True)
        signed = builder.sign(self._key, hashes.SHA256())
        self.certificate = signed.public_bytes(serialization.Encoding.PEM)

    def write(self, path: Path) -> Path:
        """Write its own certificate into a file."""
        path.write_bytes(self.certificate)
        return path

    def sign(
        self,
        *hosts: str,
        days: int = 30,
        since: int = -60,
        common_name: str | None = None,
        usage: x509.ObjectIdentifier | None = None,
        extension: x509.ExtensionType | None = None,
    ) -> Certificate:
        """Sign a new certificate.

        :param hosts: its names: host names, addresses, e-mail addresses and URIs.
        :param days: the days from now until it expires; negative if it has expired.
        :param since: the days from now until it becomes valid; negative for the past.
        :param common_name: the common name; by default the first of the hosts.
        :param usage: the only extended key usage.
        :param extension: a further extension.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(common_name or hosts[0])
        builder = _builder(subject, self._name, key.public_key(), since, days)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
        return _signed(builder, hosts, key, self._key)


def self_signed(*hosts: str) -> Certificate:
    """Make a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(hosts[0])
    return _signed(_builder(name, name, key.public_key(), -60, 30), hosts, key, key)


class ServedCertificate(NamedTuple):
    """A served certificate, and the problem that the client must find.

    :param host: the host that the client was told to connect to.
    :param problem: the beginning of the message; ``None`` for a good certificate.
    """

    certificate: Certificate
    host: str
    problem: str | None


DOMAIN_HOST = "ldap.home.example.com"
INTERNATIONAL_HOST = "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example"


def served_certificates(authority: Authority) -> dict[str, ServedCertificate]:
    """Return certificates of each kind, by name, for servers on loopback.

    :param authority: the authority that the client trusts.
    """
    sign, host, address = authority.sign, "localhost", "127.0.0.1"
    nobody = "its certificate names nobody: it has no host name and no address"
    unknown = "its certificate is not signed by a known authority"

    def others(names: str, host: str = host) -> str:
        return f"its certificate is not for {host}, but for other names: {names}"

    another = Authority("another authority")
    kinds: dict[str, tuple[Certificate, str, str | None]] = {
        "good name": (sign(host), host, None),
        "good name among others": (sign("*", "urn:uuid:1", "LocalHost", "a@b.example"), host, None),
        "good address": (sign(address), address, None),
        "good wildcard": (sign("*.home.example.com"), DOMAIN_HOST, None),
        "good international name": (sign("xn--bcher-kva.example"), INTERNATIONAL_HOST, None),
        "good with a purpose": (sign(host, usage=ExtendedKeyUsageOID.SERVER_AUTH), host, None),
        "no name": (sign(common_name="ldap"), host, f"{nobody} (its common name ldap does"),
        "no name but a common one": (sign(common_name=host), host, nobody),
        "e-mail address alone": (sign("admin@localhost"), host, nobody),
        "URI alone": (sign("https://localhost/"), host, nobody),
        "all names": (sign("*"), host, others("*")),
        "all names of a top-level domain": (sign("*.lan"), host, others("*.lan")),
        "all names of a domain of two labels": (
            sign("*.com"),
            "example.com",
            others("*.com", "example.com"),
        ),
        "wildcard for two labels": (
            sign("*.example.com"),
            DOMAIN_HOST,
            others("*.example.com", DOMAIN_HOST),
        ),
        "address for a name": (sign(address), host, others(address)),
        "name for an address": (sign(host), address, others(host, address)),
        "address that is written as a name": (
            sign("DNS:127.0.0.1"),
            address,
            others(address, address),
        ),
        "another name": (sign("ldap.example.com"), host, others("ldap.example.com")),
        "another address": (sign("127.0.0.2"), address, others("127.0.0.2", address)),
        "expired": (sign(host, days=-1), host, "its certificate expired on 20"),
        "not yet valid": (sign(host, since=1), host, "its certificate is not valid before 20"),
        "for clients": (
            sign(host, usage=ExtendedKeyUsageOID.CLIENT_AUTH),
            host,
            "its certificate has the wrong purpose: it is not for TLS servers"
            " (it is for: clientAuth)",
        ),
        "self-signed": (self_signed(host), host, f"{unknown} (it is self-signed)"),
        "another authority's": (
            another.sign(host),
            host,
            f"{unknown} (its issuer: another authority)",
        ),
        "of another authority of that name": (Authority().sign(host), host, unknown),
    }
    return {kind: ServedCertificate(*each) for kind, each in kinds.items()}


def _signed(
    builder: x509.CertificateBuilder,
    hosts: tuple[str, ...],
    key: ec.EllipticCurvePrivateKey,
    signing_key: ec.EllipticCurvePrivateKey,
) -> Certificate:
    if hosts:
        names = x509.SubjectAlternativeName([_general_name(each) for each in hosts])
        builder = builder.add_extension(names, critical=False)
    return Certificate(
        builder.sign(signing_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    since: int,
    days: int,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=since))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    """Guess the kind of a name from its form; ``DNS:`` before it marks a host name."""
    if name.startswith("DNS:"):
        return x509.DNSName(name.removeprefix("DNS:"))
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if ":" in name:
        return x509.UniformResourceIdentifier(name)
    return x509.RFC822Name(name) if "@" in name else x509.DNSName(name)
