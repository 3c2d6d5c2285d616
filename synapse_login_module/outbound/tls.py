"""TLS to the backends of providers: verifying their certificates, and reading certificate files."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from OpenSSL import SSL, crypto
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    KeyPair,
    PrivateCertificate,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.config.files import read_bytes
from synapse_login_module.errors import ConfigError
from synapse_login_module.outbound.server_certificate import Host, chain_problem, name_problem

T = TypeVar("T")

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class BadCertificate(Exception):
    """A server's certificate is rejected; the message begins with "its certificate"."""


@implementer(IOpenSSLClientConnectionCreator)
class VerifiedTLS:
    """Makes TLS connections to one host and verifies its certificate.

    Twisted's own check accepts a certificate that service-identity cannot read. From 26.4 on it
    accepts one without any name. Here, a certificate that is not known to be good closes the
    connection before any data is sent. The protocol's ``connectionLost`` gets
    :class:`BadCertificate`.

    :param host: a host name or an address, as in a URL.
    :param authorities: the certificates of the trusted authorities; ``None`` for those of the
        system.
    :param client_certificate: sent to a server that asks for one.
    :raise ValueError: when the host is neither a host name nor an address.
    """

    def __init__(
        self,
        host: str,
        authorities: Sequence[Certificate] | None = None,
        client_certificate: PrivateCertificate | None = None,
    ) -> None:
        self._host = Host.parse(host)
        trust = platformTrust() if authorities is None else trustRootFromCertificates(authorities)
        shown: dict[str, Any] = {}
        if client_certificate is not None:
            shown = {
                "privateKey": client_certificate.privateKey.original,
                "certificate": client_certificate.original,
            }
        self._context = CertificateOptions(trustRoot=trust, **shown).getContext()

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Make a connection that sends the host's name (SNI) and verifies the certificate."""
        connection = SSL.Connection(self._context, None)
        if self._host.address is None:
            connection.set_tlsext_host_name(self._host.name.encode("ascii"))
        # The protocol refers to the connection, and the connection to its callback. A weak
        # reference to the protocol keeps that from being a cycle.
        protocol = weakref.ref(tlsProtocol)

        def verify(_: SSL.Connection, shown: crypto.X509, error: int, depth: int, ok: int) -> bool:
            problem = _problem(shown, error, depth, bool(ok), self._host)
            if problem is None:
                return True
            if (refused := protocol()) is not None:
                refused.failVerification(Failure(BadCertificate(problem)))
            return False

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection


def _problem(shown: crypto.X509, error: int, depth: int, ok: bool, host: Host) -> str | None:
    """Check one certificate of a chain; return the problem, or ``None`` when there is none.

    OpenSSL calls this for each certificate of a good chain, the server's own last, and for each
    problem.
    """
    try:
        certificate = shown.to_cryptography()
        if not ok:
            return chain_problem(certificate, error, depth)
        return name_problem(certificate, host) if depth == 0 else None
    except Exception as unreadable:  # parsers may raise anything; the certificate is rejected
        return f"its certificate cannot be read: {type(unreadable).__name__}"


def read_authorities(path: Path) -> list[Certificate]:
    """Read the certificates of a PEM file.

    :raise ConfigError: when there are none, or one is broken.
    """
    found = _CERTIFICATE.findall(read_bytes(path))
    if not found:
        raise ConfigError("", "there is no certificate in it")
    return [_parsed(Certificate.loadPEM, pem, "a certificate in it is broken") for pem in found]


def read_certificate(path: Path) -> Certificate:
    """Read the first certificate of a PEM file.

    :raise ConfigError: when there is none, or one is broken.
    """
    return read_authorities(path)[0]


def read_private_key(path: Path, certificate: Certificate) -> PrivateCertificate:
    """Read the private key of a certificate from a PEM file.

    :return: the certificate with its key.
    :raise ConfigError: when it is not a private key, has a passphrase, or belongs to another
        certificate.
    """

    def parse(pem: bytes) -> PrivateCertificate:
        # Without a passphrase given, OpenSSL would ask for one on the terminal.
        pair = KeyPair(crypto.load_privatekey(crypto.FILETYPE_PEM, pem, b""))
        both: PrivateCertificate = PrivateCertificate.fromCertificateAndKeyPair(certificate, pair)
        return both

    problem = "it is not a private key, has a passphrase, or belongs to another certificate"
    return _parsed(parse, read_bytes(path), problem)


def _parsed(parse: Callable[[bytes], T], pem: bytes, problem: str) -> T:
    try:
        return parse(pem)
    except (SSL.Error, crypto.Error, VerifyError, ValueError):
        raise ConfigError("", problem) from None
