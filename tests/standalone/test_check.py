"""Tests for the checks of ``check-config``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.config.homeserver_yaml import MODULE
from synapse_login_module.errors import ConfigError
from synapse_login_module.standalone.check import Checked, check_file
from tests.support.configuration import CHEAP_HASH, good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.process import require

_PROVIDERS = "synapse_login_module.providers"
_MYSQL = {"host": "db.example.com", "user": "a", "password": "geheim", "database": "c"}
_CLIENTS = {"type": "http", "port": 8008, "resources": [{"names": ["client"]}]}
_OURS = {"type": "http", "port": 8009, "resources": []}


class CheckCase(SynchronousTestCase):
    """A test case that checks files."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def check(self, config: object) -> Checked:
        """Check a configuration and return the result."""
        return check_file(write_config(self.folder, config), MemoryReactorClock())


class ListenTests(CheckCase):
    """The endpoints."""

    def test_socket_of_systemd(self) -> None:
        """A socket that systemd opens is not tried, and no mistake."""
        description = "systemd:domain=INET:index=0"
        found = self.check(good_config(listen=[description]))
        self.assertEqual(found, Checked([], [], [f"the socket {description}, which systemd opens"]))


class NotTriedTests(CheckCase):
    """The names of services that the check did not try."""

    def test_nothing(self) -> None:
        """A configuration with files alone has no untried services."""
        self.assertEqual(self.check(good_config()), Checked([], [], []))

    def test_named(self) -> None:
        """Each backend that was not connected to is named, without secrets."""
        require("ldaptor", "psycopg", "pymysql")
        providers = [
            {
                "module": f"{_PROVIDERS}.LDAPProvider",
                "config": {
                    "servers": ["ldaps://a.example.com", "ldaps://b.example.com"],
                    "base": "dc=example",
                    "bind_dn": "cn=search",
                    "bind_password": "geheim",
                },
            },
            {
                "module": f"{_PROVIDERS}.HTTPProvider",
                "config": {"endpoint": "https://auth.example.com:444"},
            },
            {
                "module": f"{_PROVIDERS}.SQLProvider",
                "config": {
                    "postgresql": "postgres://a:geheim@db.example.com/c",
                    "queries": {"by_user": "SELECT hash FROM a WHERE b = %(localpart)s"},
                },
            },
            {
                "module": f"{_PROVIDERS}.SQLProvider",
                "name": "shop",
                "config": {
                    "mysql": _MYSQL,
                    "queries": {"by_user": "SELECT hash FROM a WHERE b = %(localpart)s"},
                },
            },
        ]
        store = {
            "module": "synapse_login_module.stores.PostgreSQLTokenStore",
            "config": {"dsn": "host=127.0.0.1 port=1 password=geheim"},
        }
        found = self.check(good_config(password_providers=providers, token_store=store))
        self.assertEqual(
            found.not_tried,
            [
                "the directory at ldaps://a.example.com",
                "the directory at ldaps://b.example.com",
                "the service at https://auth.example.com:444",
                "the PostgreSQL at db.example.com",
                "the MySQL at db.example.com, port 3306",
                "the PostgreSQL at 127.0.0.1, port 1",
            ],
        )


class SecretTests(CheckCase):
    """No message holds a secret."""

    def test_never_told(self) -> None:
        """No message holds a pepper or a password of a directory or database."""
        require("ldaptor", "psycopg", "pymysql")
        pgpass = "host=db user=a password=geheim"
        given: dict[str, Any] = {
            "server_name": "example.com",
            "listen": ["tcp:8008:interface=127.0.0.1"],
            "password_providers": [
                {"module": f"{_PROVIDERS}.BcryptProvider", "config": {"pepper": "geheim"}},
                {
                    "module": f"{_PROVIDERS}.LDAPProvider",
                    "config": {
                        "servers": ["ldaps://directory.example.com"],
                        "base": "dc=example",
                        "bind_dn": "cn=search",
                        "bind_password": "geheim",
                    },
                },
                {
                    "module": f"{_PROVIDERS}.SQLProvider",
                    "config": {
                        "postgresql": pgpass,
                        "pepper": "geheim",
                        "queries": {"by_user": "SELECT a FROM b WHERE c = %(localpart)s"},
                    },
                },
                {
                    "module": f"{_PROVIDERS}.SQLProvider",
                    "name": "shop",
                    "config": {
                        "mysql": _MYSQL,
                        "queries": {"by_user": "SELECT a FROM b WHERE c = %(localpart)s"},
                    },
                },
                {
                    "module": f"{_PROVIDERS}.HTTPProvider",
                    "config": {
                        "url": "https://a:geheim@example.com",
                        "request": {"user": "{localpart}", "key": "geheim"},
                    },
                },
            ],
            "token_store": {
                "module": "synapse_login_module.stores.PostgreSQLTokenStore",
                "config": {"dsn": pgpass},
            },
        }
        odd: tuple[Any, ...] = (
            *(None, 5, 1.5, True, [], {}, ["geheim"], {"geheim": "geheim"}, "", "geheim"),
            *("geheim\n", "\0geheim", "!geheim", "ldap://a:geheim@b", "https://a:geheim@[b"),
            *(
                "postgres://a:geheim@b:port/",
                "hst=a password=geheim",
                "password='geheim",
                "{geheim",
            ),
        )
        secret_places = {
            *("pepper", "bind_password", "postgresql", "password", "dsn", "key", "url", "servers"),
        }
        for path in _leaves(given):
            values = odd if {*path} & secret_places else (None, 5, [], "")
            for value in values:
                error = self.assertRaises(ConfigError, self.check, _with(given, path, value))
                for each in error.all():
                    self.assertNotIn("geheim", str(each), f"{path}: {value!r}")


def _leaves(given: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values other than mappings and lists."""
    if not isinstance(given, (dict, list)):
        yield ()
        return
    for key, value in given.items() if isinstance(given, dict) else enumerate(given):
        for rest in _leaves(value):
            yield (key, *rest)


def _with(given: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value at a path."""
    if not path:
        return value
    copy = given.copy()
    copy[path[0]] = _with(given[path[0]], path[1:], value)
    return copy


class HomeserverTests(CheckCase):
    """The check of ``homeserver.yaml``."""

    def homeserver(self, *configs: Any, **changes: Any) -> dict[str, Any]:
        """Build Synapse's configuration with blocks of the module."""
        return {
            "server_name": "example.com",
            "listeners": [{**_CLIENTS, "x_forwarded": True}, _OURS],
            "modules": [
                {"module": "another.Module", "config": {"nonsense": 1}},
                *({"module": MODULE, "config": config} for config in configs),
            ],
            **changes,
        }

    def block(self, **changes: Any) -> dict[str, Any]:
        """Build a valid block of the module."""
        users = {"alice": {"password_hash": CHEAP_HASH}}
        provider = {"module": f"{_PROVIDERS}.BcryptProvider", "config": {"users": users}}
        return {"password_providers": [provider], **changes}

    def mistakes(self, config: object) -> list[str]:
        """Return the mistakes in a file."""
        error = self.assertRaises(ConfigError, self.check, config)
        return [str(each) for each in error.all()]

    def test_good(self) -> None:
        """The module's block is checked, and the rest of the file is ignored."""
        self.assertEqual(self.check(self.homeserver(self.block())), Checked([], [], []))

    def test_mistakes(self) -> None:
        """Mistakes in the block are reported with their path in Synapse's file."""
        block = self.block(listen=[], tokens={"key_file": "x"})
        block["password_providers"].append({"module": f"{_PROVIDERS}.BcrytProvider"})
        self.assertEqual(
            self.mistakes(self.homeserver(self.block(), block)),
            [
                "modules.2.config.tokens.key_file: not valid inside Synapse: Synapse has its own"
                " keys",
                "modules.2.config.listen: not valid inside Synapse: homeserver.yaml determines it",
                "modules.2.config.password_providers.1.module: cannot import it: there is no"
                " BcrytProvider in synapse_login_module.providers: did you mean"
                " synapse_login_module.providers.BcryptProvider?",
            ],
        )
        block = self.block(link_accounts=["ldap:@a:example.com"])
        self.assertEqual(
            self.mistakes(self.homeserver(block)),
            ["modules.1.config.link_accounts.0: no password provider is called ldap"],
        )
        self.assertEqual(
            self.mistakes(self.homeserver(None)),
            ["modules.1.config.password_providers: it is missing"],
        )

    def test_long_path(self) -> None:
        """The module is found by each path that Synapse finds it by."""
        config = self.homeserver(None)
        config["modules"][-1]["module"] = "synapse_login_module.synapse.module.SynapseLoginModule"
        self.assertEqual(
            self.mistakes(config), ["modules.1.config.password_providers: it is missing"]
        )

    def test_delegated(self) -> None:
        """``delegated: true`` alone is a whole block, for which no listener is missing."""
        enabled = {"matrix_authentication_service": {"enabled": True}, "listeners": [_CLIENTS]}
        self.assertEqual(
            self.check(self.homeserver({"delegated": True}, **enabled)), Checked([], [], [])
        )
        self.assertEqual(
            self.mistakes(self.homeserver({"delegated": True, "hashing": {}}, **enabled)),
            [
                "modules.1.config.hashing: not valid beside delegated: true, which is all that"
                " applies"
            ],
        )

    def test_delegated_alone(self) -> None:
        """``delegated: true`` in a Synapse that does not delegate is a warning."""
        for service in (None, {}, {"enabled": False}, 5):
            config = self.homeserver({"delegated": True}, matrix_authentication_service=service)
            (said,) = self.check(config).settings
            self.assertEqual(said.what, "modules.1.config.delegated")

    def test_no_module(self) -> None:
        """A file of Synapse without the module is reported."""
        nothing: tuple[Any, ...] = ([], None)
        for modules in nothing:
            (said,) = self.mistakes(self.homeserver(modules=modules))
            self.assertEqual(
                said, f"modules: this is Synapse's file, and {MODULE} is not among its modules"
            )

    def test_listeners(self) -> None:
        """A listener for the module that is missing, or without x_forwarded, gives a warning."""
        found = self.check(self.homeserver(self.block(), listeners=[_CLIENTS]))
        self.assertEqual([each.what for each in found.settings], ["listeners", "listeners.0"])

    def test_modes(self) -> None:
        """The modes of files that the block names are checked too."""
        users = Path(self.folder / "users.yaml")
        users.write_text(f"users: {{alice: {{password_hash: '{CHEAP_HASH}'}}}}")
        users.chmod(0o660)
        provider = {"module": f"{_PROVIDERS}.BcryptProvider", "config": {"path": str(users)}}
        (said,) = self.check(self.homeserver({"password_providers": [provider]})).modes
        self.assertEqual(said.what, "modules.1.config.password_providers.0.config.path")
