"""An LDAP directory: searches and binds over connections that are kept, in time and in bounds.

Messages, filters and names are ldaptor's. The connection is our own: ldaptor's reads without a
bound, waits without a deadline and imports the global reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeVar

from ldaptor.protocols import pureber, pureldap  # type: ignore[import-untyped]
from ldaptor.protocols.ldap import ldaperrors  # type: ignore[import-untyped]
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.application.service import Service
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    FirstError,
    fail,
    gatherResults,
    succeed,
)
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse_login_module.errors import Overloaded, ProviderUnavailable

T = TypeVar("T")

SUCCESS = 0
SIZE_LIMIT_EXCEEDED = 4
CONSTRAINT_VIOLATION = 19
NO_SUCH_OBJECT = 32
INVALID_DN_SYNTAX = 34
INAPPROPRIATE_AUTHENTICATION = 48
INVALID_CREDENTIALS = 49
BUSY = 51
UNAVAILABLE = 52
UNWILLING_TO_PERFORM = 53

MESSAGE_BYTES = 64 * 1024
"""The longest message that a server may send; an entry holds four attributes of one person."""

_MESSAGES = 64
_ENTRIES = 2
_IDLE_SECONDS = 60.0
_CLOSING_SECONDS = 1.0
_RETRY_AFTER = 1.0
_BAD_CERTIFICATE = " (expired, or of no authority that is trusted: see ca_file)"


class ServerFailed(Exception):
    """A server cannot be used at the moment, whatever is asked of it."""


class WentAway(ServerFailed):
    """The server closed the connection."""


@dataclass(frozen=True)
class Server:
    """One LDAP server.

    :param url: as it is configured.
    :param tls: makes the TLS side of a connection, and decides whether it is good; ``None`` for
        none.
    :param start_tls: whether TLS begins with a request, and not with the first byte.
    """

    url: str
    host: str
    port: int
    tls: Any
    start_tls: bool


@dataclass(frozen=True)
class Settings:
    """How a directory is reached. Times are seconds.

    :param servers: in order of preference.
    :param bind_dn: as whom searches are made; empty for nobody in particular.
    :param connect_timeout: until a server speaks to us, TLS included.
    :param read_timeout: until a request is answered whole.
    :param retry_after: until a server that failed is preferred again.
    :param connections: how many there may be for searches, and how many for binds.
    :param queue: how many may wait for one of either.
    """

    servers: Sequence[Server]
    bind_dn: str
    bind_password: str = field(repr=False)
    connect_timeout: float
    read_timeout: float
    retry_after: float
    connections: int
    queue: int


@dataclass(frozen=True)
class Search:
    """What to search for; neither aliases nor referrals are followed.

    :param whole_tree: at and below the base; otherwise the base alone.
    :param filter: an ldaptor filter.
    """

    base: str | bytes
    whole_tree: bool
    filter: Any
    attributes: Sequence[str]


@dataclass(frozen=True)
class Entry:
    """An entry that a search found.

    :param dn: as the server spells it.
    :param attributes: the values, by the name of the attribute in lower case.
    """

    dn: bytes
    attributes: Mapping[str, Sequence[bytes]]


@dataclass(frozen=True)
class Result:
    """How an operation ended.

    :param entries: what a search found; no more than two are kept.
    """

    code: int
    message: str
    entries: Sequence[Entry] = ()

    @property
    def several(self) -> bool:
        """Whether a search found more than one entry."""
        return len(self.entries) > 1 or self.code == SIZE_LIMIT_EXCEEDED

    def __str__(self) -> str:
        known = ldaperrors.LDAPExceptionCollection.collection.get(self.code)
        name = known.name.decode("ascii") if known else f"result {self.code}"
        return f"{name} ({self.message})" if self.message else name


def tls_for(host: str, authorities: Sequence[Certificate] | None, verify: bool) -> Any:
    """What makes the TLS side of connections to a host.

    :param authorities: whose certificates are good; ``None`` for those that the system trusts.
    :param verify: whether the certificate, and that it is this host's, is checked at all.
    """
    if not verify:
        return _Unverified(host)
    trust = platformTrust() if authorities is None else trustRootFromCertificates(authorities)
    return optionsForClientTLS(host, trustRoot=trust)


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


class _Opaque(pureber.BERDecoderContext):  # type: ignore[misc]
    """Reads what it does not know as mere octets, where ldaptor prints a complaint."""

    def lookup_id(self, id: int) -> Any:  # noqa: A002  the name is ldaptor's
        return super().lookup_id(id) or pureber.BEROctetString


_OPERATIONS = pureldap.LDAPBERDecoderContext(fallback=_Opaque())
_DECODER = pureldap.LDAPBERDecoderContext_TopLevel(
    inherit=pureldap.LDAPBERDecoderContext_LDAPMessage(fallback=_OPERATIONS, inherit=_OPERATIONS)
)


_LAST_RESPONSES = (
    (pureldap.LDAPBindRequest, pureldap.LDAPBindResponse),
    (pureldap.LDAPSearchRequest, pureldap.LDAPSearchResultDone),
    (pureldap.LDAPStartTLSRequest, pureldap.LDAPExtendedResponse),
)
"""What ends the answer to each kind of request."""


class _Pending:
    """A request that is not answered yet."""

    def __init__(self, request: Any) -> None:
        self.last = next(last for kind, last in _LAST_RESPONSES if isinstance(request, kind))
        self.entries: list[Entry] = []
        self.messages = 0
        self.answered: Deferred[Result] = Deferred()


@implementer(IHandshakeListener)
class Connection(Protocol):
    """One connection to a server. Whatever the server does wrong ends it.

    :ivar used: whether an earlier request was answered on it.
    :ivar idle_since: when it was last put aside.
    :ivar over: whether nothing can be asked on it any more.
    :ivar closed: fires when the transport is gone.
    """

    transport: Any

    def __init__(self, server: Server, reactor: Any) -> None:
        self.server = server
        self.used = False
        self.idle_since = 0.0
        self.closed: Deferred[None] = Deferred()
        self._reactor = reactor
        self._problem: ServerFailed | None = None
        self._buffer = bytearray()
        self._last_id = 0
        self._pending: dict[int, _Pending] = {}
        self._secure = False
        self._secured: Deferred[None] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._problem is not None

    def ask(self, request: Any, seconds: float) -> Deferred[Result]:
        """Send a request.

        :param request: an ldaptor request.
        :param seconds: how long the whole answer may take.
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
        """Fire when TLS is up; fails with :class:`ServerFailed`."""
        if self._problem is not None:
            return fail(self._problem)
        if self._secure:
            return succeed(None)
        self._secured = Deferred()
        return self._secured

    async def start_tls(self, seconds: float) -> None:
        """Ask for TLS, and wait until it is up."""
        result = await self.ask(pureldap.LDAPStartTLSRequest(), seconds)
        if result.code != SUCCESS:
            raise ServerFailed(f"it refuses StartTLS: {result}")
        if self._buffer:
            # What came in the clear is not to be taken for what is said under TLS.
            raise ServerFailed("it goes on in the clear after StartTLS")
        self.transport.startTLS(self.server.tls)
        await self.secured()

    def abort(self, problem: ServerFailed | None = None) -> None:
        """End it at once, without a word; nothing happens when it is over."""
        if self.over:
            return
        self._end(problem or ServerFailed("we closed the connection"))
        if self.transport is not None:
            self.transport.abortConnection()

    def close(self) -> None:
        """End it politely, but not at the server's leisure."""
        if self.over:
            return
        self._send(pureldap.LDAPUnbindRequest())
        self._end(ServerFailed("we closed the connection"))
        self.transport.loseConnection()
        late = self._reactor.callLater(_CLOSING_SECONDS, self.transport.abortConnection)
        self.closed.addCallback(lambda _: late.cancel() if late.active() else None)

    def connectionMade(self) -> None:
        """Have the system notice when the server is gone for good."""
        self.transport.setTcpKeepAlive(True)
        self.transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:
        """Note that TLS is up and the certificate good."""
        self._secure = True
        secured, self._secured = self._secured, None
        if secured is not None:
            secured.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Take what the server says, as long as it is LDAP."""
        if self.over:
            return
        self._buffer += data
        try:
            while not self.over and (message := self._next()) is not None:
                self._received(message)
        except Exception:  # whatever ldaptor stumbles over
            self.abort(ServerFailed("what it says is not LDAP, or too much"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what is under way."""
        self._end(self._lost(reason))
        self.closed.callback(None)

    def _send(self, request: Any) -> int:
        self._last_id += 1
        self.transport.write(pureldap.LDAPMessage(request, id=self._last_id).toWire())
        return self._last_id

    def _next(self) -> Any:
        """Take the next message out of the buffer; ``None`` when it is not there yet."""
        if self._buffer and self._buffer[0] != 0x30:
            raise ValueError("not a message")
        try:
            length, size = pureber.berDecodeLength(bytes(self._buffer[:8]), offset=1)
        except pureber.BERExceptionInsufficientData:
            if len(self._buffer) >= 8:
                raise
            return None
        whole = 1 + size + length
        if length > MESSAGE_BYTES:
            raise ValueError("too long")
        if len(self._buffer) < whole:
            return None
        encoded = bytes(self._buffer[:whole])
        del self._buffer[:whole]
        message, _ = pureber.berDecodeObject(_DECODER, encoded)
        return message

    def _received(self, message: Any) -> None:
        answer = message.value
        if message.id == 0:
            self.abort(WentAway("it announced that it closes the connection"))
            return
        pending = self._pending[message.id]
        pending.messages += 1
        if pending.messages > _MESSAGES:
            raise ValueError("too many")
        if isinstance(answer, pureldap.LDAPSearchResultEntry):
            if len(pending.entries) < _ENTRIES:
                pending.entries.append(_entry(answer))
        elif isinstance(answer, pending.last):
            result = _result(answer, pending.entries)
            del self._pending[message.id]
            pending.answered.callback(result)
        elif not isinstance(answer, pureldap.LDAPSearchResultReference):
            raise ValueError("no answer")

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
        if reason.check(VerificationError):
            return ServerFailed(f"its certificate is not for {self.server.host}")
        if isinstance(reason.value, SSL.Error):
            words = (
                ", ".join(part[-1] for part in reason.value.args[0]) if reason.value.args else ""
            )
            hint = _BAD_CERTIFICATE if "certificate verify failed" in words else ""
            return ServerFailed(f"TLS failed: {words or 'no reason given'}{hint}")
        if reason.check(ConnectionDone, ConnectionLost):
            return WentAway("it closed the connection")
        return ServerFailed(reason.getErrorMessage())


def _entry(answer: Any) -> Entry:
    return Entry(
        _checked(answer.objectName),
        {
            _checked(name).decode("ascii").lower(): tuple(_checked(value) for value in values)
            for name, values in answer.attributes
        },
    )


def _result(answer: Any, entries: Sequence[Entry]) -> Result:
    if not isinstance(answer.resultCode, int):
        raise TypeError("not a code")
    text = _checked(answer.errorMessage).decode("utf-8", "replace")
    return Result(answer.resultCode, _one_line(text)[:200], tuple(entries))


def _checked(octets: object) -> bytes:
    """What is to be octets; ldaptor has anything that is in their place."""
    if not isinstance(octets, bytes):
        raise TypeError("not octets")
    return octets


class _Pool:
    """So many connections at once, for one purpose, and so many that wait for one.

    :param connect: opens one.
    :param usable: whether one that was put aside is good enough.
    """

    def __init__(
        self,
        size: int,
        queue: int,
        connect: Callable[[], Awaitable[Connection]],
        usable: Callable[[Connection], bool],
    ) -> None:
        self._free = size
        self._queue = queue
        self._connect = connect
        self._usable = usable
        self._idle: list[Connection] = []
        self._waiting: deque[Deferred[None]] = deque()

    async def take(self) -> Connection:
        """A connection for one operation.

        :raise Overloaded: when too many wait already.
        :raise ProviderUnavailable: when no server can be reached.
        """
        if self._free:
            self._free -= 1
        else:
            await self._turn()
        try:
            while self._idle:
                connection = self._idle.pop()
                if self._usable(connection):
                    return connection
                connection.close()
            return await self._connect()
        except BaseException:
            self._next()
            raise

    def put(self, connection: Connection, now: float) -> None:
        """Give a connection back; one that is over makes room for another."""
        if not connection.over:
            connection.used = True
            connection.idle_since = now
            self._idle.append(connection)
        self._next()

    def give_up(self, problem: Exception) -> None:
        """Fail everybody who waits."""
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            each.errback(problem)

    def _turn(self) -> Deferred[None]:
        if len(self._waiting) >= self._queue:
            return fail(Overloaded(_RETRY_AFTER))
        turn: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        return turn

    def _next(self) -> None:
        if self._waiting:
            self._waiting.popleft().callback(None)
        else:
            self._free += 1


class _State:
    """What is known of a server.

    :ivar problem: why it is not used for now; empty when it is.
    :ivar retry_at: when it is preferred again all the same.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.problem = ""
        self.retry_at = 0.0

    def is_preferred(self, now: float) -> bool:
        """Whether it answers, or failed so long ago that it may again."""
        return not self.problem or now >= self.retry_at


class Directory(Service):
    """Searches and binds, on the first of several servers that answers.

    A server that failed is left alone for a while. While all have failed, one caller at a time
    tries them again, and everybody else is told at once that there is none.

    :param reactor: connects and waits.
    """

    log = Logger()

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self._states = [_State(server) for server in settings.servers]
        self._trying = False
        self._stopped = False
        self._connecting: set[Deferred[None]] = set()
        self._connections: set[Connection] = set()
        size, queue = settings.connections, settings.queue
        self._for_searches = _Pool(size, queue, lambda: self._open(True), self._usable)
        self._for_binds = _Pool(size, queue, lambda: self._open(False), self._usable)

    def startService(self) -> None:
        """Be ready; connections are made when they are needed."""
        super().startService()
        self._stopped = False

    def stopService(self) -> Deferred[Any]:
        """Close every connection; fires when the last is closed."""
        super().stopService()
        self._stopped = True
        for pool in (self._for_searches, self._for_binds):
            pool.give_up(ProviderUnavailable("LDAP: the service is stopping"))
        for connecting in list(self._connecting):
            connecting.cancel()
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        return DeferredList([_after(connection.closed) for connection in connections])

    async def search(self, *searches: Search) -> list[Result]:
        """Search, all at once on one connection.

        :return: the results in order, of the codes ``SUCCESS`` and ``SIZE_LIMIT_EXCEEDED`` alone,
            and, where the base alone was asked for, those that say that there is no such entry.
        :raise ProviderUnavailable: when no server can say.
        :raise Overloaded: when too many wait already.
        """
        seconds = self._settings.read_timeout
        requests = [
            pureldap.LDAPSearchRequest(
                baseObject=search.base,
                scope=(
                    pureldap.LDAP_SCOPE_wholeSubtree
                    if search.whole_tree
                    else pureldap.LDAP_SCOPE_baseObject
                ),
                derefAliases=pureldap.LDAP_DEREF_neverDerefAliases,
                sizeLimit=_ENTRIES,
                timeLimit=ceil(seconds),
                filter=search.filter,
                attributes=search.attributes,
            )
            for search in searches
        ]
        results = await self._on_a_connection(self._for_searches, requests)
        for search, result in zip(searches, results, strict=True):
            if result.code in (SUCCESS, SIZE_LIMIT_EXCEEDED):
                continue
            if result.code not in (NO_SUCH_OBJECT, INVALID_DN_SYNTAX) or search.whole_tree:
                self.log.error(
                    "LDAP: the search below {base} is answered with {result}",
                    base=search.base,
                    result=result,
                )
                raise ProviderUnavailable(f"LDAP: a search is answered with {result}")
        return results

    async def bind(self, name: str | bytes, password: str) -> Result:
        """Try a password.

        :param name: a distinguished name, or what else the server knows users by.
        :param password: not empty: the directory would take that for nobody, and be content.
        :return: the result, of any code but ``BUSY`` and ``UNAVAILABLE``.
        :raise ProviderUnavailable: when no server can say.
        :raise Overloaded: when too many wait already.
        """
        return (await self._on_a_connection(self._for_binds, [_bind(name, password)]))[0]

    async def _on_a_connection(self, pool: _Pool, requests: Sequence[Any]) -> list[Result]:
        trying = self._nobody_answers
        if trying and self._trying:
            raise self._unavailable()
        self._trying = self._trying or trying
        try:
            return await self._on_some_server(pool, requests)
        finally:
            if trying:
                self._trying = False

    async def _on_some_server(self, pool: _Pool, requests: Sequence[Any]) -> list[Result]:
        failures = 0
        while failures < len(self._states):
            connection = await pool.take()
            try:
                results = await self._ask(connection, requests)
                self._answers(connection.server)
                return results
            except ServerFailed as problem:
                # A connection that was put aside may have been closed by the server since.
                if not (connection.used and isinstance(problem, WentAway)):
                    failures += 1
                    self._fails(connection.server, problem)
                connection.abort(problem)
            except BaseException:
                connection.abort()
                raise
            finally:
                pool.put(connection, self._reactor.seconds())
        raise self._unavailable()

    async def _ask(self, connection: Connection, requests: Sequence[Any]) -> list[Result]:
        seconds = self._settings.read_timeout
        asked = [connection.ask(request, seconds) for request in requests]
        try:
            results = await gatherResults(asked, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        for result in results:
            if result.code in (BUSY, UNAVAILABLE):
                raise ServerFailed(f"it answers {result}")
        return results

    async def _open(self, for_searches: bool) -> Connection:
        for state in self._candidates():
            try:
                return await self._connect(state.server, for_searches)
            except ServerFailed as problem:
                self._fails(state.server, problem)
        raise self._unavailable()

    def _candidates(self) -> Iterator[_State]:
        """The servers to try, in order; those that failed lately come last."""
        now = self._reactor.seconds()
        for state in sorted(self._states, key=lambda state: not state.is_preferred(now)):
            state.retry_at = now + self._settings.retry_after
            yield state

    async def _connect(self, server: Server, for_searches: bool) -> Connection:
        if self._stopped:
            raise ProviderUnavailable("LDAP: the service is stopping")
        connection = Connection(server, self._reactor)

        def too_late(_: Any, seconds: float) -> Failure:
            return Failure(ServerFailed(f"it cannot be reached within {seconds:g} seconds"))

        connecting = Deferred.fromCoroutine(self._establish(connection))
        connecting.addTimeout(self._settings.connect_timeout, self._reactor, too_late)
        self._connecting.add(connecting)
        try:
            await connecting
            if for_searches and self._settings.bind_dn:
                await self._introduce(connection)
        except BaseException:
            connection.abort()
            raise
        finally:
            self._connecting.discard(connecting)
        return connection

    async def _establish(self, connection: Connection) -> None:
        server, seconds = connection.server, self._settings.connect_timeout
        endpoint: Any = HostnameEndpoint(self._reactor, server.host, server.port, seconds)
        if server.tls is not None and not server.start_tls:
            endpoint = wrapClientTLS(server.tls, endpoint)
        try:
            await connectProtocol(endpoint, connection)
        except ConnectingCancelledError:
            raise CancelledError from None
        except (ConnectError, DNSLookupError, ConnectTimeout, OSError) as error:
            raise ServerFailed(f"it cannot be reached: {_one_line(str(error))}") from None
        self._connections.add(connection)
        connection.closed.addCallback(lambda _: self._connections.discard(connection))
        if server.tls is not None:
            await (connection.start_tls(seconds) if server.start_tls else connection.secured())

    async def _introduce(self, connection: Connection) -> None:
        """Bind as the account that searches."""
        name = self._settings.bind_dn
        request = _bind(name, self._settings.bind_password)
        result = await connection.ask(request, self._settings.read_timeout)
        if result.code != SUCCESS:
            raise ServerFailed(f"it refuses bind_dn {name} with bind_password: {result}")

    def _usable(self, connection: Connection) -> bool:
        """Whether a connection that was put aside is good, and none to a better server due."""
        now = self._reactor.seconds()
        if connection.over or now - connection.idle_since > _IDLE_SECONDS:
            return False
        preferred = next((state for state in self._states if state.is_preferred(now)), None)
        if preferred is None or preferred.server is connection.server:
            return True
        position = self._settings.servers.index
        return position(connection.server) < position(preferred.server)

    @property
    def _nobody_answers(self) -> bool:
        return all(state.problem for state in self._states)

    def _unavailable(self) -> ProviderUnavailable:
        problems = "; ".join(f"{each.server.url}: {each.problem}" for each in self._states)
        return ProviderUnavailable(f"LDAP: {problems}")

    def _fails(self, server: Server, problem: ServerFailed) -> None:
        if self._stopped:
            return
        state = self._state_of(server)
        if state.problem != str(problem):
            self.log.error(
                "LDAP: {url} is left alone for now: {problem}", url=server.url, problem=str(problem)
            )
        state.problem = str(problem)
        state.retry_at = self._reactor.seconds() + self._settings.retry_after
        if self._nobody_answers:
            for pool in (self._for_searches, self._for_binds):
                pool.give_up(self._unavailable())

    def _answers(self, server: Server) -> None:
        state = self._state_of(server)
        if state.problem:
            self.log.info("LDAP: {url} answers again", url=server.url)
            state.problem = ""

    def _state_of(self, server: Server) -> _State:
        return next(state for state in self._states if state.server is server)


def _bind(name: str | bytes, password: str) -> Any:
    if not password:
        raise ValueError("a bind without a password asks for nothing")
    return pureldap.LDAPBindRequest(dn=name, auth=octets(password))


def octets(text: str) -> bytes:
    """Text as LDAP has it; half characters, which no entry has, are no error."""
    return text.encode("utf-8", "surrogatepass")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _after(event: Deferred[None]) -> Deferred[None]:
    """Fire when an event does that others wait for too."""
    after: Deferred[None] = Deferred()
    event.addCallback(lambda _: after.callback(None))
    return after
