"""Whose certificates are good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions
from zope.interface import implementer

from synapse_login_module.providers.tls import VerifiedTLS


def tls_for(host: str, authorities: Sequence[Certificate] | None, verify: bool) -> Any:
    """What makes the TLS side of connections to a host.

    :param authorities: whose certificates are good; ``None`` for those that the system trusts.
    :param verify: whether the certificate, and that it is this host's, is checked at all.
    :raise ValueError: when the host is no host.
    """
    return VerifiedTLS(host, authorities) if verify else _Unverified(host)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """TLS with whoever answers."""

    def __init__(self, host: str) -> None:
        self._host = b"" if isIPAddress(host) or isIPv6Address(host) else host.encode("idna")
        self._context = CertificateOptions().getContext()

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Make a connection that names the host, and checks nothing."""
        connection = SSL.Connection(self._context, None)
        if self._host:
            connection.set_tlsext_host_name(self._host)
        return connection
