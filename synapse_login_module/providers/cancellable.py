"""Connecting, and giving that up."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IStreamClientEndpoint)
class CancellableEndpoint:
    """Connects; when that is cancelled it fails with ``CancelledError``, however far it had come.

    Twisted's own say then that the host has no address, or something else that may as well be an
    outage: a client that goes away would have its server taken for down.
    """

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect."""

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
