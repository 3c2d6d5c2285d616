"""TLS to directories, with certificates verified or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions
from zope.interface import implementer

from synapse_login_module.outbound.tls import VerifiedTLS


def tls_for(host: str, authorities: Sequence[Certificate] | None, verify: bool) -> Any:
    """Return what makes TLS connections to a host.

    :param authorities: the certificates of the trusted authorities; ``None`` for those of the
        system.
    :param verify: whether to verify the certificate, and that it is for this host.
    :raise ValueError: when the host is neither a host name nor an address.
    """
    return VerifiedTLS(host, authorities) if verify else _Unverified(host)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Makes TLS connections without verifying the server's certificate."""

    def __init__(self, host: str) -> None:
        self._host = b"" if isIPAddress(host) or isIPv6Address(host) else host.encode("idna")
        self._context = CertificateOptions().getContext()

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Make a connection that sends the host's name (SNI) and verifies nothing."""
        connection = SSL.Connection(self._context, None)
        if self._host:
            connection.set_tlsext_host_name(self._host)
        return connection
