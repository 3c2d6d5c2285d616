"""The configuration of the LDAP provider, and its documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.compose import load_module
from synapse_login_module.errors import ConfigError
from synapse_login_module.providers.ldap import LDAPProvider
from synapse_login_module.providers.ldap.config import LDAPConfig
from tests.support import REPOSITORY
from tests.support.certificates import Authority
from tests.support.commands import invoke
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder

DOCUMENTATION = REPOSITORY / "docs" / "providers" / "ldap.rst"
MODULE = "synapse_login_module.providers.ldap.LDAPProvider"

GOOD: Mapping[str, Any] = {"servers": ["ldaps://ldap.example.com"], "base": "dc=example,dc=com"}
NAMED = {"servers": GOOD["servers"], "bind_dn_template": "uid={localpart},dc=example,dc=com"}


class ConfigCase(SynchronousTestCase):
    """A case with helpers for configurations."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        Authority().write(self.folder / "ldap-ca.pem")
        (self.folder / "ldap-password").write_text("open sesame\n")

    def parse(self, given: Mapping[str, Any] = GOOD, **more: Any) -> LDAPConfig:
        """Parse a configuration."""
        return LDAPProvider.parse_config({**given, **more}, self.folder)

    def problem(self, given: Mapping[str, Any] = GOOD, **more: Any) -> ConfigError:
        """Return the error of a configuration, and assert that it is one line without a secret."""
        with self.assertRaises(ConfigError) as raised:
            self.parse(given, **more)
        error: ConfigError = raised.exception
        self.assertNotIn("\n", str(error))
        self.assertNotIn("sesame", str(error))
        return error


class ConfigTests(ConfigCase):
    """Configurations that are accepted, and those that are rejected."""

    def test_defaults(self) -> None:
        """By default certificates are verified, StartTLS is used, and there are timeouts."""
        settings = self.parse(servers=["ldap://ldap.example.com"]).settings
        (server,) = settings.servers
        self.assertEqual(
            (server.host, server.port, server.start_tls), ("ldap.example.com", 389, True)
        )
        self.assertIsNotNone(server.tls)
        self.assertEqual((settings.connect_timeout, settings.read_timeout), (3, 5))

    def test_servers(self) -> None:
        """Hosts and ports are read from the URLs."""
        for url, host, port, start_tls in (
            ("ldap://a.example.com", "a.example.com", 389, True),
            ("ldap://a.example.com:1389/", "a.example.com", 1389, True),
            ("ldaps://a.example.com", "a.example.com", 636, False),
            ("LDAPS://A.example.com:10636", "a.example.com", 10636, False),
            ("ldaps://[::1]:10636", "::1", 10636, False),
            ("ldaps://192.0.2.1", "192.0.2.1", 636, False),
        ):
            (server,) = self.parse(servers=[url]).settings.servers
            self.assertEqual((server.host, server.port, server.start_tls), (host, port, start_tls))

    def test_bad_servers(self) -> None:
        """A bad server is named by its place in the list."""
        for url in (
            "",
            "ldap.example.com",
            "http://ldap.example.com",
            "ldap://",
            "ldap:///dc=example",
            "ldap://ldap.example.com/dc=example",
            "ldap://ldap.example.com?uid",
            "ldap://user:sesame@ldap.example.com",
            "ldap://ldap.example.com:0x",
            "ldap://ldap.example.com:99999",
            "ldap://[::1",
            "ldap://a..b",
            "ldap://a b",
            "ldap://" + "a" * 70,
        ):
            error = self.problem(servers=["ldaps://good.example.com", url])
            self.assertEqual(error.path, "servers.1", url)
        self.assertEqual(self.problem(servers=[]).path, "servers")

    def test_plaintext(self) -> None:
        """Passwords go unencrypted to this host alone, unless the configuration allows others."""
        for host in ("localhost", "127.0.0.1", "127.1.2.3", "[::1]"):
            (server,) = self.parse(servers=[f"ldap://{host}"], start_tls=False).settings.servers
            self.assertIsNone(server.tls)
        for host in ("ldap.example.com", "localhost.example.com", "10.0.0.1", "0.0.0.0", "[::]"):
            config = {**GOOD, "servers": [f"ldap://{host}"], "start_tls": False}
            error = self.problem(config)
            self.assertEqual(error.path, "servers.0")
            self.assertIn("allow_plaintext", error.problem)
            self.parse(config, allow_plaintext=True)

    def test_mistakes(self) -> None:
        """Every mistake is named by its path."""
        for given, more, path in (
            ({}, {}, "servers"),
            ({"servers": GOOD["servers"]}, {}, ""),
            (GOOD, {"serverz": 1}, "serverz"),
            (GOOD, {"servers": "ldap://localhost"}, "servers"),
            (GOOD, {"start_tls": "yes"}, "start_tls"),
            (GOOD, {"base": ""}, "base"),
            (GOOD, {"filter": "(uid=x)"}, "filter"),
            (GOOD, {"filter": "(uid={localpart}"}, "filter"),
            (GOOD, {"filter": "uid={localpart}"}, "filter"),
            (GOOD, {"filter": "({localpart}=x)"}, "filter"),
            (GOOD, {"filter": ""}, "filter"),
            (GOOD, {"group_filter": "memberOf"}, "group_filter"),
            (GOOD, {"group_filter": "(" * 5000}, "group_filter"),
            (GOOD, {"disabled_filter": "ppolicy"}, "disabled_filter"),
            (GOOD, {"disabled_filter": "(x"}, "disabled_filter"),
            (GOOD, {"locked_filter": "active_directory"}, "locked_filter"),
            (GOOD, {"attributes": {"uid": None}}, "attributes.uid"),
            (GOOD, {"attributes": {"uid": "a)(b"}}, "attributes.uid"),
            (GOOD, {"attributes": {"mail": ""}}, "attributes.mail"),
            (GOOD, {"attributes": {"fon": "x"}}, "attributes.fon"),
            (GOOD, {"timeout": "5s", "read_timeout": "5s"}, "timeout"),
            (GOOD, {"timeout": "1s", "read_timeout": 1}, "timeout"),
            (GOOD, {"read_timeout": 0}, "read_timeout"),
            (GOOD, {"connect_timeout": "soon"}, "connect_timeout"),
            (GOOD, {"connections": 0}, "connections"),
            (GOOD, {"queue": -1}, "queue"),
            (NAMED, {"bind_dn_template": "uid=x"}, "bind_dn_template"),
            (NAMED, {"bind_dn_template": "{localpart}@ad.example.com"}, "base"),
            (NAMED, {"filter": "(uid={localpart})"}, "filter"),
            (GOOD, {"bind_dn": "cn=x"}, "bind_dn"),
            (GOOD, {"bind_dn": "cn=x", "bind_password": ""}, "bind_password"),
            (GOOD, {"bind_password": "sesame"}, "bind_password"),
            (GOOD, {"bind_password_file": "ldap-password"}, "bind_password_file"),
            (
                GOOD,
                {"bind_dn": "x", "bind_password": "sesame", "bind_password_file": "x"},
                "bind_dn",
            ),
        ):
            self.assertEqual(self.problem(given, **more).path, path, (given, more))

    def test_no_filter_in_the_template(self) -> None:
        """A template that is a distinguished name needs no base, and takes no filter."""
        self.assertIsNone(self.parse(NAMED).user_filter)
        self.assertIsNone(self.parse(NAMED, base="dc=example,dc=com").user_filter)

    def test_filters(self) -> None:
        """Filters of all kinds are taken."""
        for text in (
            "(uid={localpart})",
            "(&(objectClass=person)(|(uid={localpart})(mail={localpart}@example.com)))",
            "(&(uid={localpart})(!(title=ex*)))",
            "(&(uid={localpart})(memberOf:1.2.840.113556.1.4.1941:=cn=matrix,dc=x))",
        ):
            self.assertIsNotNone(self.parse(filter=text).user_filter)

    def test_password_file(self) -> None:
        """The password is the file's text without the line end."""
        config = {**GOOD, "bind_dn": "cn=x", "bind_password_file": "ldap-password"}
        self.assertEqual(self.parse(config).settings.bind_password, "open sesame")
        for content, problem in ((b"", "nothing"), (b"\n", "nothing"), (b"\xff", "UTF-8")):
            (self.folder / "ldap-password").write_bytes(content)
            error = self.problem(config)
            self.assertEqual(error.path, "bind_password_file")
            self.assertIn(problem, error.problem)

    def test_bad_files(self) -> None:
        """A file that cannot be read is named."""
        for name in ("nowhere", ".", "ldap-ca.pem/x", "a" * 300):
            mores: tuple[dict[str, Any], ...] = (
                {"ca_file": name},
                {"bind_dn": "x", "bind_password_file": name},
            )
            for more in mores:
                error = self.problem(**more)
                self.assertIn(error.path, more)
                self.assertIn("cannot read", error.problem)

    def test_authorities(self) -> None:
        """A file of certificates has at least one, and none that is broken."""
        self.parse(ca_file="ldap-ca.pem")
        text = (self.folder / "ldap-ca.pem").read_text()
        broken = text.replace("MII", "AAA", 1)
        for content, problem in (("", "no certificate"), (text + broken, "broken")):
            (self.folder / "ca.pem").write_text(content)
            error = self.problem(ca_file="ca.pem")
            self.assertEqual(error.path, "ca_file")
            self.assertIn(problem, error.problem)

    def test_secrets(self) -> None:
        """A configuration is printed without passwords."""
        given = {**GOOD, "bind_dn": "cn=x"}
        for key, value in (("bind_password", "sesame"), ("bind_password_file", "ldap-password")):
            self.assertNotIn("sesame", repr(self.parse({**given, key: value})))


class DocumentationTests(ConfigCase):
    """The configurations in the documentation."""

    def blocks(self) -> list[Any]:
        """The configurations in it."""
        text = DOCUMENTATION.read_text(encoding="utf-8")
        found = re.findall(r"\.\. code-block:: yaml\n\n((?:    .*\n|\n)+)", text)
        return [yaml.safe_load(block) for block in found]

    def check(self, config: Mapping[str, Any]) -> str:
        """What check-config says."""
        path = write_config(self.folder, {**good_config(), **config})
        done = invoke("check-config", str(path))
        return done.stdout + done.stderr

    def test_blocks(self) -> None:
        """``check-config`` accepts every configuration in it, or the module does."""
        blocks = self.blocks()
        self.assertEqual(len(blocks), 11)
        for block in blocks:
            if "modules" not in block:
                self.assertIn("good", self.check(block))
                continue
            _, ((_, loaded),) = load_module(block["modules"][0]["config"], self.folder)
            self.assertEqual(list(loaded.only_inside_synapse), ["admin_group"])

    def test_mistake(self) -> None:
        """``check-config`` names a mistake by its whole path."""
        mistaken = {"module": MODULE, "config": {**GOOD, "filter": "(uid=x)"}}
        said = self.check({"password_providers": [mistaken]})
        self.assertIn("password_providers.0.config.filter: ", said)

    def test_keys(self) -> None:
        """It has each key, and no other."""
        text = DOCUMENTATION.read_text(encoding="utf-8")
        section = text[text.index("\nKeys\n") : text.index("\nNames\n")]
        terms = re.findall(r"^(``.+``)$", section, re.MULTILINE)
        documented = {key for term in terms for key in re.findall(r"``(\w+)``", term)}
        keys = type(self.parse().keys).model_fields
        self.assertEqual(documented, set(keys))
        for key in ("connect_timeout", "read_timeout", "timeout", "retry_after"):
            default = keys[key].default // 1000
            self.assertRegex(section, rf"``{key}``\n(    .*\n)*.*Default ``{default}s``")
