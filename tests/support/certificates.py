"""Certificates for tests: good, of an unknown authority, expired, or of another host."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.ssl import Certificate as AuthorityCertificate
from twisted.internet.ssl import PrivateCertificate


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, both as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both into a folder; where they are."""
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return certificate, key

    def server(self, clients: Authority | None = None) -> Any:
        """The context factory of a server that shows it.

        :param clients: whose certificates a client must show.
        """
        own = PrivateCertificate.loadPEM(self.certificate + self.key)
        if clients is None:
            return own.options()
        return own.options(AuthorityCertificate.loadPEM(clients.certificate))


class Authority:
    """Who signs certificates.

    :ivar certificate: its own, as PEM.
    """

    def __init__(self, name: str = "the authority of the tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.certificate = (
            _builder(self._name, self._name, self._key.public_key(), 365)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    def write(self, path: Path) -> Path:
        """Write its certificate into a file."""
        path.write_bytes(self.certificate)
        return path

    def sign(self, *hosts: str, days: int = 30) -> Certificate:
        """Make a certificate for hosts, names or addresses.

        :param days: for how long it is good; one with fewer than none has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(hosts[0]), self._name, key.public_key(), days)
            .add_extension(x509.SubjectAlternativeName([_host(each) for each in hosts]), False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            ),
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
