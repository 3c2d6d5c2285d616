"""What a service manager is told: systemd's ``sd_notify(3)``, without its library."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_SEND_TIMEOUT = 1.0


class Notifier(Service):
    """Tells the service manager how the server fares, where there is one that wants to know.

    While it runs, it says twice in each period of the manager's watchdog that the reactor turns.

    :param environment: with ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.
    :param clock: calls at the right time.
    """

    log = Logger()

    def __init__(self, environment: Mapping[str, str], clock: IReactorTime) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # Linux's names that are in no folder
            self._address = "\0" + self._address[1:]
        self._period = _watchdog(environment) / 2
        self._watchdog = LoopingCall(self._send, "WATCHDOG=1", timeout=0.0)
        self._watchdog.clock = clock

    def startService(self) -> None:
        """Feed the watchdog."""
        super().startService()
        if self._period:
            self._watchdog.start(self._period)

    def stopService(self) -> None:
        """Say that the server stops; from then on the manager's watchdog waits no more."""
        super().stopService()
        if self._watchdog.running:
            self._watchdog.stop()
        self._send("STOPPING=1")

    def ready(self) -> None:
        """The server listens, or has taken up its new configuration."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The server takes up a new configuration; to be followed by :meth:`ready`."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _send(self, state: str, timeout: float = _SEND_TIMEOUT) -> None:
        """Send a datagram; wait that many seconds, if the manager does not keep up."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(timeout)
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            self.log.warn("cannot tell the service manager: {error}", error=error)


def _watchdog(environment: Mapping[str, str]) -> float:
    """How many seconds the watchdog waits; 0 for ever, or if it watches another process."""
    watched = environment.get("WATCHDOG_PID", str(os.getpid()))
    microseconds = environment.get("WATCHDOG_USEC", "")
    if watched != str(os.getpid()) or not microseconds.isdecimal():
        return 0.0
    return int(microseconds) / 1_000_000
