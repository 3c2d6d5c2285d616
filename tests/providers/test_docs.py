"""Tests that what stands in docs/providers is so."""

from __future__ import annotations

import re
import shutil
import sqlite3
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from synapse_login_module import compose
from synapse_login_module.config import settings
from synapse_login_module.errors import ConfigError
from synapse_login_module.model import Level
from synapse_login_module.standalone.plan import LoadedConfig, load_config
from synapse_login_module.standalone.server import build_backends
from tests.providers.case import WONDERLAND, reactor
from tests.support import REPOSITORY
from tests.support.certificates import Authority
from tests.support.folders import temporary_folder

DOCS = REPOSITORY / "docs" / "providers"

PAGES = [
    DOCS / f"{name}.rst"
    for name in (
        "applications",
        "cred",
        "files",
        "http",
        "pam",
        "resilience",
        "saslauthd",
        "second-factors",
        "sql",
        "writing-a-provider",
    )
]
"""The pages that are tested here."""

_BLOCK = re.compile(
    r"^\.\. code-block:: (\w+)\n(?:   :class: ([\w-]+)\n)?\n((?:   .*\n|\n)+)", re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    language: str
    kind: str | None
    text: str


def blocks() -> Iterator[Block]:
    """The code blocks of all pages."""
    for path in PAGES:
        for language, kind, text in _BLOCK.findall(path.read_text("utf-8")):
            yield Block(path.name, language, kind or None, textwrap.dedent(text))


def example(kind: str) -> str:
    """The Python example of this kind."""
    (found,) = (each for each in blocks() if each.language == "python" and each.kind == kind)
    return found.text


def load_example() -> dict[str, Any]:
    """Run the example as the page says: a module, and its test."""
    folder = tempfile.mkdtemp(prefix="docs-example-")
    sys.path.insert(0, folder)
    try:
        Path(folder, "my_provider.py").write_text(example("provider"), "utf-8")
        namespace: dict[str, Any] = {"__name__": "my_provider_tests"}
        exec(compile(example("test"), "test_my_provider.py", "exec"), namespace)
        return namespace
    finally:
        sys.path.remove(folder)
        shutil.rmtree(folder)


MyProviderTests: Any = load_example()["MyProviderTests"]
"""The contract, as the page on writing a provider runs it."""


class DiagnosisTests(SynchronousTestCase):
    """The example of ``diagnose``."""

    def test_levels(self) -> None:
        """It counts the accounts, and warns when there are none."""
        namespace: dict[str, Any] = {}
        exec(compile(example("diagnosis"), "diagnosis.py", "exec"), namespace)
        for passwords, level in (({"@alice:example.com": "x"}, Level.OK), ({}, Level.WARNING)):
            provider = SimpleNamespace(_passwords=passwords)
            (one,) = self.successResultOf(namespace["diagnose"](provider))
            self.assertIs(one.level, level)


class ConfigTests(SynchronousTestCase):
    """The configuration blocks."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        for name in ("matrix.htpasswd", "passwd"):
            (self.folder / name).write_text(f"alice:{WONDERLAND}\n")
        (self.folder / "passwords").write_text("alice:wonderland\n")
        (self.folder / "mysql-password").write_text("a long random password\n")
        (self.folder / "service.secret").write_text("Bearer 3f9c\n")
        (self.folder / "keycloak.secrets").write_text("client: 3f9c\n")
        (self.folder / "service.secrets").write_text("client: 3f9c\n")
        (self.folder / "xenforo.headers").write_text("XF-Api-Key: 3f9c\n")
        (self.folder / "nextcloud.secret").write_text("Basic YWRtaW46M2Y5Yw==\n")
        authority = Authority()
        own = authority.sign("127.0.0.1")
        (self.folder / "accounts-ca.pem").write_bytes(authority.certificate)
        (self.folder / "login-service.pem").write_bytes(own.certificate)
        (self.folder / "login-service.key").write_bytes(own.key)
        connection = sqlite3.connect(self.folder / "accounts.db")
        connection.execute("CREATE TABLE accounts (name TEXT, password_hash TEXT)")
        connection.close()

    def here(self, text: str) -> Any:
        """A block whose files are in the test's folder."""
        return yaml.safe_load(re.sub(r"/etc/\w+/", f"{self.folder}/", text))

    def check(self, given: Any) -> LoadedConfig:
        """Check a standalone configuration, as check-config does."""
        path = self.folder / "login.yaml"
        path.write_text(yaml.safe_dump({"server_name": "example.com", **given}))
        return load_config(path, reactor)

    def test_standalone(self) -> None:
        """check-config takes each block, and its providers can be built."""
        checked = 0
        for block in blocks():
            if block.language != "yaml" or block.kind is not None:
                continue
            if "postgresql:" in block.text and find_spec("psycopg") is None:
                raise SkipTest("psycopg is not installed")
            if "mysql:" in block.text and find_spec("pymysql") is None:
                raise SkipTest("PyMySQL is not installed")
            plan = self.check(self.here(block.text))
            build_backends(plan, reactor)
            checked += 1
        self.assertEqual(checked, 29)

    def test_module(self) -> None:
        """The module inside Synapse takes its block; what is configured is what was before."""
        (before,) = (each for each in blocks() if each.kind == "not-ours")
        (after,) = (each for each in blocks() if each.kind == "module")
        (module,) = yaml.safe_load(after.text)["modules"]
        parsed = settings.parse_module(module["config"])
        compose.load_providers(parsed, self.folder)
        (theirs,) = yaml.safe_load(before.text)["modules"]
        self.assertEqual(parsed.password_providers[0].config, theirs["config"])

    def test_every_key(self) -> None:
        """Every key that a provider takes is in its page's list."""
        for page, name, keys in (
            ("http.rst", "http.keys", "Keys"),
            ("sql.rst", "sql.config", "_Keys"),
            ("sql.rst", "sql.mysql_server", "MySQLKeys"),
            ("cred.rst", "cred", "_Keys"),
            ("pam.rst", "pam.config", "_Keys"),
            ("saslauthd.rst", "saslauthd.provider", "_Keys"),
            ("files.rst", "files.htpasswd", "_Keys"),
            ("files.rst", "files.passwd", "_Keys"),
        ):
            module: Any = import_module(f"synapse_login_module.providers.{name}")
            text = (DOCS / page).read_text("utf-8")
            listed = {
                key
                for line in re.findall(r"^(``\w+``(?:, ``\w+``)*)$", text, re.MULTILINE)
                for key in re.findall(r"\w+", line)
            }
            self.assertLessEqual(set(getattr(module, keys).model_fields), listed, page)
        text = (DOCS / "resilience.rst").read_text("utf-8")
        for key in set(settings.ProviderPlugin.model_fields) - {"module", "config"}:
            self.assertIn(f"\n``{key}``\n", text)

    def test_defaults(self) -> None:
        """The page on outages states the defaults, but for those it says it does not."""
        (block,) = (each for each in blocks() if each.page == "resilience.rst")
        stated = self.check(self.here(block.text)).config.password_providers[0]
        plain = settings.ProviderPlugin(module=stated.module)
        self.assertEqual(stated.deadline, plain.deadline)
        self.assertEqual(stated.circuit_breaker, settings.CircuitBreakerConfig())
        self.assertEqual((plain.circuit_breaker, plain.cache), (None, None))
        self.assertEqual((plain.on_unavailable, plain.name), ("fail", None))
        self.assertEqual(stated.on_unavailable, "next")

    def test_htpasswd_problem(self) -> None:
        """The mistake that the page shows is said so."""
        (self.folder / "matrix.htpasswd").write_text(
            f"bob:{WONDERLAND}\nalice:$apr1$saltsalt$0123456789abcdefghijkl\n"
        )
        text = (DOCS / "files.rst").read_text("utf-8")
        (shown,) = re.findall(r"::\n\n((?:    password_providers.*\n)(?:    .*\n)+)", text)
        (block, *_) = (each for each in blocks() if each.page == "files.rst")
        with self.assertRaises(ConfigError) as raised:
            self.check(self.here(block.text))
        said = str(raised.exception).replace(f"{self.folder}/", "/etc/apache2/")
        self.assertEqual(" ".join(shown.split()), said)

    def test_bare_lines(self) -> None:
        """No page has a line longer than the others, and each has a heading."""
        for path in PAGES:
            lines = path.read_text("utf-8").splitlines()
            self.assertEqual(lines[1], "=" * len(lines[0]), path)
            self.assertLessEqual(max(map(len, lines)), 115, path)
