"""Tests for where the log goes."""

from __future__ import annotations

import logging
from typing import Any

from twisted.internet.testing import MemoryReactor
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import tap
from synapse_login_module.config.settings import parse
from synapse_login_module.errors import ConfigError
from synapse_login_module.standalone import log_output
from synapse_login_module.standalone.log_capture import ToTwisted
from tests.support.configuration import good_config


class OptionsTests(SynchronousTestCase):
    """What twistd's options say."""

    def options(self, **given: Any) -> Any:
        """Return twistd's options after ours have been parsed."""
        twistd: Any = {"logger": None, "logfile": None, "syslog": 0, "nodaemon": 1, **given}
        options = tap.Options()
        options.parent = twistd
        options.parseOptions(["--config", "x"])
        self.to_standard_output = options.logs_to_standard_output
        return twistd

    def observer(self, form: Any, **given: Any) -> Any:
        """Return the observer for such options."""
        return log_output.observer_for(self.options(**given), form, MemoryReactor())

    def test_standard_output(self) -> None:
        """Our observer is used where twistd would log to standard output."""
        for logfile in (None, "-"):
            self.assertIsNotNone(self.observer("text", logfile=logfile))
            self.assertTrue(self.to_standard_output)

    def test_elsewhere(self) -> None:
        """As text, it is not used where the operator sends the log elsewhere."""
        for elsewhere in ({"logfile": "x.log"}, {"syslog": 1}, {"nodaemon": 0}, {"logger": "x.y"}):
            self.assertIsNone(self.observer("text", **elsewhere))
            self.assertFalse(self.to_standard_output)

    def test_other_forms(self) -> None:
        """As JSON, the log cannot go where twistd writes another form."""
        for elsewhere in ({"syslog": 1}, {"logger": "x.y"}, {"nodaemon": 0, "logfile": "-"}):
            error = self.assertRaises(ConfigError, self.observer, "json", **elsewhere)
            self.assertEqual(error.path, "log.format")

    def test_settings(self) -> None:
        """The form is text by default, and one of two."""
        self.assertEqual(parse(good_config()).log.format, "text")
        self.assertEqual(parse(good_config(log={"format": "json"})).log.format, "json")
        for wrong in ({"format": "xml"}, {"form": "json"}, "json"):
            self.assertRaises(ConfigError, parse, good_config(log=wrong))


class ToTwistedTests(SynchronousTestCase):
    """Records of the standard library's logging."""

    def setUp(self) -> None:
        self.events: list[Any] = []
        observer: Any = self.events.append
        publisher = LogPublisher(observer)
        self.logger = logging.Logger("their.library")  # in no tree
        self.logger.addHandler(ToTwisted(lambda name: Logger(name, observer=publisher)))

    def test_levels(self) -> None:
        """Each record is an event of its logger, at the level that Twisted has for it."""
        for level in (5, logging.DEBUG, logging.INFO, 25, logging.WARNING, logging.ERROR, 50):
            self.logger.log(level, "at %d", level)
        self.assertEqual(
            [(each["log_namespace"], each["line"]) for each in self.events],
            [("their.library", f"at {level}") for level in (5, 10, 20, 25, 30, 40, 50)],
        )
        names = ["debug", "debug", "info", "info", "warn", "error", "critical"]
        self.assertEqual(
            [each["log_level"] for each in self.events],
            [LogLevel.lookupByName(name) for name in names],
        )

    def test_wrong_arguments(self) -> None:
        """A record whose arguments do not fit its message is not lost."""
        self.logger.warning("of %d and %d", "x")
        self.assertEqual(self.events[0]["line"], "of %d and %d")

    def test_traceback(self) -> None:
        """A record's exception is the event's failure; without one there is none."""
        try:
            raise ValueError("bad")
        except ValueError:
            self.logger.exception("broken")
        self.logger.exception("nothing is")
        self.assertIn("ValueError: bad", self.events[0]["log_failure"].getTraceback())
        self.assertNotIn("log_failure", self.events[1])
