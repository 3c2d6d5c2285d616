"""Tests for the warnings about files that other users can read or write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.config import modes, yaml_loader
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder


class ModesTests(SynchronousTestCase):
    """The warnings."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def warnings(self, mode: int, config: dict[str, Any]) -> list[str]:
        """Return the warnings for a configuration file of this mode."""
        path = write_config(self.folder, config)
        path.chmod(mode)
        return [each.line for each in modes.warnings(yaml_loader.load(path), path)]

    def provider(self, **config: Any) -> dict[str, Any]:
        """Return a configuration with one provider."""
        return {**good_config(), "password_providers": [{"module": "a.B", "config": config}]}

    def file(self, name: str, mode: int) -> Path:
        """Write a file of this mode; return its path."""
        path = self.folder / name
        path.touch()
        path.chmod(mode)
        return path

    def test_nothing(self) -> None:
        """Private files and files without secrets give no warning."""
        self.file("users.yaml", 0o640)
        self.file("sessions.db", 0o640)
        self.file("password", 0o640)
        config = self.provider(path="users.yaml", bind_password_file="password", pepper="")
        self.assertEqual(self.warnings(0o644, config), [])
        self.assertEqual(self.warnings(0o640, self.provider(pepper="x")), [])

    def test_secrets(self) -> None:
        """A configuration that all users can read is reported with the key of a secret in it."""
        path = self.folder / "config.yaml"
        for config, secret in (
            (self.provider(pepper="geheim"), "password_providers.0.config.pepper"),
            (self.provider(bind_password="geheim"), "password_providers.0.config.bind_password"),
            (
                self.provider(postgresql="postgres://a:geheim@b/c"),
                "password_providers.0.config.postgresql",
            ),
            (
                self.provider(mysql={"password": "geheim"}),
                "password_providers.0.config.mysql.password",
            ),
            (
                {**good_config(), "token_store": {"config": {"dsn": "host=a password = geheim"}}},
                "token_store.config.dsn",
            ),
        ):
            said = f"everybody can read the file, and {secret} in it: chmod o-rwx {path}"
            self.assertEqual(self.warnings(0o644, config), [said])
        for dsn in ("host=a passfile=geheim", "postgres://a@b/c"):
            config = {**good_config(), "token_store": {"config": {"dsn": dsn}}}
            self.assertEqual(self.warnings(0o644, config), [])
        template = self.provider(request={"password": "{password}"})
        self.assertEqual(self.warnings(0o644, template), [])

    def test_password_file_of_a_database(self) -> None:
        """The file with the password of a MySQL user is reported if all users can read it."""
        password = self.file("password", 0o604)
        self.assertEqual(
            self.warnings(0o640, self.provider(mysql={"password_file": "password"})),
            [
                "password_providers.0.config.mysql.password_file: everybody can read it:"
                f" chmod o-rwx {password}"
            ],
        )

    def test_keys_of_others(self) -> None:
        """A provider of somebody else may have such a key for something else."""
        for mysql in ("mysql://localhost/shop", ["a"], 1, None):
            self.assertEqual(self.warnings(0o640, self.provider(mysql=mysql)), [])

    def test_files(self) -> None:
        """Files of secrets, accounts that a group may change, and the database are reported too."""
        password = self.file("password", 0o604)
        users = self.file("users.yaml", 0o660)
        database = self.file("sessions.db", 0o644)
        keys = ("authorization_file", "headers_file", "secrets_file")
        config = self.provider(path="users.yaml", **dict.fromkeys(keys, "password"))
        where = "password_providers.0.config"
        self.assertEqual(
            self.warnings(0o602, config),
            [
                f"everybody may write to the file: chmod o-w {self.folder / 'config.yaml'}",
                *(f"{where}.{key}: everybody can read it: chmod o-rwx {password}" for key in keys),
                f"{where}.path: {users}: its group may write to it, and so log in as any account:"
                f" chmod go-w {users}",
                f"token_store.config.path: {database}: everybody can read the sessions: chmod o-rwx"
                f" {database}",
            ],
        )

    def test_readable_accounts(self) -> None:
        """A file of accounts that all users can read is reported: the hashes of passwords are."""
        users = self.file("users.yaml", 0o644)
        where = f"password_providers.0.config.path: {users}"
        readable = f"{where}: everybody can read it, and its password hashes: chmod o-rwx {users}"
        config = self.provider(path="users.yaml")
        self.assertEqual(self.warnings(0o644, config), [readable])
        users.chmod(0o664)
        writable = f"{where}: its group may write to it, and so log in as any account"
        self.assertEqual(
            self.warnings(0o644, config), [f"{writable}: chmod go-w {users}", readable]
        )

    def test_secret_of_the_homeserver(self) -> None:
        """The file with the homeserver's secret is reported if all users can read it."""
        secret = self.file("secret", 0o640)
        config = {**good_config(), "homeserver": {"config": {"secret_file": "secret"}}}
        self.assertEqual(self.warnings(0o644, config), [])
        secret.chmod(0o644)
        self.assertEqual(
            self.warnings(0o644, config),
            [f"homeserver.config.secret_file: everybody can read it: chmod o-rwx {secret}"],
        )

    def test_left_empty(self) -> None:
        """An empty store or block gives no warning."""
        given = {
            "password_providers": [{"module": "a", "config": None}],
            "homeserver": {"module": "a", "config": None},
        }
        self.assertEqual(list(modes.warnings(given, self.folder / "no")), [])
