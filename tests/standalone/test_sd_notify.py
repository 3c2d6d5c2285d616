"""Tests for what a service manager is told, with a real socket in its place."""

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
        """A notifier that knows the socket."""
        self.manager.bind(self.path)
        return Notifier({"NOTIFY_SOCKET": self.path, **environment}, self.clock)

    def told(self) -> list[str]:
        """What the manager has been told since."""
        told = []
        self.manager.setblocking(False)
        while True:
            try:
                told.append(self.manager.recv(1000).decode())
            except BlockingIOError:
                return told

    def test_ready(self) -> None:
        """The server is ready."""
        self.notifier().ready()
        self.assertEqual(self.told(), ["READY=1"])

    def test_reloading(self) -> None:
        """It reloads, and since when: systemd tells by that which READY=1 is of it."""
        before = time.monotonic_ns() // 1000
        self.notifier().reloading()
        (told,) = self.told()
        state, moment = told.splitlines()
        self.assertEqual(state, "RELOADING=1")
        name, _, microseconds = moment.partition("=")
        self.assertEqual(name, "MONOTONIC_USEC")
        self.assertTrue(before <= int(microseconds) <= time.monotonic_ns() // 1000)

    def test_stopping(self) -> None:
        """It stops."""
        notifier = self.notifier()
        notifier.startService()
        notifier.stopService()
        self.assertEqual(self.told(), ["STOPPING=1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_watchdog(self) -> None:
        """The watchdog is fed at once, then twice in its period, until the server stops."""
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
        """A socket that is in no folder is found by its name."""
        name = f"synapse-login-test-{os.getpid()}"
        self.manager.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}, self.clock).ready()
        self.assertEqual(self.told(), ["READY=1"])

    def test_slow_manager(self) -> None:
        """A manager that does not keep up misses the watchdog's food, and no change."""
        notifier = self.notifier(WATCHDOG_USEC="2000000")
        notifier.startService()
        self.clock.pump([1.0] * 2000)
        with capturedLogs() as events:
            self.clock.advance(1.0)
        self.assertEqual(len(events), 1)
        # The reader may well come first: then there is room at once.
        reader = Thread(target=self.manager.recv, args=(1000,))
        reader.start()
        notifier.ready()
        reader.join()
        self.assertEqual(self.told()[-1], "READY=1")

    def test_no_manager(self) -> None:
        """Where no manager wants to know, or it is gone, nothing comes of it."""
        Notifier({}, self.clock).ready()
        Notifier({"NOTIFY_SOCKET": self.path}, self.clock).ready()
        self.assertFalse(Path(self.path).exists())
