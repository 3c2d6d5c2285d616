"""Tests for the formats of hashes in files of accounts."""

from __future__ import annotations

from typing import Any

from twisted.python.threadable import isInIOThread

from synapse_login_module.errors import ConfigError, InvalidCredentials
from synapse_login_module.hashes import Hash, parse_hash
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.passwords import make_hash
from synapse_login_module.providers.files import users
from synapse_login_module.providers.files.bcrypt import BcryptProvider
from synapse_login_module.providers.files.htpasswd import HtpasswdProvider
from synapse_login_module.providers.files.passwd import PasswdProvider
from tests.hashes.vectors import PASSWORD, VECTORS, Vector
from tests.providers.case import ProviderCase, fake_hashing, user

LINES = [vector for vector in VECTORS if ":" not in vector.text]
"""Those that a file of ``name:hash`` lines can hold."""

APACHE = [
    vector
    for vector in LINES
    if vector.text.startswith("$") and vector.kind.startswith(("bcrypt ", "crypt "))
]
"""Those that Apache takes."""


class FormatTests(ProviderCase):
    """Each provider with each format."""

    def passwords(self, vectors: list[Vector]) -> str:
        """Write a file of lines."""
        content = "".join(f"{vector.name}:{vector.text}\n" for vector in vectors)
        return str(self.write("passwords", content))

    async def check(self, provider: Any, vectors: list[Vector]) -> None:
        """Assert that each password is right, and others are wrong."""
        for vector in vectors:
            asked = provider.authenticate(user(vector.name), PASSWORD)
            self.assertIsNotNone(await asked, vector.name)
            await self.fails(provider.authenticate(user(vector.name), "x"), InvalidCredentials)

    async def test_users_file(self) -> None:
        """A users file has every format."""
        users = {vector.name: {"password_hash": vector.text} for vector in VECTORS}
        await self.check(self.build(BcryptProvider, {"users": users}), list(VECTORS))

    async def test_passwd(self) -> None:
        """A passwd file has every format without a colon."""
        provider = self.build(PasswdProvider, {"path": self.passwords(LINES)})
        await self.check(provider, LINES)

    async def test_htpasswd(self) -> None:
        """An htpasswd file has the formats that Apache takes."""
        provider = self.build(HtpasswdProvider, {"path": self.passwords(APACHE)})
        await self.check(provider, APACHE)

    def test_not_apaches(self) -> None:
        """Other formats are refused there, by their names."""
        for vector in LINES:
            if vector not in APACHE:
                path = self.passwords([vector])
                with self.assertRaises(ConfigError) as raised:
                    HtpasswdProvider.parse_config({"path": path}, self.folder())
                problem = str(raised.exception)
                self.assertIn("line 1: ", problem)
                self.assertIn("which Apache does not take: use BcryptProvider", problem)

    def test_most_common(self) -> None:
        """The most common kind is reported, by the rule of the configuration."""
        for normalize, rule in ((None, True), (True, True), (False, False)):
            environment = self.environment()
            accounts = {
                str(number): {"password_hash": text}
                for number, text in enumerate(
                    (
                        "{SSHA}" + "a" * 32,
                        f"$2b$04${'.' * 53}",
                        f"$2y$04${'.' * 53}",
                        f"$y$j75${'a' * 22}${'b' * 43}",
                    )
                )
            }
            config = {"users": accounts, "normalize": normalize, "pepper": "salt"}
            self.build(BcryptProvider, config, environment)
            (kind,) = fake_hashing(environment).kinds
            self.assertEqual(kind.pepper, "salt")
            self.assertEqual(kind, parse_hash(f"$2b$04${'.' * 53}").kind.ruled(rule))

    async def test_counted_on_a_thread(self) -> None:
        """The reactor parses no hashes, of which there may be many, when the file has changed."""
        parsed: list[bool] = []

        def parse(text: str) -> Hash:
            parsed.append(isInIOThread())
            return parse_hash(text)

        line = f"$2b$04${'.' * 53}\n"
        provider = self.build(PasswdProvider, {"path": str(self.write("passwords", f"a:{line}"))})
        self.patch(users, "parse_hash", parse)
        self.write("passwords", f"a:{line}bob:{line}")
        self.assertEqual(await provider.count_accounts(), 2)
        self.assertEqual(set(parsed), {False})

    async def test_normalize(self) -> None:
        """``normalize`` is heeded in both files that have it."""
        text = make_hash("\u00e9", "", new_hashes(4), False)
        path = str(self.write("passwords", f"alice:{text}\n"))
        for cls, config in (
            (BcryptProvider, {"users": {"alice": {"password_hash": text}}}),
            (PasswdProvider, {"path": path}),
        ):
            for normalize in (None, True, False):
                provider = self.build(cls, {**config, "normalize": normalize})
                asked = provider.authenticate(user("alice"), "e\u0301")
                if normalize is False:
                    await self.fails(asked, InvalidCredentials)
                else:
                    self.assertIsNotNone(await asked)
