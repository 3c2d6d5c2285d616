"""Sending responses, those of one turn of the reactor together.

A transport of Twisted asks the reactor to watch its socket when something is written to it, and to
watch it no longer once that is sent. For a response that fits into the socket's buffer, as nearly
all do, this takes longer than the sending itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

C = TypeVar("C")


class Sending(Generic[C]):
    """Has connections send what they hold back, in the next turn of the reactor.

    A client that gets its response at once may send its next request while this turn still makes
    the responses of others. That wakes processes one by one, and costs more than it brings.

    :param send: called with each connection.
    :param abort: called with a connection whose sending raised an error.
    :param reactor: schedules the next turn.
    """

    log = Logger()

    def __init__(
        self, send: Callable[[C], object], abort: Callable[[C], object], reactor: IReactorTime
    ) -> None:
        self._send = send
        self._abort = abort
        self._reactor = reactor
        self._holding: list[C] = []
        self._timer: IDelayedCall | None = None

    def add(self, one: C) -> None:
        """Have a connection send in the next turn."""
        self._holding.append(one)
        if self._timer is None:
            self._timer = self._reactor.callLater(0, self._send_all)

    def stop(self) -> None:
        """Forget the connections, which are closed, and cancel the timer."""
        self._holding.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_all(self) -> None:
        self._timer = None
        holding, self._holding = self._holding, []
        for each in holding:
            try:
                self._send(each)
            except Exception:
                self.log.failure("cannot send a response")
                self._abort(each)


def can_send(transport: Any) -> bool:
    """Say whether :func:`send_now` may be called: on a socket of Twisted's without TLS."""
    return isinstance(transport, FileDescriptor) and not getattr(transport, "TLS", False)


def send_now(transport: Any, data: bytes) -> None:
    """Send data, and have the transport send what the system does not take now."""
    # Where Twisted keeps what waits elsewhere, something may wait.
    waits = getattr(transport, "dataBuffer", True) or getattr(transport, "_tempDataBuffer", True)
    if transport.connected and not transport.disconnecting and not waits:
        sent = transport.writeSomeData(data)
        # A connection that is lost is left to the reactor, which has its protocol told.
        if isinstance(sent, int) and sent > 0:
            data = data[sent:]
    if data:
        transport.write(data)
