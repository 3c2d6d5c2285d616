"""The configuration of the homeserver."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import homeservers
from synapse_login_module.errors import ConfigError
from synapse_login_module.homeservers.config import SynapseConfig
from synapse_login_module.homeservers.synapse import SynapseHomeserver
from synapse_login_module.model import HomeserverPolicy
from tests.support import REPOSITORY
from tests.support.certificates import Authority
from tests.support.folders import temporary_folder

URL = "http://127.0.0.1:8008"
GOOD: Mapping[str, Any] = {"url": URL, "secret_file": "secret"}


class ConfigTests(SynchronousTestCase):
    """Configurations that are accepted, and those that are rejected."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.write("open-sesame\n")

    def write(self, secret: str | bytes) -> None:
        """Write the file with the secret."""
        content = secret if isinstance(secret, bytes) else secret.encode()
        (self.folder / "secret").write_bytes(content)

    def parse(self, **more: Any) -> SynapseConfig:
        """Parse a configuration."""
        return SynapseHomeserver.parse_config({**GOOD, **more}, self.folder)

    def problems(self, given: Mapping[str, Any]) -> list[str]:
        """Return the mistakes in a configuration, and assert that none shows the secret."""
        with self.assertRaises(ConfigError) as raised:
            SynapseHomeserver.parse_config(given, self.folder)
        lines = [str(each).replace(str(self.folder), "…") for each in raised.exception.all()]
        self.assertNotIn("sesame", "".join(lines))
        return lines

    def test_defaults(self) -> None:
        """The URL and the secret are enough."""
        config = self.parse()
        self.assertEqual((config.url, config.secret), (URL, "open-sesame"))
        self.assertEqual(config.keys.policy(), HomeserverPolicy())
        self.assertEqual((config.keys.timeout, config.keys.connections), (5000, 64))
        self.assertEqual(list(config.forget_tokens), [])
        self.assertNotIn("sesame", repr(config))

    def test_secret(self) -> None:
        """The secret is the first line, without spaces around it."""
        for content in ("a-b", "a-b\n", "a-b\r\n", " a-b \nand a comment\n"):
            self.write(content)
            self.assertEqual(self.parse().secret, "a-b")

    def test_bad_secrets(self) -> None:
        """A secret that is missing or cannot stand in a header is rejected, and not shown."""
        problem = "its first line is not a secret of ASCII text without spaces"
        for content in ("", "\n", " \nsesame", "open sesame", "sesamé", "ses\0ame", "ses\tame"):
            self.write(content)
            self.assertEqual(self.problems(GOOD), [f"secret_file: …/secret: {problem}"])
        self.write(b"sesam\xe9")
        self.assertEqual(self.problems(GOOD), ["secret_file: …/secret: not text in UTF-8"])
        self.assertEqual(
            self.problems({**GOOD, "secret_file": "no"}),
            ["secret_file: …/no: cannot read it: No such file or directory"],
        )

    def test_urls(self) -> None:
        """A URL may have a path, and a slash at its end makes no difference."""
        for given, url in (
            ("https://matrix.example.com", "https://matrix.example.com"),
            ("https://matrix.example.com/", "https://matrix.example.com"),
            ("http://[::1]:8008/a/b/", "http://[::1]:8008/a/b"),
        ):
            self.assertEqual(self.parse(url=given).url, url)

    def test_bad_urls(self) -> None:
        """What is no URL of http or https, or has more to it, is rejected."""
        for given, problem in (
            ("matrix.example.com", "not an http:// or https:// URL"),
            ("ftp://matrix.example.com", "not an http:// or https:// URL"),
            ("http://", "not an http:// or https:// URL"),
            ("http://a.example:0", "not an http:// or https:// URL"),
            ("http://a b.example", "not an http:// or https:// URL"),
            ("http://a.example\n", "not an http:// or https:// URL"),
            ("http://u:sesame@a.example", "a URL without user and password (see secret_file) or #"),
            ("http://a.example/#x", "a URL without user and password (see secret_file) or #"),
            ("http://a.example/?x=y", "a URL without ?"),
            ("http://a.example?", "a URL without ?"),
        ):
            self.assertEqual(self.problems({**GOOD, "url": given}), [f"url: {problem}"])
            self.assertEqual(
                self.problems({**GOOD, "forget_tokens": [URL, given]}),
                [f"forget_tokens.1: {problem}"],
            )

    def test_forget_tokens(self) -> None:
        """``true`` is the URL itself, and a list is the URLs of all processes."""
        for given, urls in (
            (False, []),
            (True, [URL]),
            ([f"{URL}/"], [URL]),
            (
                ["http://a.example", "https://b.example/x"],
                ["http://a.example", "https://b.example/x"],
            ),
        ):
            self.assertEqual(list(self.parse(forget_tokens=given).forget_tokens), urls)

    def test_bad_forget_tokens(self) -> None:
        """Anything else is rejected, and so is a URL that is listed twice."""
        problem = "write true, false, or a list of the URLs of all Synapse processes"
        for given in (None, "true", URL, 1, [], [True], [None], {URL: True}):
            self.assertEqual(
                self.problems({**GOOD, "forget_tokens": given}), [f"forget_tokens: {problem}"]
            )
        self.assertEqual(
            self.problems({**GOOD, "forget_tokens": [URL, f"{URL}/"]}),
            ["forget_tokens: the same URL is listed twice"],
        )

    def test_all_mistakes(self) -> None:
        """All mistakes are reported together, each with its path."""
        self.assertEqual(
            self.problems({"url": 1, "secret": "x", "timeout": "1:30", "admins": ["root"]}),
            [
                "admins.0: write a full user ID, such as @alice:example.com",
                "url: must be text, not a number: put it in quotes",
                "timeout: not a duration: write 30s, 5m, 12h, 30d, or milliseconds",
                "secret: unknown key: did you mean secret_file?",
            ],
        )
        self.assertEqual(
            self.problems({"url": "x", "secret_file": "no", "ca_file": "nowhere"}),
            [
                "url: not an http:// or https:// URL",
                "secret_file: …/no: cannot read it: No such file or directory",
                "ca_file: …/nowhere: cannot read it: No such file or directory",
            ],
        )

    def test_bounds(self) -> None:
        """The timeout and the connections are positive, and the timeout is at most 20 seconds."""
        self.assertEqual(self.parse(timeout="20s", connections=1).keys.timeout, 20_000)
        for key, value in (("timeout", 0), ("timeout", "21s"), ("connections", 0)):
            (problem,) = self.problems({**GOOD, key: value})
            self.assertTrue(problem.startswith(f"{key}: "), problem)

    def test_authorities(self) -> None:
        """A file of authorities is read, and one without certificates is rejected."""
        (self.folder / "ca.pem").write_bytes(Authority().certificate)
        self.parse(ca_file="ca.pem")
        self.assertEqual(
            self.problems({**GOOD, "ca_file": "secret"}),
            ["ca_file: …/secret: there is no certificate in it"],
        )

    def test_not_tried(self) -> None:
        """It names the processes that it is going to call, each once."""
        config = self.parse(forget_tokens=[URL, "http://127.0.0.1:8083"])
        self.assertEqual(
            list(config.not_tried),
            [f"the homeserver at {URL}", "the homeserver at http://127.0.0.1:8083"],
        )


class NamesTests(SynchronousTestCase):
    """The names that the configuration has for homeservers."""

    def test_name(self) -> None:
        """The class is found by its short name, and another name is an error."""
        self.assertIs(homeservers.SynapseHomeserver, SynapseHomeserver)
        with self.assertRaises(AttributeError):
            import_module("synapse_login_module.homeservers").Dendrite  # noqa: B018

    def test_imports(self) -> None:
        """The room is imported without an HTTP client, and the class without Synapse."""
        program = (
            "import sys; from synapse_login_module import homeservers;"
            "assert 'treq' not in sys.modules; homeservers.SynapseHomeserver;"
            "assert 'treq' in sys.modules; assert 'synapse' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False)
        self.assertEqual(done.returncode, 0)
