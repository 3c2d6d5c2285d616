"""The HTTP server around the resource tree: the limits and timeouts of connections, and its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory, IReactorTime
from twisted.logger import Logger
from twisted.web.http import HTTPFactory, Request
from twisted.web.resource import IResource
from zope.interface import implementer

from synapse_login_module.common.repeats import OncePerPeriod
from synapse_login_module.web.budget import Budget
from synapse_login_module.web.channel import LoginChannel
from synapse_login_module.web.http_request import HTTPRequest
from synapse_login_module.web.sending import Sending
from synapse_login_module.web.timeouts import TimeoutQueue
from synapse_login_module.web.turns import Turns

REQUEST_TIMEOUT = 30.0
IDLE_TIMEOUT = 60.0
RECEIVE_TIMEOUT = 5.0
DRAIN_TIMEOUT = 30.0
LEAVE_TIMEOUT = 10.0

_log = Logger()


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """The limits of a site.

    :param connections: how many may be open at once.
    :param connections_per_address: how many of one network; ``None`` is no limit.
    :param request_timeout: seconds for a whole request to arrive, and for responses to be read.
    :param idle_timeout: seconds that a connection may go without a request.
    :param held: bytes of requests without a response that all connections may hold in memory.
    """

    connections: int = 2000
    connections_per_address: int | None = 200
    request_timeout: float = REQUEST_TIMEOUT
    idle_timeout: float = IDLE_TIMEOUT
    held: int = 4 << 20


@implementer(IProtocolNegotiationFactory)
class LoginSite(HTTPFactory):
    """A site that limits its connections and can be drained.

    It logs no request line, since there may be a token in it. It is no
    :class:`twisted.web.server.Site`, whose module imports what this server does not use.

    :param root: the resource tree.
    :param reactor: has the clock and the timers.
    :param limits: of its connections.
    :param network_of: names the network that a peer's connections count against; ``None`` for a
        trusted proxy, which has many clients.
    :param network_of_request: names the network that a request comes from, by a proxy or not.
    :param evicted: called for each connection that a limit closes.
    """

    protocol: Any = LoginChannel

    def __init__(
        self,
        root: IResource,
        reactor: IReactorTime,
        limits: SiteLimits | None = None,
        network_of: Callable[[IAddress], str | None] = lambda peer: None,
        network_of_request: Callable[[Request], str] = lambda request: "",
        evicted: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(timeout=None, reactor=reactor)  # type: ignore[arg-type] # no timeout
        self.resource = root
        self._limits = limits = limits or SiteLimits()
        self._network_of = network_of
        self._evicted = evicted
        self.network_of_request = network_of_request
        self.turns: Turns[HTTPRequest] = Turns(HTTPRequest.begin, reactor)
        self.sending: Sending[LoginChannel] = Sending(
            LoginChannel.send_held, LoginChannel.abort, reactor
        )
        self.channels: set[LoginChannel] = set()
        self._networks: defaultdict[str, set[LoginChannel]] = defaultdict(set)
        self.idle = TimeoutQueue(limits.idle_timeout, LoginChannel.loseConnection, reactor)
        self.receiving = TimeoutQueue(
            limits.request_timeout, LoginChannel.receive_timed_out, reactor
        )
        self.unread = TimeoutQueue(limits.request_timeout, LoginChannel.abort, reactor)
        self.leaving = TimeoutQueue(LEAVE_TIMEOUT, LoginChannel.abort, reactor)
        self._queues = (self.leaving, self.unread, self.receiving, self.idle)
        self.budget: Budget[LoginChannel] = Budget(
            limits.held, lambda each: not each.is_responding, LoginChannel.shed
        )
        self._eviction_lines = OncePerPeriod(reactor.seconds)
        self.draining = False
        self._drained: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make the channel of a connection."""
        channel: Any = super().buildProtocol(addr)
        channel.requestFactory = HTTPRequest
        channel.site = self
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols over TLS: never HTTP/2, which Twisted may support."""
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """Log nothing: the audit log has the outcomes."""

    def channel_made(self, channel: LoginChannel) -> None:
        """Count a connection in, and close one when that is too many.

        The one that has kept the server waiting the longest is closed. That is the new one when the
        server is responding to all others.
        """
        limits = self._limits
        self.channels.add(channel)
        channel.network = self._network_of(channel.transport.getPeer())
        if channel.network is not None and limits.connections_per_address is not None:
            peers = self._networks[channel.network]
            peers.add(channel)
            if len(peers) > limits.connections_per_address:
                self._evict(peers)
        if len(self.channels) > limits.connections:
            self._log_evictions(limits.connections)
            longest = (queue.longest() for queue in self._queues)
            self._evict(each for each in longest if each is not None)

    def channel_gone(self, channel: LoginChannel) -> None:
        """Count a connection out, and end the draining if it was the last one."""
        self._forget(channel)
        self._see_whether_empty()

    def drain(self, grace: float = 0.0) -> Deferred[None]:
        """Respond to the requests in flight, and close every connection.

        :param grace: seconds that an idle connection stays open, for one last request that may be
            on its way.
        :return: fires when no connection is left. After the grace, a request has
            :data:`RECEIVE_TIMEOUT` seconds to arrive. A response has :data:`DRAIN_TIMEOUT` seconds.
        """
        self.draining = True
        self._drained = drained = Deferred[None]()
        deadlines = [
            self.reactor.callLater(grace + RECEIVE_TIMEOUT, self._abort, False),
            self.reactor.callLater(DRAIN_TIMEOUT, self._abort, True),
        ]
        if grace:
            deadlines.append(self.reactor.callLater(grace, self._close_idle))
        else:
            self._close_idle()
        self._see_whether_empty()

        def done(_: None) -> None:
            for deadline in deadlines:
                if deadline.active():
                    deadline.cancel()

        return drained.addCallback(done)

    def _log_evictions(self, connections: int) -> None:
        if self._eviction_lines.is_written():
            _log.warn("{limit} connections are open: the longest idle are cut", limit=connections)

    def _evict(self, among: Iterable[LoginChannel]) -> None:
        """Close the connection that has kept the server waiting the longest, and count it out."""
        longest = min(among, key=lambda channel: channel.waiting_since)
        self._forget(longest)
        self._evicted()
        longest.abort()

    def _forget(self, channel: LoginChannel) -> None:
        self.channels.discard(channel)
        if channel.network is not None and (peers := self._networks.get(channel.network)):
            peers.discard(channel)
            if not peers:
                del self._networks[channel.network]

    def _see_whether_empty(self) -> None:
        if self.channels:
            return
        for queue in self._queues:
            queue.stop()
        self.turns.stop()
        self.sending.stop()
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _close_idle(self) -> None:
        for channel in list(self.channels):
            if channel.requests:
                channel.persistent = False
            else:
                channel.loseConnection()

    def _abort(self, responding_too: bool) -> None:
        for channel in list(self.channels):
            if responding_too or not channel.is_responding:
                channel.abort()
