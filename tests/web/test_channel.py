"""Tests for what the channel needs of Twisted."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import ConfigError
from synapse_login_module.standalone.plan import load_config
from synapse_login_module.web import channel
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder


class IncompatibilityTests(SynchronousTestCase):
    """:func:`synapse_login_module.web.channel.find_incompatibility`."""

    def test_installed_release(self) -> None:
        """The installed Twisted has everything: if not, this says what it has not."""
        self.assertIsNone(channel.find_incompatibility())

    def test_missing(self) -> None:
        """A release that lacks a private name ends the start with one line that names it."""
        self.patch(channel, "_PRIVATE_NAMES", ("_dataBuffer", "_gone", "_networkProducer"))
        path = write_config(temporary_folder(self), good_config())
        error = self.assertRaises(ConfigError, load_config, path, MemoryReactorClock())
        self.assertEqual(
            str(error),
            "this release of Twisted is not supported: it lacks twisted.web.http.HTTPChannel._gone",
        )
