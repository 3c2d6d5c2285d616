"""An endpoint whose connecting can be cancelled."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IStreamClientEndpoint)
class CancellableEndpoint:
    """Connects through another endpoint. When cancelled, it fails with ``CancelledError`` at every
    stage of connecting.

    Twisted's own endpoints may fail with another error then, such as one that says that the host
    has no address. That looks like an outage, so a client that closes its connection early would
    make its backend count as down.
    """

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fires with the protocol."""

        def give_up(connected: Deferred[IProtocol]) -> None:
            connected.errback(CancelledError())
            connecting.cancel()

        def tell(result: IProtocol | Failure) -> None:
            if not connected.called:
                connected.callback(result)

        connected: Deferred[IProtocol] = Deferred(give_up)
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        connecting.addBoth(tell)
        return connected
