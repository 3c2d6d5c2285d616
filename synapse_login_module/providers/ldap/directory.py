"""An LDAP directory: searches and binds, on the first of several servers that answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, FirstError, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.outbound.cancellable import CancellableEndpoint
from synapse_login_module.providers.ldap.connection import (
    ENTRIES,
    Connection,
    LDAPServer,
    ServerFailed,
    WentAway,
)
from synapse_login_module.providers.ldap.failover import Failover
from synapse_login_module.providers.ldap.messages import (
    Result,
    Search,
    bind_request,
    one_line,
    search_request,
)
from synapse_login_module.providers.ldap.policies import PolicyError
from synapse_login_module.providers.ldap.pool import Pool
from synapse_login_module.providers.ldap.result_codes import (
    BUSY,
    INVALID_DN_SYNTAX,
    NO_SUCH_OBJECT,
    SIZE_LIMIT_EXCEEDED,
    SUCCESS,
    UNAVAILABLE,
)

_IDLE_SECONDS = 60.0


@dataclass(frozen=True)
class Settings:
    """How a directory is reached. Times are in seconds.

    :param servers: the servers in order of preference.
    :param bind_dn: the distinguished name that connections for searches bind as; empty for an
        anonymous connection.
    :param bind_password: its password.
    :param connect_timeout: the timeout for connecting, the TLS handshake included.
    :param read_timeout: the timeout from a request to its last response.
    :param retry_after: how long a server that failed comes after the others.
    :param connections: the size of each of three pools: for the searches of logins, for the binds
        of logins, and for looks at accounts.
    :param queue: how many requests may wait at each pool.
    """

    servers: Sequence[LDAPServer]
    bind_dn: str
    bind_password: str = field(repr=False)
    connect_timeout: float
    read_timeout: float
    retry_after: float
    connections: int
    queue: int


class Directory(Service):
    """Searches and binds, on the first of several servers that answers.

    A server that failed comes after the others for a while. While all servers have failed, one
    caller at a time tries them again, and all other callers fail at once.

    :param settings: how the directory is reached.
    :param reactor: connects, and schedules timeouts.
    :param one_time_codes: whether passwords hold a code that is good once. A bind is then sent to
        one server only, once: if its result is lost, another server would refuse the code.
    """

    log = Logger()

    def __init__(self, settings: Settings, reactor: Any, one_time_codes: bool = False) -> None:
        self._settings = settings
        self._reactor = reactor
        self._one_time_codes = one_time_codes
        self._servers = Failover(settings.servers, settings.retry_after, reactor.seconds)
        self._trying = False
        self._stopped = False
        self._connecting: set[Deferred[None]] = set()
        self._connections: set[Connection] = set()
        size, queue = settings.connections, settings.queue
        self._for_searches = Pool(size, queue, lambda: self._open(True), self._usable)
        self._for_binds = Pool(size, queue, lambda: self._open(False), self._usable)
        self._for_statuses = Pool(size, queue, lambda: self._open(True), self._usable)

    def startService(self) -> None:
        """Start. Connections are opened when they are needed."""
        super().startService()
        self._stopped = False

    def stopService(self) -> Deferred[Any]:
        """Close all connections; fires when the last one is closed."""
        super().stopService()
        self._stopped = True
        self._give_up(ProviderUnavailable("LDAP: the service is stopping"))
        for connecting in list(self._connecting):
            connecting.cancel()
        connections = list(self._connections)
        for connection in connections:
            connection.close()
        return DeferredList([_after(connection.closed) for connection in connections])

    async def search(self, *searches: Search) -> list[Result]:
        """Search for a login. All searches are sent at once, on one connection.

        :return: the results, in the order of the searches. Their codes are ``SUCCESS`` or
            ``SIZE_LIMIT_EXCEEDED`` and, for a search of the base object only, also
            ``NO_SUCH_OBJECT`` or ``INVALID_DN_SYNTAX``.
        :raise ProviderBusy: when the queue of the pool is full.
        :raise ProviderUnavailable: when no server answers, or a result has another code.
        """
        return await self._search(self._for_searches, searches)

    async def look(self, *searches: Search) -> list[Result]:
        """Search for a look at an account; see :meth:`search`.

        Looks have a pool of their own, so that logins that hang do not delay them.
        """
        return await self._search(self._for_statuses, searches)

    async def bind(self, name: str | bytes, password: str) -> Result:
        """Bind with a password.

        :param name: a distinguished name, or another name that the server accepts, such as a user
            principal name.
        :param password: the password, not empty. With an empty one, a bind succeeds without
            authentication (RFC 4513, section 5.1.2).
        :return: the result, with any code but ``BUSY`` and ``UNAVAILABLE``.
        :raise ProviderBusy: when the queue of the pool is full.
        :raise ProviderUnavailable: when no server answers.
        """
        requests = [bind_request(name, password)]
        once = self._one_time_codes
        return (await self._on_a_connection(self._for_binds, requests, once))[0]

    async def _search(self, pool: Pool, searches: Sequence[Search]) -> list[Result]:
        seconds = self._settings.read_timeout
        requests = [search_request(search, ENTRIES, ceil(seconds)) for search in searches]
        results = await self._on_a_connection(pool, requests)
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

    async def _on_a_connection(
        self, pool: Pool, requests: Sequence[Any], once: bool = False
    ) -> list[Result]:
        trying = self._servers.all_failed
        if trying and self._trying:
            raise self._servers.unavailable()
        self._trying = self._trying or trying
        try:
            return await self._on_some_server(pool, requests, once)
        finally:
            if trying:
                self._trying = False

    async def _on_some_server(
        self, pool: Pool, requests: Sequence[Any], once: bool
    ) -> list[Result]:
        failures = 0
        while failures < len(self._servers):
            connection = await pool.take()
            try:
                results = await self._ask(connection, requests)
                self._servers.answered(connection.server)
                return results
            except ServerFailed as problem:
                # The server may close an idle connection at any time. That is no failure.
                if not (connection.used and isinstance(problem, WentAway)):
                    failures += 1
                    self._fails(connection.server, problem)
                connection.abort(problem)
                if once:
                    raise ProviderUnavailable(f"LDAP: {connection.server.url}: {problem}") from None
            except BaseException:
                connection.abort()
                raise
            finally:
                pool.put(connection, self._reactor.seconds())
        raise self._servers.unavailable()

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
        for server in self._servers.candidates():
            try:
                return await self._connect(server, for_searches)
            except ServerFailed as problem:
                self._fails(server, problem)
        raise self._servers.unavailable()

    async def _connect(self, server: LDAPServer, for_searches: bool) -> Connection:
        connection = await self.reach(server)
        if for_searches:
            await self.bind_searcher(connection)
        return connection

    async def reach(self, server: LDAPServer) -> Connection:
        """Connect to one server, with TLS where it is configured.

        :raise ServerFailed: when it cannot be reached, or its certificate is rejected.
        """
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
            await connectProtocol(CancellableEndpoint(endpoint), connection)
        except (ConnectError, DNSLookupError, ConnectTimeout, OSError) as error:
            raise ServerFailed(f"it cannot be reached: {one_line(str(error))}") from None
        self._connections.add(connection)
        connection.closed.addCallback(lambda _: self._connections.discard(connection))
        if server.tls is not None:
            await (connection.start_tls(seconds) if server.start_tls else connection.secured())

    async def bind_searcher(self, connection: Connection) -> None:
        """Bind as ``bind_dn``, if there is one. If that fails, the connection is aborted.

        :raise ServerFailed: when the server refuses it.
        """
        name = self._settings.bind_dn
        if not name:
            return
        request = bind_request(name, self._settings.bind_password)
        try:
            result = await connection.ask(request, self._settings.read_timeout)
            if result.code != SUCCESS:
                raise ServerFailed(f"it refuses bind_dn {name} with bind_password: {result}")
            if result.policy is PolicyError.MUST_CHANGE:
                raise ServerFailed(f"the password of bind_dn {name} must be changed first")
        except BaseException:
            connection.abort()
            raise

    def _usable(self, connection: Connection) -> bool:
        """Return whether an idle connection may be used again.

        It may not if a server is due that is preferred to the connection's.
        """
        now = self._reactor.seconds()
        if connection.over or now - connection.idle_since > _IDLE_SECONDS:
            return False
        return self._servers.is_best(connection.server)

    def _fails(self, server: LDAPServer, problem: ServerFailed) -> None:
        if self._stopped:
            return
        self._servers.failed(server, problem)
        if self._servers.all_failed:
            self._give_up(self._servers.unavailable())

    def _give_up(self, problem: ProviderUnavailable) -> None:
        for pool in (self._for_searches, self._for_binds, self._for_statuses):
            pool.give_up(problem)


def _after(event: Deferred[None]) -> Deferred[None]:
    """Return a Deferred of its own for one caller, which fires when ``event`` fires."""
    after: Deferred[None] = Deferred()
    event.addCallback(lambda _: after.callback(None))
    return after
