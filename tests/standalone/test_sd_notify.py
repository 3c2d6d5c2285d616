"""Tests for notifications of the service manager, with a real socket."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from threading import Thread

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.standalone.sd_notify import Notifier


class NotifierTests(SynchronousTestCase):
    """A notifier and the manager's socket."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.path = os.path.relpath(self.mktemp())
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)

    def notifier(self, **environment: str) -> Notifier:
        """Make a notifier for the socket."""
        self.manager.bind(self.path)
        return Notifier({"NOTIFY_SOCKET": self.path, **environment}, self.clock)

    def told(self) -> list[str]:
        """Return the notifications since the last call."""
        told = []
        self.manager.setblocking(False)
        while True:
            try:
                told.append(self.manager.recv(1000).decode())
            except BlockingIOError:
                return told

    def test_ready(self) -> None:
        """The server notifies that it is ready."""
        self.notifier().ready()
        self.assertEqual(self.told(), ["READY=1"])

    def test_reloading(self) -> None:
        """It notifies a reload with its time, by which systemd matches the READY=1 that follows."""
        before = time.monotonic_ns() // 1000
        self.notifier().reloading()
        (told,) = self.told()
        state, moment = told.splitlines()
        self.assertEqual(state, "RELOADING=1")
        name, _, microseconds = moment.partition("=")
        self.assertEqual(name, "MONOTONIC_USEC")
        self.assertTrue(before <= int(microseconds) <= time.monotonic_ns() // 1000)

    def test_stopping(self) -> None:
        """It notifies that it stops."""
        notifier = self.notifier()
        notifier.startService()
        notifier.stopService()
        self.assertEqual(self.told(), ["STOPPING=1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_watchdog(self) -> None:
        """Keep-alive messages are sent at once, then twice in each period, until the end."""
        notifier = self.notifier(WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        notifier.startService()
        self.assertEqual(self.told(), ["WATCHDOG=1"])
        self.clock.advance(1.4)
        self.assertEqual(self.told(), [])
        self.clock.pump([0.1, 1.5, 1.5])
        self.assertEqual(self.told(), ["WATCHDOG=1"] * 3)
        notifier.stopService()
        self.clock.advance(10)
        self.assertEqual(self.told(), ["STOPPING=1"])

    def test_watchdog_of_another_process(self) -> None:
        """A watchdog of another process, or without a valid period, is ignored."""
        notifier = self.notifier(WATCHDOG_USEC="3000000", WATCHDOG_PID="1")
        notifier.startService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for nothing in ("", "0", "soon", "-1"):
            Notifier({"WATCHDOG_USEC": nothing}, self.clock).startService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_abstract(self) -> None:
        """An abstract socket is found by its name."""
        name = f"synapse-login-test-{os.getpid()}"
        self.manager.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}, self.clock).ready()
        self.assertEqual(self.told(), ["READY=1"])

    def test_slow_manager(self) -> None:
        """While the manager's queue is full, keep-alive messages are dropped, and states wait."""
        notifier = self.notifier(WATCHDOG_USEC="2000000")
        notifier.startService()
        self.clock.pump([1.0] * 2000)
        with capturedLogs() as events:
            self.clock.advance(1.0)
        self.assertEqual(len(events), 1)
        # If the reader comes first, there is room at once.
        reader = Thread(target=self.manager.recv, args=(1000,))
        reader.start()
        notifier.ready()
        reader.join()
        self.assertEqual(self.told()[-1], "READY=1")

    def test_no_manager(self) -> None:
        """Without a manager, or when it has gone, notifications have no effect."""
        Notifier({}, self.clock).ready()
        Notifier({"NOTIFY_SOCKET": self.path}, self.clock).ready()
        self.assertFalse(Path(self.path).exists())
