"""Notifies the service manager: systemd's ``sd_notify(3)`` protocol, without its library."""

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
    """Notifies the service manager of the server's state, if ``NOTIFY_SOCKET`` is set.

    While it runs, it sends a keep-alive message from the reactor twice in each period of the
    manager's watchdog.

    :param environment: the environment variables ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and
        ``WATCHDOG_PID`` are read.
    :param clock: schedules the messages.
    """

    log = Logger()

    def __init__(self, environment: Mapping[str, str], clock: IReactorTime) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # Linux's abstract namespace
            self._address = "\0" + self._address[1:]
        self._period = _watchdog(environment) / 2
        self._watchdog = LoopingCall(self._send, "WATCHDOG=1", timeout=0.0)
        self._watchdog.clock = clock

    def startService(self) -> None:
        """Start sending keep-alive messages."""
        super().startService()
        if self._period:
            self._watchdog.start(self._period)

    def stopService(self) -> None:
        """Send that the server stops, which also ends the manager's watchdog."""
        super().stopService()
        if self._watchdog.running:
            self._watchdog.stop()
        self._send("STOPPING=1")

    def ready(self) -> None:
        """Send that the server serves: after the start, and after each reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Send that the server reloads its configuration; to be followed by :meth:`ready`."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _send(self, state: str, timeout: float = _SEND_TIMEOUT) -> None:
        """Send a datagram.

        :param timeout: seconds to wait while the manager's queue is full.
        """
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(timeout)
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            self.log.warn("cannot notify the service manager: {error}", error=error)


def _watchdog(environment: Mapping[str, str]) -> float:
    """Return the watchdog's period in seconds; 0 if there is none, or for another process."""
    watched = environment.get("WATCHDOG_PID", str(os.getpid()))
    microseconds = environment.get("WATCHDOG_USEC", "")
    if watched != str(os.getpid()) or not microseconds.isdecimal():
        return 0.0
    return int(microseconds) / 1_000_000
