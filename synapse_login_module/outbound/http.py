"""An HTTP client for one backend, with timeouts, bounded responses and verified certificates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

from hyperlink import EncodedURL
from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
)
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from synapse_login_module.errors import ProviderBusy, ProviderUnavailable, ProviderUnreachable
from synapse_login_module.outbound.cancellable import CancellableEndpoint
from synapse_login_module.outbound.tls import BadCertificate, VerifiedTLS

MAX_ANSWER = 64 * 1024
"""The most bytes of a response, its head included."""

_IDLE_SECONDS = 60


@dataclass(frozen=True)
class RequestLimits:
    """The limits of the requests to a backend.

    :param connect: seconds until there is a connection.
    :param total: seconds until the whole response is there.
    :param requests: how many requests may be under way at once.
    """

    connect: int
    total: float
    requests: int


@dataclass(frozen=True)
class BackendResponse:
    """An HTTP response."""

    code: int
    body: bytes


@implementer(IPolicyForHTTPS)
class TLSPolicy:
    """Verifies the certificates of servers, and sends a client certificate to those that ask.

    :param trust: the certificates of the trusted authorities; ``None`` for those of the system.
    :param client_certificate: sent to a server that asks for one.
    """

    def __init__(
        self,
        trust: list[Certificate] | None = None,
        client_certificate: PrivateCertificate | None = None,
    ) -> None:
        self._trust = trust
        self._client_certificate = client_certificate

    def creatorForNetloc(self, hostname: bytes, port: int) -> VerifiedTLS:
        """Return what makes TLS connections to this host and verifies its certificate."""
        return VerifiedTLS(hostname.decode("ascii"), self._trust, self._client_certificate)


class BackendClient:
    """Sends requests over persistent connections.

    Redirects are not followed. Responses are not compressed, so that none can expand. Cookies are
    not kept, so that the login of one user does not affect another.

    :param reactor: connects and waits.
    :param tls: verifies certificates.
    :param limits: the limits of the requests.
    """

    def __init__(self, reactor: Any, tls: IPolicyForHTTPS, limits: RequestLimits) -> None:
        self._reactor = reactor
        self._limits = limits
        self._under_way = 0
        self._pool: Any = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = limits.requests
        self._pool.cachedConnectionTimeout = _IDLE_SECONDS
        # This class sends a request again that failed on a kept connection, so the pool must not.
        self._pool.retryAutomatically = False
        endpoints = _Endpoints(reactor, tls, limits.connect)
        agent = _Plain(Agent.usingEndpointFactory(reactor, endpoints, self._pool))
        no_cookies: Any = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._client = HTTPClient(agent, no_cookies)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        may_repeat: bool = True,
    ) -> Deferred[BackendResponse]:
        """Send a request, a second time if the server closes a connection without a response.

        :param may_repeat: whether the request may be sent a second time.
        :return: fires with the response, whatever its status. Fails with
            :class:`~synapse_login_module.errors.ProviderUnavailable`, whose message has no part of
            the request or of the response.
        """
        if self._under_way >= self._limits.requests:
            return fail(ProviderBusy(f"{self._under_way} requests are under way already"))
        self._under_way += 1

        def over(result: Any) -> Any:
            self._under_way -= 1
            return result

        def too_late(_: Any, seconds: float) -> Failure:
            return Failure(ProviderUnavailable(f"no whole answer in {seconds} seconds"))

        sent = Headers({name: [value] for name, value in headers.items()})
        asked = Deferred.fromCoroutine(self._request(method, url, sent, body, may_repeat))
        asked.addTimeout(self._limits.total, self._reactor, onTimeoutCancel=too_late)
        return asked.addBoth(over).addErrback(_unavailable)

    def close(self) -> Deferred[None]:
        """Close the persistent connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _request(
        self, method: str, url: str, headers: Headers, body: bytes | None, may_repeat: bool
    ) -> BackendResponse:
        try:
            return await self._exchange(method, url, headers, body)
        except (ResponseNeverReceived, RequestTransmissionFailed) as error:
            closed = any(reason.check(ConnectionDone, ConnectionLost) for reason in error.reasons)
            if not (may_repeat and closed):
                raise
            # The server may have closed a kept connection at that moment: retry on another one.
            return await self._exchange(method, url, headers, body)

    async def _exchange(
        self, method: str, url: str, headers: Headers, body: bytes | None
    ) -> BackendResponse:
        response = await self._client.request(
            method,
            _Target.from_text(url),
            headers=headers,
            data=body,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        return BackendResponse(response.code, await _body_of(response))


class _Target(EncodedURL):
    """A URL whose host may be an IPv6 address, which hyperlink would encode like a host name."""

    def to_uri(self) -> EncodedURL:
        """Return the URL in ASCII."""
        if ":" not in self.host:
            return super().to_uri()
        return EncodedURL.to_uri(self.replace(host="address")).replace(host=self.host)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Makes endpoints whose connections bound the size of a response.

    :param connect_timeout: seconds until there is a connection.
    """

    def __init__(self, reactor: Any, tls: IPolicyForHTTPS, connect_timeout: int) -> None:
        self._reactor = reactor
        self._tls = tls
        self._connect_timeout = connect_timeout

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Make the endpoint of a URI."""
        endpoint: Any = HostnameEndpoint(self._reactor, uri.host, uri.port, self._connect_timeout)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)
        return _BoundedEndpoint(CancellableEndpoint(endpoint))


@implementer(IStreamClientEndpoint)
class _BoundedEndpoint:
    """Connects, and bounds the bytes that are received after each request."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fires with the protocol that the factory built."""
        bounded: Any = WrappingFactory(protocolFactory)
        bounded.protocol = _Bounded
        bounded.noisy = bounded.wrappedFactory.noisy = False  # no line for each connection
        connecting: Any = self._endpoint.connect(bounded)
        return connecting.addCallback(lambda wrapper: wrapper.wrappedProtocol)  # type: ignore[no-any-return]


class _Bounded(ProtocolWrapper):
    """Aborts the connection when a response, its head included, is longer than allowed."""

    _room = MAX_ANSWER

    def write(self, data: bytes) -> None:
        """Send a part of a request, whose response may have the full size."""
        self._room = MAX_ANSWER
        super().write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several parts of a request."""
        self._room = MAX_ANSWER
        super().writeSequence(data)

    def dataReceived(self, data: bytes) -> None:
        """Pass data on, or abort the connection if the response is too long."""
        self._room -= len(data)
        if self._room < 0:
            self.abortConnection()
        else:
            super().dataReceived(data)

    def loseConnection(self) -> None:
        """Abort the connection. With TLS, a server that hangs would never complete the closing."""
        self.abortConnection()


@implementer(IAgent)
class _Plain:
    """Requests responses that are not compressed, and rejects others."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send a request; fails with ``ProviderUnavailable`` when the response is compressed."""
        wanted = Headers() if headers is None else headers.copy()
        wanted.removeHeader(b"accept-encoding")
        return self._agent.request(method, uri, wanted, bodyProducer).addCallback(_uncompressed)


def _uncompressed(response: IResponse) -> IResponse:
    for encoding in response.headers.getRawHeaders(b"content-encoding", []):
        if encoding.lower() != b"identity":
            response.deliverBody(_DiscardBody())
            raise ProviderUnavailable("a compressed answer, which was not asked for")
    return response


class _DiscardBody(Protocol):
    """Closes the connection instead of reading a body."""

    def connectionMade(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self.transport.loseConnection()


class _Body(Protocol):
    """Collects a body.

    :ivar whole: fires with the body. Cancelling it closes the connection.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.whole: Deferred[bytes] = Deferred(lambda _: self._close())

    def dataReceived(self, data: bytes) -> None:
        """Collect a part of the body."""
        self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fire with the body if it is complete; fail otherwise."""
        if not self.whole.called:
            good = reason.check(ResponseDone, PotentialDataLoss)
            self.whole.callback(b"".join(self._parts) if good else reason)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def _body_of(response: IResponse) -> Deferred[bytes]:
    body = _Body()
    response.deliverBody(body)
    return body.whole


def _unavailable(failure: Failure) -> Failure:
    """Convert any failure but a cancellation into ``ProviderUnavailable``, without request or
    response in its message.
    """
    if failure.check(ProviderUnavailable):
        return failure
    if any(each.check(CancelledError) for each in _all_reasons(failure)):
        return Failure(CancelledError())
    if failure.check(ConnectError, DNSLookupError):
        return Failure(ProviderUnreachable(_reason(failure)))
    return Failure(ProviderUnavailable(_reason(failure)))


def _all_reasons(failure: Failure) -> list[Failure]:
    """Return the failures that a failure of twisted.web wraps, or the failure itself."""
    reasons: list[Failure] = getattr(failure.value, "reasons", [])
    return [each for reason in reasons for each in _all_reasons(reason)] or [failure]


def _reason(failure: Failure) -> str:
    failure = _all_reasons(failure)[0]
    if failure.check(ConnectionAborted):
        return f"an answer of more than {MAX_ANSWER} bytes"
    if failure.check(BadCertificate, SSL.Error):
        return f"TLS: {' '.join(str(failure.value).split())}"
    return type(failure.value).__name__
