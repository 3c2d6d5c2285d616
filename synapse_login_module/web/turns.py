"""Which request is begun next, when more arrive than can be begun at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

R = TypeVar("R", bound=Hashable)

SLICE = 0.003
"""Seconds for which requests are begun, before the reactor goes on to its other work."""


class Turns(Generic[R]):
    """Begins requests at once while there is time, and else round-robin over the networks.

    So a network that floods the server delays its own requests. Those of another network wait for
    one request of the flood at most.

    :param begin: called with each request.
    :param reactor: has the clock and the timer.
    """

    def __init__(self, begin: Callable[[R], object], reactor: IReactorTime) -> None:
        self._begin = begin
        self._reactor = reactor
        self._waiting: OrderedDict[str, OrderedDict[R, None]] = OrderedDict()
        self._timer: IDelayedCall | None = None
        self._since = 0.0
        self._spent = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, request: R, network_of: Callable[[R], str]) -> None:
        """Begin a request now or in its turn.

        :param network_of: names the network of a request.
        """
        now = self._reactor.seconds()
        if not 0 <= now - self._since < 2 * SLICE:
            self._since, self._spent = now, 0.0
        if self._waiting or self._spent >= SLICE:
            self._waiting.setdefault(network_of(request), OrderedDict())[request] = None
            self._go_on_later()
            return
        try:
            self._begin(request)
        finally:
            self._spent += self._reactor.seconds() - now

    def remove(self, request: R) -> None:
        """Remove a request that has not been begun."""
        for network, requests in self._waiting.items():
            if request in requests:
                del requests[request]
                if not requests:
                    del self._waiting[network]
                break

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on_later(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = self._reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        end = self._reactor.seconds() + SLICE
        try:
            while self._waiting and self._reactor.seconds() < end:
                network, requests = self._waiting.popitem(last=False)
                request, _ = requests.popitem(last=False)
                if requests:
                    self._waiting[network] = requests
                self._begin(request)
        finally:
            self._go_on_later()
