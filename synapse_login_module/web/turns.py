"""Whose request is begun next, where more come than can be answered at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

R = TypeVar("R", bound=Hashable)

SLICE = 0.003
"""Seconds of the reactor's time that requests are begun for, before it looks for others."""


class Turns(Generic[R]):
    """Begins requests at once while there is time, and else one of each network in turn.

    So one that floods the server waits for itself, and others wait for one request of it.

    :param begin: called with each request.
    :param reactor: keeps the time.
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

        :param network_of: names its network, whose requests wait for one another.
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
        """Begin a request no more, if it has not been."""
        for network, requests in self._waiting.items():
            if request in requests:
                del requests[request]
                if not requests:
                    del self._waiting[network]
                break

    def stop(self) -> None:
        """Leave no timer behind."""
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
