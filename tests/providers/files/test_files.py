"""Tests for password files: Apache's, made by the real htpasswd, and those like /etc/passwd."""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from dataclasses import replace
from typing import Any

import bcrypt
from twisted.logger import LogLevel
from twisted.trial.unittest import SkipTest
from zope.interface.verify import verifyClass

from synapse_login_module import testing
from synapse_login_module.errors import ConfigError, InvalidCredentials
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.model import Account, AccountStatus
from synapse_login_module.passwords import hash_password
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.providers.files.htpasswd import HtpasswdProvider
from synapse_login_module.providers.files.passwd import PasswdProvider
from tests.providers.case import (
    PASSWORD,
    WONDERLAND,
    ProviderCase,
    email,
    fake_hashing,
    lines,
    user,
)
from tests.support.accounts import ALICE

STRAY_SALT = WONDERLAND[:28] + "/" + WONDERLAND[29:]
"""Well-formed, but bcrypt does not take it: four bits of its salt are none of the 128."""

VOUCHED = Account(ALICE, status=AccountStatus.ACTIVE, subject="alice")

DECOMPOSED = unicodedata.normalize("NFD", "Ångström-ﬁ-①")


class FileCase(ProviderCase):
    """Writes files and says what is wrong with them."""

    def problem(self, cls: Any, content: str | bytes | None, **config: Any) -> str:
        """Why a file stops the start: one line, without a hash."""
        if content is not None:
            self.write("passwords", content)
        with self.assertRaises(ConfigError) as raised:
            cls.parse_config({"path": "passwords", **config}, self.folder())
        problem = str(raised.exception)
        self.assertNotIn("\n", problem)
        self.assertNotIn(WONDERLAND, problem)
        return problem.replace(f"{self.folder()}/", "")

    def htpasswd(self, content: str) -> HtpasswdProvider:
        """A provider on an Apache file with this content."""
        self.write("passwords", content)
        built: HtpasswdProvider = self.build(HtpasswdProvider, {"path": "passwords"})
        return built

    def passwd(self, content: str, **config: Any) -> PasswdProvider:
        """A provider on a file like /etc/passwd."""
        self.write("passwords", content)
        built: PasswdProvider = self.build(PasswdProvider, {"path": "passwords", **config})
        return built


class HtpasswdContractTests(testing.PasswordProviderContract, FileCase):
    """The contract, on an Apache file."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return self.htpasswd(f"alice:{WONDERLAND}\n")


class PasswdContractTests(testing.PasswordProviderContract, FileCase):
    """The contract, on a file like /etc/passwd."""

    ignores_case = True

    def make_provider(self) -> IPasswordProvider:
        return self.passwd(f"alice:{WONDERLAND}:Alice:alice@example.com\n")


class RealHtpasswdTests(FileCase):
    """Files of Apache's own program."""

    def setUp(self) -> None:
        if shutil.which("htpasswd") is None:
            raise SkipTest("htpasswd is not installed (apache2-utils)")
        self.path = self.folder() / "passwords"

    def run_htpasswd(self, *arguments: str, password: str = PASSWORD, name: str = "alice") -> None:
        """Run it, making the file where there is none."""
        made = [] if self.path.exists() else ["-c"]
        subprocess.run(
            ["htpasswd", "-i", *made, *arguments, str(self.path), name],
            input=password.encode(),
            check=True,
            capture_output=True,
        )

    def provider(self) -> HtpasswdProvider:
        """A provider on the file."""
        built: HtpasswdProvider = self.build(HtpasswdProvider, {"path": str(self.path)})
        return built

    async def test_bcrypt(self) -> None:
        """A bcrypt entry is good for its password alone, and so is one that was changed."""
        self.run_htpasswd("-B", "-C", "4")
        self.run_htpasswd("-B", "-C", "5", name="bob", password="builder")
        self.assertIn("$2y$", self.path.read_text())
        provider = self.provider()
        self.assertEqual(await provider.authenticate(user("alice"), PASSWORD), VOUCHED)
        self.assertIsNotNone(await provider.authenticate(user("bob"), "builder"))
        await self.fails(provider.authenticate(user("alice"), "builder"), InvalidCredentials)
        self.run_htpasswd("-B", "-C", "4", password="looking-glass")
        self.assertIsNotNone(await provider.authenticate(user("alice"), "looking-glass"))
        await self.fails(provider.authenticate(user("alice"), PASSWORD), InvalidCredentials)

    async def test_removed(self) -> None:
        """An entry that was deleted is unknown from then on, and its account gone."""
        self.run_htpasswd("-B", "-C", "4")
        self.run_htpasswd("-B", "-C", "4", name="bob")
        provider = self.provider()
        self.assertIs(await provider.account_status(ALICE), AccountStatus.ACTIVE)
        subprocess.run(["htpasswd", "-D", self.path, "alice"], check=True, capture_output=True)
        self.assertIsNone(await provider.account_status(ALICE))
        self.assertIsNone(await provider.authenticate(user("alice"), PASSWORD))
        self.assertIsNotNone(await provider.authenticate(user("bob"), PASSWORD))

    async def test_not_normalized(self) -> None:
        """Passwords of any script are hashed as they come, as Apache does it."""
        for password in (
            DECOMPOSED,
            unicodedata.normalize("NFC", DECOMPOSED),
            "пароль",
            "\U0001f916",
        ):
            self.run_htpasswd("-B", "-C", "4", password=password)
            provider = self.provider()
            self.assertIsNotNone(await provider.authenticate(user("alice"), password))
            other = unicodedata.normalize("NFKC", password)
            if other != password:
                await self.fails(provider.authenticate(user("alice"), other), InvalidCredentials)

    async def test_long(self) -> None:
        """Passwords about bcrypt's 72 bytes are good."""
        for length in (71, 72, 73, 200):
            self.run_htpasswd("-B", "-C", "4", password="x" * length)
            provider = self.provider()
            self.assertIsNotNone(await provider.authenticate(user("alice"), "x" * length))

    def test_other_kinds(self) -> None:
        """Entries of every other kind are named and refused, with the line."""
        for option, kind in (
            ("-m", "an MD5 entry"),
            ("-s", "a SHA entry without a salt"),
            ("-d", "a crypt() entry"),
            ("-p", "an entry in plain text"),
        ):
            self.path.unlink(missing_ok=True)
            self.run_htpasswd("-B", "-C", "4", name="bob")
            try:
                self.run_htpasswd(option)
            except subprocess.CalledProcessError:
                continue  # an htpasswd that is older than this kind
            problem = self.problem(HtpasswdProvider, None)
            self.assertTrue(problem.startswith(f"path: passwords: line 2: {kind}"), problem)
            self.assertIn(": set it anew with htpasswd -B", problem)
            self.assertNotIn(PASSWORD, problem)


class HtpasswdTests(FileCase):
    """Apache files, written here."""

    def test_interfaces(self) -> None:
        """The classes are plugins and implement a provider."""
        for cls in (HtpasswdProvider, PasswdProvider):
            self.assertTrue(IPluginClass.providedBy(cls))
            self.assertTrue(verifyClass(IPasswordProvider, cls))

    async def test_lines(self) -> None:
        """Comments, empty lines, Windows' line ends and what follows the hash are passed over."""
        provider = self.htpasswd(f"# people\r\n\r\n  \nalice:{WONDERLAND}:a comment\r\n#bob:x")
        self.assertEqual(await provider.authenticate(user("alice"), PASSWORD), VOUCHED)
        self.assertIsNone(await provider.authenticate(user("#bob"), "x"))

    async def test_spelling(self) -> None:
        """The user ID is made from the name in the file, which is what the account is known by."""
        provider = self.htpasswd(f"Alice:{WONDERLAND}")
        for typed in ("alice", "Alice", "ALICE"):
            account = await provider.authenticate(user(typed), PASSWORD)
            self.assertEqual(account, replace(VOUCHED, subject="Alice"))
        for subject, status in (
            ("Alice", AccountStatus.ACTIVE),
            ("@Alice:example.com", AccountStatus.ACTIVE),
            ("alice", None),
            (ALICE, None),
        ):
            self.assertIs(await provider.account_status(subject), status, subject)

    async def test_email(self) -> None:
        """The file knows no e-mail addresses."""
        self.assertIsNone(await self.htpasswd(f"alice:{WONDERLAND}").authenticate(email(), "x"))

    async def test_empty(self) -> None:
        """An empty file is a file without users."""
        self.assertIsNone(await self.htpasswd("").authenticate(user("alice"), PASSWORD))

    async def test_all_prefixes(self) -> None:
        """bcrypt's 2a, 2b and 2y are one and the same."""
        for prefix in ("2a", "2b", "2y"):
            provider = self.htpasswd(f"alice:{WONDERLAND.replace('2b', prefix, 1)}")
            self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))

    def test_mistakes(self) -> None:
        """A mistake is named by its line."""
        for content, problem in (
            ("alice", "line 1: there is no colon in it"),
            (f"\nalice:{WONDERLAND}\nalice:{WONDERLAND}", "line 3: alice stands in line 2 already"),
            (f":{WONDERLAND}", "line 1: not a local part of a user ID"),
            (f"al\tice:{WONDERLAND}", "line 1: not a local part of a user ID"),
            ("alice:", "line 1: an entry in plain text, or of no known kind"),
            (f"alice:{WONDERLAND[:-1]}", "line 1: a bcrypt hash that is cut short or damaged"),
            (f"alice:{STRAY_SALT}", "line 1: a bcrypt hash that is cut short or damaged"),
            (
                f"alice:{WONDERLAND}\nAlice:{WONDERLAND}",
                "line 2: Alice differs from alice in line 1 in case alone",
            ),
            (b"\xff\xfe:x", "line 1: not UTF-8"),
        ):
            found = self.problem(HtpasswdProvider, content)
            self.assertTrue(found.startswith(f"path: passwords: {problem}"), found)

    def test_no_file(self) -> None:
        """A file that cannot be read stops the start."""
        found = self.problem(HtpasswdProvider, None)
        self.assertEqual(found, "path: passwords: cannot read it: No such file or directory")

    def test_keys(self) -> None:
        """It takes a path and nothing else: Apache knows no pepper."""
        self.assertEqual(self.problem(HtpasswdProvider, "", pepper="x"), "pepper: unknown key")

    async def test_broken_later(self) -> None:
        """A new version with a mistake is logged without its secrets, and the last one kept."""
        provider = self.htpasswd(f"alice:{WONDERLAND}")
        events = self.catch_log()
        self.write("passwords", f"alice:{WONDERLAND}\nbob:swordfish\n")
        for _ in range(3):
            self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        (line,) = lines(events, LogLevel.error)
        self.assertIn("passwords is not used as it stands now, but as it last was: line 2", line)
        self.assertNotIn("swordfish", line)
        self.write("passwords", "# nobody\n")
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        self.write("passwords", f"bob:{WONDERLAND}\n")
        self.assertIsNone(await provider.authenticate(user("alice"), PASSWORD))
        self.assertIsNotNone(await provider.authenticate(user("bob"), PASSWORD))

    async def test_cost(self) -> None:
        """It says what its hashes cost, so that a decoy costs as much."""
        dear = bcrypt.hashpw(b"x", bcrypt.gensalt(5)).decode()
        self.write("passwords", f"alice:{dear}")
        environment = self.environment()
        self.build(HtpasswdProvider, {"path": "passwords"}, environment)
        self.assertEqual(fake_hashing(environment).kinds, [new_hashes(5).kind.ruled(False)])


class PasswdTests(FileCase):
    """Files like /etc/passwd."""

    async def test_fields(self) -> None:
        """Display name and e-mails are carried over; all but the hash may be missing."""
        for line, expected in (
            (f"alice:{WONDERLAND}", VOUCHED),
            (f"alice:{WONDERLAND}:", VOUCHED),
            (f"alice:{WONDERLAND}:Alice Liddell", replace(VOUCHED, display_name="Alice Liddell")),
            (
                f"alice:{WONDERLAND}:Alice:alice@example.com",
                replace(VOUCHED, display_name="Alice", emails=("alice@example.com",)),
            ),
            (
                f"alice:{WONDERLAND}: Alice : a@example.com, b@example.com :c@example.com",
                replace(
                    VOUCHED,
                    display_name="Alice",
                    emails=("a@example.com", "b@example.com", "c@example.com"),
                ),
            ),
            (
                f"alice:{WONDERLAND}::a@example.com,",
                replace(VOUCHED, emails=("a@example.com",)),
            ),
        ):
            account = await self.passwd(line).authenticate(user("alice"), PASSWORD)
            self.assertEqual(account, expected)

    async def test_email(self) -> None:
        """An account is found by any of its e-mail addresses."""
        provider = self.passwd(f"alice:{WONDERLAND}::Alice@example.com,a@example.org")
        for address in ("alice@example.com", "a@example.org"):
            self.assertIsNotNone(await provider.authenticate(email(address), PASSWORD))
            await self.fails(provider.authenticate(email(address), "x"), InvalidCredentials)
        self.assertIsNone(await provider.authenticate(email("bob@example.com"), PASSWORD))

    async def test_locked(self) -> None:
        """A hash with an exclamation mark before it, as of passwd -l, is a locked account's."""
        provider = self.passwd(f"alice:!{WONDERLAND}\nbob:{WONDERLAND}")
        self.assertIs(await provider.account_status(ALICE), AccountStatus.LOCKED)
        self.assertIs(await provider.account_status("@bob:example.com"), AccountStatus.ACTIVE)
        self.assertIsNotNone(await provider.authenticate(user("alice"), PASSWORD))
        await self.fails(provider.authenticate(user("alice"), "x"), InvalidCredentials)

    async def test_synapse_rule(self) -> None:
        """Hashes are Synapse's: NFKC, and the pepper."""
        hashed = hash_password(DECOMPOSED, "salty", 4)
        provider = self.passwd(f"alice:{hashed}", pepper="salty")
        for password in (DECOMPOSED, unicodedata.normalize("NFKC", DECOMPOSED)):
            self.assertIsNotNone(await provider.authenticate(user("alice"), password))

    def test_mistakes(self) -> None:
        """A mistake is named by its line."""
        for content, problem in (
            (
                "alice:x:1000:1000",
                "line 1: an entry in plain text, or of no known kind (hash-password makes a new",
            ),
            ("alice:*", "line 1: an entry in plain text, or of no known kind"),
            ("alice:disabled", "line 1: an entry in plain text, or of no known kind"),
            (f"alice:{STRAY_SALT}", "line 1: a bcrypt hash that is cut short or damaged (hash-"),
            (
                f"a.b:{WONDERLAND}\n\nA.B:{WONDERLAND}",
                "line 3: A.B differs from a.b in line 1 in case alone",
            ),
            (f"\nalice:{WONDERLAND}::a@b\nbob:{WONDERLAND}::A@b", "line 3: alice has the same one"),
        ):
            found = self.problem(PasswdProvider, content)
            self.assertTrue(found.startswith(f"path: passwords: {problem}"), found)
