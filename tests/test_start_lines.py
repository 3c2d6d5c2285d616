"""Tests for the lines at the start."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import yaml
from twisted.copyright import version as twisted_version
from twisted.internet.testing import MemoryReactor
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import __version__, start_lines
from synapse_login_module.standalone.facts import Facts
from synapse_login_module.standalone.plan import LoadedConfig, load_config
from synapse_login_module.stores import MemoryTokenStore
from tests.support.configuration import CHEAP_HASH, good_config, write_config
from tests.support.folders import temporary_folder

STORES = "synapse_login_module.stores."
PROVIDERS = "synapse_login_module.providers."


class SilentStore(MemoryTokenStore):
    """A store that does not say where it is."""

    describe = None  # type: ignore[assignment]


class StartCase(SynchronousTestCase):
    """A test case with a configuration in a folder."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def load(self, **changes: Any) -> LoadedConfig:
        """Load a configuration."""
        return load_config(write_config(self.folder, good_config(**changes)), MemoryReactor())

    def texts(self, loaded: LoadedConfig) -> dict[str, str]:
        """Return the facts as sentences, by name."""
        return {fact.name: fact.text for fact in Facts(loaded).of(loaded)}


class FactsTests(StartCase):
    """The facts about a standalone server."""

    def test_simple(self) -> None:
        """There is one line for each fact."""
        self.assertEqual(
            self.texts(self.load()),
            {
                "version": f"synapse_login_module {__version__},"
                f" Python {platform.python_version()}, Twisted {twisted_version}",
                "listen": "listens at http://127.0.0.1:8008",
                "store": f"sessions are kept in SQLiteTokenStore, {self.folder}/sessions.db",
                "providers": "passwords are checked by bcrypt (BcryptProvider, 1 account)",
                "homeserver": "there is no homeserver; users are of example.com",
            },
        )

    def test_listen(self) -> None:
        """URLs of all kinds of endpoints are told."""
        loaded = self.load(
            listen=[
                "tcp:8008",
                "tcp6:8009",
                r"tcp:port=8010:interface=\:\:1",
                "unix:/run/login.sock",
                "unix:address=/run/other.sock:mode=660",
                "tcp:0:interface=127.0.0.1",
            ],
            internal_listen=["tcp:8011:interface=127.0.0.1"],
            public_baseurl="https://login.example.com/",
            password_providers=[
                {
                    "module": PROVIDERS + "BcryptProvider",
                    "config": {"users": {"alice": {"password_hash": CHEAP_HASH}}},
                }
            ],
        )
        self.assertEqual(
            self.texts(loaded)["listen"],
            "listens at http://0.0.0.0:8008, http://[::]:8009, http://[::1]:8010,"
            " unix:/run/login.sock, unix:/run/other.sock, tcp:0:interface=127.0.0.1,"
            " internally at http://127.0.0.1:8011;"
            " its public URL is https://login.example.com",
        )

    def test_only_metrics(self) -> None:
        """An internal endpoint without a homeserver, for metrics, is not said to be for one."""
        texts = self.texts(self.load(internal_listen=["tcp:9009:interface=127.0.0.1"]))
        self.assertIn("internally at http://127.0.0.1:9009", texts["listen"])
        self.assertNotIn("homeserver", texts["listen"])
        self.assertIn("there is no homeserver", texts["homeserver"])

    def test_providers(self) -> None:
        """Files say how many accounts they have; a directory does not."""
        users = self.folder / "users.yaml"
        users.write_text(
            yaml.safe_dump({"users": {name: {"password_hash": CHEAP_HASH} for name in "ab"}})
        )
        loaded = self.load(
            password_providers=[
                {"module": PROVIDERS + "BcryptProvider", "config": {"path": "users.yaml"}},
                {
                    "module": PROVIDERS + "ldap.LDAPProvider",
                    "name": "staff",
                    "config": {
                        "servers": ["ldap://127.0.0.1"],
                        "bind_dn_template": "uid={localpart},ou=people,dc=example,dc=com",
                    },
                },
            ]
        )
        self.assertEqual(
            self.texts(loaded)["providers"],
            "passwords are checked by bcrypt (BcryptProvider, 2 accounts), staff (LDAPProvider)",
        )
        self.assertEqual(start_lines.accounts_at_start(loaded.providers), [2, None])

    def test_store(self) -> None:
        """The place of a store is told without its password."""
        dsn = "host=db.example.com port=5433 dbname=login user=login password=hunter2"
        loaded = self.load(
            token_store={"module": STORES + "PostgreSQLTokenStore", "config": {"dsn": dsn}}
        )
        fact = start_lines.kept_in(loaded.store)
        self.assertEqual(
            fact.text,
            "sessions are kept in PostgreSQLTokenStore,"
            " database login of the PostgreSQL at db.example.com, port 5433",
        )
        self.assertNotIn("hunter2", repr(Facts(loaded).of(loaded)))

    def test_other_stores(self) -> None:
        """A store that cannot say where it is does not keep the server from starting."""
        self.assertIn("forgets", start_lines.kept_in((MemoryTokenStore, None)).text)
        self.assertIn("it cannot say where", start_lines.kept_in((SilentStore, None)).text)
        self.assertEqual(start_lines.kept_in((object, None)).text, "sessions are kept in object")

    def test_homeserver(self) -> None:
        """The homeserver's name and URL are told, and its secret is not."""
        (self.folder / "secret").write_text("hunter2hunter2\n")
        (self.folder / "secret").chmod(0o600)
        loaded = self.load(
            homeserver={
                "module": "synapse_login_module.homeservers.SynapseHomeserver",
                "config": {"url": "http://127.0.0.1:8018/", "secret_file": "secret"},
            },
            internal_listen=["tcp:8011:interface=127.0.0.1"],
            public_baseurl="https://login.example.com/",
        )
        self.assertEqual(
            self.texts(loaded)["homeserver"],
            "the homeserver example.com at http://127.0.0.1:8018"
            " delegates authentication to this server",
        )
        self.assertNotIn("hunter2", repr(Facts(loaded).of(loaded)))


class SayTests(SynchronousTestCase):
    """How facts are logged."""

    def test_say(self) -> None:
        """Each is an event of its own, whose fields programs can read."""
        with capturedLogs() as events:
            start_lines.say([start_lines.homeserver("x", "http://x", False)], "reload")
        (event,) = events
        self.assertEqual(formatEvent(event), "reload: the homeserver is x at http://x")
        self.assertEqual(event["log_level"], LogLevel.info)
        self.assertEqual(
            [event[name] for name in ("at", "fact", "server_name", "homeserver", "delegated")],
            ["reload", "homeserver", "x", "http://x", False],
        )

    def test_stopped(self) -> None:
        """The last line names the version."""
        with capturedLogs() as events:
            start_lines.stopped()
        self.assertIn(__version__, formatEvent(events[0]) or "")
        self.assertEqual(events[0]["at"], "stop")

    def test_path(self) -> None:
        """A relative path of a database is told in full."""
        from synapse_login_module.stores import SQLiteTokenStore

        self.assertEqual(SQLiteTokenStore.describe(Path("x.db")), str(Path.cwd() / "x.db"))
