"""The configuration of a homeserver that delegates to the standalone server, and its check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import ConfigError, HomeserverUnavailable
from synapse_login_module.homeservers.synapse import SynapseHomeserver
from synapse_login_module.standalone.delegation import CHECK_INTERVAL, HomeserverCheck
from synapse_login_module.standalone.plan import LoadedConfig, load_config
from synapse_login_module.testing.homeservers import FakeHomeserver
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder

GOOD = "homeserver: it is there, with the same secret; a line follows when it asks about a token"


class ConfigTests(SynchronousTestCase):
    """What is required, and what is rejected."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        (self.folder / "secret").write_text("open-sesame\n")

    def config(self, **changes: Any) -> Mapping[str, Any]:
        """Return a configuration with a homeserver."""
        return good_config(
            **{
                "internal_listen": ["tcp:8081:interface=127.0.0.1"],
                "public_baseurl": "https://matrix.example.com/",
                "homeserver": self.homeserver(),
                **changes,
            }
        )

    def homeserver(self, **more: Any) -> Mapping[str, Any]:
        """Return the configuration of a Synapse."""
        return {
            "module": "synapse_login_module.homeservers.SynapseHomeserver",
            "config": {"url": "http://127.0.0.1:8008", "secret_file": "secret", **more},
        }

    def load(self, config: Mapping[str, Any]) -> LoadedConfig:
        """Check a configuration."""
        return load_config(write_config(self.folder, dict(config)), MemoryReactorClock())

    def problems(self, **changes: Any) -> list[str]:
        """Return the mistakes of a configuration."""
        with self.assertRaises(ConfigError) as raised:
            self.load(self.config(**changes))
        return [str(each) for each in raised.exception.all()]

    def test_good(self) -> None:
        """The homeserver's class is loaded, and the URL loses its slash at the end."""
        loaded = self.load(self.config())
        assert loaded.homeserver is not None
        self.assertIs(loaded.homeserver[0], SynapseHomeserver)
        self.assertEqual(loaded.config.public_baseurl, "https://matrix.example.com")
        self.assertEqual(
            [each.path for each in loaded.config.listeners], ["listen.0", "internal_listen.0"]
        )

    def test_required(self) -> None:
        """The homeserver needs an endpoint to ask at, and the URL for clients."""
        self.assertEqual(
            self.problems(internal_listen=[], public_baseurl=None),
            [
                "internal_listen: the homeserver needs an endpoint to ask about tokens at",
                "public_baseurl: the homeserver tells clients this URL: it is required",
            ],
        )

    def test_mistakes(self) -> None:
        """Each mistake is named by its path."""
        for changes, problem in (
            ({"public_baseurl": "matrix.example.com"}, "public_baseurl: write it like"),
            (
                {"homeserver": {"module": "synapse_login_module.stores.MemoryTokenStore"}},
                "homeserver.module: not a class that implements IHomeserver",
            ),
            ({"homeserver": {"config": {}}}, "homeserver.module: it is missing"),
            ({"link_accounts": ["@root:elsewhere.example"]}, "link_accounts.0: not an account of"),
            (
                {"link_accounts": ["ldap:@a:example.com"]},
                "link_accounts.0: no password provider",
            ),
            (
                {"internal_listen": ["tcp:8008:interface=127.0.0.1"]},
                "internal_listen.0: the same endpoint is listed twice",
            ),
            (
                {"tokens": {"account_check_timeout": "4s"}},
                "tokens.account_check_timeout: must be below 4s",
            ),
            ({"existing_accounts": "some"}, "existing_accounts: "),
            (
                {"homeserver": self.homeserver(admins=["@a:example.com", "@root:example.org"])},
                "homeserver.config.admins.1: @root:example.org is no user of example.com",
            ),
        ):
            (found,) = self.problems(**changes)
            self.assertTrue(found.startswith(problem), found)

    def test_without_homeserver(self) -> None:
        """The rules for existing accounts are rejected where there are none."""
        config = {**self.config(homeserver=None), "existing_accounts": "all"}
        with self.assertRaises(ConfigError) as raised:
            self.load(config)
        self.assertIn("existing_accounts: only valid with homeserver", str(raised.exception))


class CheckTests(SynchronousTestCase):
    """The check of the homeserver at the start."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.homeserver = FakeHomeserver()
        self.check = HomeserverCheck(self.homeserver, self.clock)
        self.addCleanup(self.check.stopService)

    def lines(self, seconds: float) -> list[str]:
        """Let time pass; return what is logged."""
        with capturedLogs() as events:
            if not self.check.running:
                self.check.startService()
            self.clock.advance(seconds)
        return [formatEvent(event) or "" for event in events]

    def test_good(self) -> None:
        """One line says that all is well, and nothing is checked again."""
        self.assertEqual(self.lines(0), [GOOD])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wrong(self) -> None:
        """Each problem is one line, however long it lasts, and so is its end."""
        self.homeserver.problem = "the secrets differ"
        self.assertEqual(self.lines(0), ["homeserver: the secrets differ"])
        self.assertEqual(self.lines(CHECK_INTERVAL), [])
        self.homeserver.problem = None
        self.homeserver.failure = HomeserverUnavailable("it is away")
        self.assertEqual(self.lines(CHECK_INTERVAL), ["homeserver: it is away"])
        self.homeserver.failure = None
        self.assertEqual(self.lines(CHECK_INTERVAL), [GOOD])

    def test_stop(self) -> None:
        """Nothing is checked after the end."""
        self.homeserver.problem = "the secrets differ"
        self.lines(0)
        self.check.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
