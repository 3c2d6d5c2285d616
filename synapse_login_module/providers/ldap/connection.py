"""An LDAP connection with timeouts and bounds.

ldaptor's own client is not used: it reads without a bound, waits without a timeout, and imports the
global reactor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ldaptor.protocols import pureldap  # type: ignore[import-untyped]
from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.outbound.tls import BadCertificate
from synapse_login_module.providers.ldap.messages import (
    Entry,
    Frame,
    Result,
    decoded,
    entry_of,
    result_of,
    take_frame,
)
from synapse_login_module.providers.ldap.policies import POLICY
from synapse_login_module.providers.ldap.result_codes import SIZE_LIMIT_EXCEEDED, SUCCESS

ENTRIES = 2
"""How many entries of a search are kept; two show that there are several."""

_MESSAGES = 64
_ABANDONED = 100
"""How many abandoned searches are remembered. Older ones have ended by then."""

_DROPPED_BYTES = 4 * 1024 * 1024
"""How many bytes of responses to an abandoned search are ignored before the connection is closed.
"""

_CLOSING_SECONDS = 1.0


class ServerFailed(Exception):
    """A server cannot be used at the moment, for any request."""


class WentAway(ServerFailed):
    """The server closed the connection."""


@dataclass(frozen=True)
class LDAPServer:
    """One LDAP server.

    :param url: the URL as it is configured.
    :param host: its host name or address.
    :param port: its TCP port.
    :param tls: makes TLS connections, and verifies them; ``None`` for no TLS.
    :param start_tls: whether TLS begins with a StartTLS request (RFC 4511, section 4.14), and not
        with the first byte.
    """

    url: str
    host: str
    port: int
    tls: Any
    start_tls: bool


_LAST_RESPONSES = (
    (pureldap.LDAPBindRequest, pureldap.LDAPBindResponse),
    (pureldap.LDAPSearchRequest, pureldap.LDAPSearchResultDone),
    (pureldap.LDAPStartTLSRequest, pureldap.LDAPExtendedResponse),
)
"""The last response to each type of request."""


class _Pending:
    """A request whose last response has not come yet."""

    def __init__(self, request: Any) -> None:
        self.last = next(last for kind, last in _LAST_RESPONSES if isinstance(request, kind))
        self.entries: list[Entry] = []
        self.messages = 0
        self.answered: Deferred[Result] = Deferred()


@implementer(IHandshakeListener)
class Connection(Protocol):
    """A connection to a server. A violation of the protocol by the server ends it.

    :ivar used: whether an operation on it has ended, so that the server may close it as idle.
    :ivar idle_since: when it was last given back to the pool, in seconds.
    :ivar over: whether no more requests can be sent on it.
    :ivar closed: fires when the transport is closed.
    """

    transport: Any

    def __init__(self, server: LDAPServer, reactor: Any) -> None:
        self.server = server
        self.used = False
        self.idle_since = 0.0
        self.closed: Deferred[None] = Deferred()
        self._reactor = reactor
        self._problem: ServerFailed | None = None
        self._buffer = bytearray()
        self._last_id = 0
        self._pending: dict[int, _Pending] = {}
        self._abandoned: dict[int, int] = {}
        self._secure = False
        self._secured: Deferred[None] | None = None

    @property
    def over(self) -> bool:
        """Whether no more requests can be sent."""
        return self._problem is not None

    def ask(self, request: Any, seconds: float) -> Deferred[Result]:
        """Send a request.

        :param request: an ldaptor request.
        :param seconds: how long it may take until the last response.
        :return: fires with the result, whatever its code. Fails with :class:`ServerFailed`.
        """
        if self._problem is not None:
            return fail(self._problem)
        pending = _Pending(request)
        self._pending[self._send(request)] = pending

        def too_late(_: Any, seconds: float) -> Failure:
            return Failure(ServerFailed(f"it did not answer within {seconds:g} seconds"))

        return pending.answered.addTimeout(seconds, self._reactor, onTimeoutCancel=too_late)

    def secured(self) -> Deferred[None]:
        """Fire when the TLS handshake is complete; fails with :class:`ServerFailed`."""
        if self._problem is not None:
            return fail(self._problem)
        if self._secure:
            return succeed(None)
        self._secured = Deferred()
        return self._secured

    async def start_tls(self, seconds: float) -> None:
        """Send StartTLS, and wait until the TLS handshake is complete.

        :param seconds: how long the response to StartTLS may take.
        :raise ServerFailed: when the server refuses, or the handshake fails.
        """
        result = await self.ask(pureldap.LDAPStartTLSRequest(), seconds)
        if result.code != SUCCESS:
            raise ServerFailed(f"it refuses StartTLS: {result}")
        if self._buffer:
            # Data that was received in the clear must not be read as if it were sent under TLS.
            raise ServerFailed("it goes on in the clear after StartTLS")
        self.transport.startTLS(self.server.tls)
        await self.secured()

    def abort(self, problem: ServerFailed | None = None) -> None:
        """Abort the connection, unless it is over.

        :param problem: what the requests under way fail with.
        """
        if self.over:
            return
        self._end(problem or ServerFailed("the connection was closed here"))
        if self.transport is not None:
            self.transport.abortConnection()

    def close(self) -> None:
        """Send an unbind request and close the connection; abort it if that takes too long."""
        if self.over:
            return
        self._send(pureldap.LDAPUnbindRequest())
        self._end(ServerFailed("the connection was closed here"))
        self.transport.loseConnection()
        late = self._reactor.callLater(_CLOSING_SECONDS, self.transport.abortConnection)
        self.closed.addCallback(lambda _: late.cancel() if late.active() else None)

    def connectionMade(self) -> None:
        """Turn TCP keepalive on, so that the system notices when the server has disappeared."""
        self.transport.setTcpKeepAlive(True)
        self.transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:
        """Note that the TLS handshake is complete, and so the certificate accepted."""
        self._secure = True
        secured, self._secured = self._secured, None
        if secured is not None:
            secured.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Read messages; abort the connection when the data is not LDAP."""
        if self.over:
            return
        self._buffer += data
        try:
            while not self.over and (frame := take_frame(self._buffer)) is not None:
                if frame.message_id in self._abandoned:
                    self._drop(frame)
                else:
                    self._received(frame)
        except Exception:  # ldaptor may raise anything
            self.abort(ServerFailed("what it says is not LDAP, or too much"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the requests under way."""
        self._end(self._lost(reason))
        self.closed.callback(None)

    def _send(self, request: Any) -> int:
        self._last_id += 1
        # Servers that do not know the control ignore it (RFC 4511, section 4.1.11).
        controls = [(POLICY,)] if isinstance(request, pureldap.LDAPBindRequest) else None
        message = pureldap.LDAPMessage(request, controls, self._last_id)
        self.transport.write(message.toWire())
        return self._last_id

    def _received(self, frame: Frame) -> None:
        answer, controls = decoded(frame)
        if frame.message_id == 0:
            self.abort(WentAway("it announced that it closes the connection"))
            return
        pending = self._pending[frame.message_id]
        pending.messages += 1
        if pending.messages > _MESSAGES:
            raise ValueError("too many")
        if isinstance(answer, pureldap.LDAPSearchResultEntry):
            if len(pending.entries) < ENTRIES:
                pending.entries.append(entry_of(answer))
            else:
                self._abandon(frame.message_id)
        elif isinstance(answer, pending.last):
            result = result_of(answer, controls, pending.entries)
            del self._pending[frame.message_id]
            pending.answered.callback(result)
        elif not isinstance(answer, pureldap.LDAPSearchResultReference):
            raise ValueError("no answer")

    def _abandon(self, message_id: int) -> None:
        """Abandon a search whose size limit the server ignores, as Samba does (RFC 4511, section
        4.11). Its result is that of a server that keeps the limit.
        """
        self._send(pureldap.LDAPAbandonRequest(id=message_id))
        self._abandoned[message_id] = 0
        if len(self._abandoned) > _ABANDONED:
            del self._abandoned[next(iter(self._abandoned))]
        pending = self._pending.pop(message_id)
        pending.answered.callback(Result(SIZE_LIMIT_EXCEEDED, "", tuple(pending.entries)))

    def _drop(self, frame: Frame) -> None:
        """Ignore a response that was sent before the server read that the search is abandoned."""
        if frame.ends_search:
            del self._abandoned[frame.message_id]
            return
        self._abandoned[frame.message_id] += len(frame.octets)
        if self._abandoned[frame.message_id] > _DROPPED_BYTES:
            # The server itself works: other requests are sent again on another connection.
            self.abort(WentAway("it goes on with a search that was abandoned"))

    def _end(self, problem: ServerFailed) -> None:
        if self._problem is not None:
            return
        self._problem = problem
        self._buffer.clear()
        pending, self._pending = self._pending, {}
        for each in pending.values():
            each.answered.errback(problem)
        secured, self._secured = self._secured, None
        if secured is not None:
            secured.errback(problem)

    def _lost(self, reason: Failure) -> ServerFailed:
        if reason.check(BadCertificate):
            return ServerFailed(str(reason.value))
        if isinstance(reason.value, SSL.Error):
            words = (
                ", ".join(part[-1] for part in reason.value.args[0]) if reason.value.args else ""
            )
            return ServerFailed(f"TLS failed: {words or 'no reason given'}")
        if reason.check(ConnectionDone, ConnectionLost):
            return WentAway("it closed the connection")
        return ServerFailed(reason.getErrorMessage())
