"""Examining a server that a part of the service connects to: its TLS, and how fast it answers."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from synapse_login_module.errors import ProviderUnavailable, ProviderUnreachable
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import failed, good, on_one_line, warning
from synapse_login_module.outbound.cancellable import CancellableEndpoint
from synapse_login_module.outbound.server_certificate import end_of
from synapse_login_module.outbound.tls import BadCertificate

SOON = 30
"""The days before its end from which a certificate is a warning."""

RENEW = "renew the server's certificate; if a program renews it, see why that has failed"
CORRECT_CERTIFICATE = "give the server a certificate for this name, or name its authority in"


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Closes the connection once the TLS handshake is complete.

    :ivar shown: fires with the server's certificate.
    """

    transport: Any

    def __init__(self) -> None:
        self.shown: Deferred[crypto.X509] = Deferred()

    def handshakeCompleted(self) -> None:
        """Take the certificate."""
        certificate = self.transport.getPeerCertificate()
        self.transport.abortConnection()
        if not self.shown.called:
            self.shown.callback(certificate)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail, unless the handshake was complete."""
        if not self.shown.called:
            self.shown.errback(reason)


async def certificate_of(
    tls: Any, host: str, port: int, reactor: Any, seconds: float
) -> crypto.X509:
    """Connect and verify the certificate of a server; return it.

    :param tls: makes TLS connections, and verifies them.
    :raise Exception: when there is no such connection within the time.
    """

    async def shake_hands() -> crypto.X509:
        endpoint = wrapClientTLS(tls, HostnameEndpoint(reactor, host, port, seconds))
        protocol = _Handshake()
        await connectProtocol(CancellableEndpoint(endpoint), protocol)
        return await protocol.shown

    return await Deferred.fromCoroutine(shake_hands()).addTimeout(seconds, reactor)


def of_certificate(certificate: crypto.X509, what: str, now: float) -> Finding:
    """Judge the end of a certificate that was accepted.

    :param what: what was looked at.
    :param now: seconds since the epoch.
    """
    end = end_of(certificate.to_cryptography())
    days = (end.timestamp() - now) / 86400
    found = f"the certificate is good until {end:%Y-%m-%d}"
    if days < 0:
        return failed(what, f"the certificate expired on {end:%Y-%m-%d}", RENEW)
    if days < SOON:
        return warning(what, f"{found}, {days:.0f} days from now", RENEW)
    return good(what, found)


async def of_tls(
    url: str, tls: IPolicyForHTTPS, reactor: Any, seconds: float, now: float, key: str
) -> list[Finding]:
    """Examine the certificate of an HTTP server, if the URL is of https.

    :param tls: verifies certificates.
    :param key: the keys of the configuration that say whom to trust, for the advice.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname is None:
        return []
    port = parts.port or 443
    what = f"TLS of {parts.hostname}"
    try:
        creator = tls.creatorForNetloc(parts.hostname.encode("idna"), port)
        certificate = await certificate_of(creator, parts.hostname, port, reactor, seconds)
    except BadCertificate as error:
        return [failed(what, str(error), advice_on(str(error), key))]
    except SSL.Error as error:
        return [failed(what, f"TLS failed: {_words(error)}", "see what serves TLS there")]
    except Exception:  # that there is no connection is said by the request
        return []
    return [of_certificate(certificate, what, now)]


def advice_on(problem: str, key: str) -> str:
    """Return what to do about a certificate that is rejected.

    :param problem: why it is rejected.
    """
    if "expired" in problem:
        return RENEW
    return f"{CORRECT_CERTIFICATE} {key}"


def in_words(error: ProviderUnavailable) -> str:
    """Describe why a request to a backend failed."""
    text = on_one_line(error)
    return f"it cannot be reached ({text})" if isinstance(error, ProviderUnreachable) else text


def _words(error: SSL.Error) -> str:
    parts = error.args[0] if error.args else ()
    return on_one_line(", ".join(each[-1] for each in parts) or "no reason given")


def advice_on_connecting(problem: object, key: str) -> str:
    """Return what to do about a server that cannot be reached.

    :param problem: the error.
    :param key: the key of the configuration that names the server.
    """
    text = str(problem).lower()
    for words, advice in (
        (("expired",), RENEW),
        (("certificate",), f"{CORRECT_CERTIFICATE} ca_file"),
        (("dns", "resolve", "lookup"), f"correct the name in {key}, or the DNS"),
        (("refused",), f"start the server there, or correct {key}"),
        (
            ("seconds", "timeout", "timed out"),
            f"see whether the server hangs, a firewall lies in between, or {key} is wrong",
        ),
    ):
        if any(word in text for word in words):
            return advice
    return f"see the server's own log, and {key}"
