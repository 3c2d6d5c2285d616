"""Tests for the log on standard output."""

from __future__ import annotations

import io
import sys
from typing import Any

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogLevel,
    capturedLogs,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from synapse_login_module.audit import LINE, AuditLog
from synapse_login_module.model import Client
from synapse_login_module.standalone import log_format


class EventTextTests(SynchronousTestCase):
    """The lines."""

    def setUp(self) -> None:
        self.ours, self.twisteds = io.StringIO(), io.StringIO()
        self.observers = (
            FileLogObserver(self.ours, log_format.EventText()),
            textFileLogObserver(self.twisteds),
        )

    def write(self, **event: Any) -> None:
        """Write an event with both observers."""
        whole = {"log_namespace": "here", "log_level": LogLevel.info, **event}
        for observer in self.observers:
            observer(whole)

    def test_as_twisted(self) -> None:
        """The text of any event is the same as Twisted's."""
        for when in (None, 0.0, 1.9, 2.0, 1790000000.25, 1790000000.75, 1700000000.5):
            self.write(log_time=when, log_format="of {number}", number=1)
        self.write(log_time=1.0, log_format="two\nlines")
        self.write(log_time=1.0, log_format="")
        self.write(log_time=1.0)
        self.write(log_time=1.0, log_format="{missing}")
        self.write(log_time=1.0, log_system="there", log_format="x")
        self.write(log_time=1.0, log_format="x", log_failure=Failure(ValueError("bad")))
        self.assertEqual(self.ours.getvalue(), self.twisteds.getvalue())

    def test_writer(self) -> None:
        """The name of the process follows the system of any event."""
        text = log_format.EventText("worker=2 pid=7")
        event = {"log_namespace": "here", "log_level": LogLevel.info, "log_time": 1.0}
        for more, where in (
            ({"log_format": LINE, "line": "x"}, "here#info"),
            ({"log_format": "x"}, "here#info"),
            ({"log_format": "x", "log_system": "there"}, "there"),
        ):
            self.assertRegex(
                text({**event, **more}) or "", rf"^\S+ \[{where} worker=2 pid=7\] x\n$"
            )

    def test_audit(self) -> None:
        """Audit lines are the same as Twisted's, including braces."""
        audit = AuditLog()
        with capturedLogs() as events:
            for user in ("@alice:example.com", "{line}", "a\nb", "\u00e9"):
                audit.record("login", "ok", "password", Client("192.0.2.1", "192.0.2.1"), user=user)
        for event in events:
            self.write(**event)
        self.assertEqual(self.ours.getvalue(), self.twisteds.getvalue())
        self.assertEqual(self.ours.getvalue().count("\n"), 4)

    def test_interface(self) -> None:
        """The observer writes to the standard output of the time when it was made."""
        self.patch(sys, "stdout", self.ours)
        observer = log_format.standard_output()
        verifyObject(ILogObserver, observer)
        observer({"log_format": "here", "log_time": 1.0})
        self.assertIn("here", self.ours.getvalue())
