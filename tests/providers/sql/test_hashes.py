"""Tests for the hashes that the SQL provider reads and writes, on an SQLite file."""

from __future__ import annotations

import base64
import hashlib

from synapse_login_module.errors import ConfigError, InvalidCredentials
from synapse_login_module.hashes.argon2 import new_hashes as argon2id
from synapse_login_module.hashes.bcrypt import new_hashes
from synapse_login_module.hashes.common import MostCommon
from synapse_login_module.passwords import hash_password, make_hash
from synapse_login_module.providers.sql.provider import SQLProvider
from tests.hashes.vectors import PASSWORD, VECTORS
from tests.providers.case import ProviderCase, fake_hashing, user
from tests.providers.sql.test_sql import SQLiteMixin
from tests.support.waiting import until

BY_NAME = {vector.name: vector.text for vector in VECTORS}


def make_ssha(password: str) -> str:
    """Make a salted SHA hash."""
    digest = hashlib.sha1(password.encode() + b"salt").digest()
    return "{SSHA}" + base64.b64encode(digest + b"salt").decode()


class HashTests(SQLiteMixin, ProviderCase):
    """Hashes of other programs."""

    async def rehashed(self, provider: SQLProvider) -> None:
        """Wait until no password is being hashed anew."""
        await until(lambda: not self.under_way(provider))

    def under_way(self, provider: SQLProvider) -> set[str]:
        """The accounts whose passwords are being hashed anew."""
        return set() if provider._rehashing is None else provider._rehashing.under_way

    async def test_formats(self) -> None:
        """Hashes of every format are checked, by each format's own rule."""
        for number, vector in enumerate(VECTORS):
            self.add(f"user{number}", hash=vector.text)
        environment = self.environment()
        provider = self.provider(environment, {"update": None})
        for number, vector in enumerate(VECTORS):
            name = user(f"user{number}")
            self.assertIsNotNone(await provider.authenticate(name, PASSWORD), vector.name)
            self.assertEqual(str(fake_hashing(environment).kinds[-1]), vector.kind)
            await self.fails(provider.authenticate(name, "x"), InvalidCredentials)
            provider._kinds = MostCommon()
        self.assertEqual(fake_hashing(environment).decoys, [])

    async def test_normalize(self) -> None:
        """``normalize`` says whether NFKC is applied, whatever the format."""
        self.add("alice", hash=hash_password("\u00e9", "", 4))
        self.add("bob", hash=make_hash("\u00e9", "", new_hashes(4), False))
        for normalize, right in ((None, "alice bob"), (True, "alice bob"), (False, "")):
            provider = self.provider(normalize=normalize)
            for name in ("alice", "bob"):
                asked = provider.authenticate(user(name), "e\u0301")
                if name in right:
                    self.assertIsNotNone(await asked)
                else:
                    await self.fails(asked, InvalidCredentials)

    async def test_pepper(self) -> None:
        """Decoys have the pepper too."""
        self.add("alice", hash=hash_password("x", "salt", 4))
        environment = self.environment()
        provider = self.provider(environment, pepper="salt")
        self.assertIsNotNone(await provider.authenticate(user("alice"), "x"))
        self.assertEqual(fake_hashing(environment).kinds[-1].pepper, "salt")

    async def test_rehash_to_argon2id(self) -> None:
        """Weaker hashes are made anew with Argon2id, if that is configured, after a prefix."""
        new = argon2id(1024, 1, 1)
        for prefix in ("argon2", "{ARGON2ID}", "3|", ""):
            self.execute("DELETE FROM accounts")
            for number, vector in enumerate(("dovecot_ssha", "drupal", "php_bcrypt")):
                self.add(f"user{number}", hash=BY_NAME[vector])
            self.add("kept", hash=BY_NAME["dovecot_argon2id"].replace("{ARGON2ID}", prefix))
            environment = self.environment()
            fake_hashing(environment).new = new
            provider = self.provider(environment, new_hash_prefix=prefix)
            for name in ("user0", "user1", "user2"):
                await provider.authenticate(user(name), PASSWORD)
                await self.rehashed(provider)
                self.assertTrue(self.hash_of(name).startswith(f"{prefix}$argon2id$"))
                self.assertIsNotNone(await provider.authenticate(user(name), PASSWORD))
            before = self.hash_of("kept")
            await provider.authenticate(user("kept"), PASSWORD)
            self.assertEqual((self.under_way(provider), self.hash_of("kept")), (set(), before))

    async def test_never_down(self) -> None:
        """A memory-hard hash is not replaced by bcrypt, nor one by another that costs less."""
        environment = self.environment()
        provider = self.provider(environment)
        for name in ("php_argon2id", "mkpasswd_yescrypt", "django_scrypt", "dovecot_crypt"):
            self.add(name, hash=BY_NAME[name])
            await provider.authenticate(user(name), PASSWORD)
            self.assertEqual((self.under_way(provider), self.hash_of(name)), (set(), BY_NAME[name]))

    async def test_rule_of_new_hashes(self) -> None:
        """A new hash after a prefix is by the rule of the program that wants the prefix."""
        for prefix, normalize, same in (
            ("", None, True),
            ("1|", None, False),
            ("1|", True, True),
            ("", False, False),
        ):
            self.execute("DELETE FROM accounts")
            self.add("alice", hash=make_ssha("\u00e9" if normalize else "e\u0301"))
            provider = self.provider(new_hash_prefix=prefix, normalize=normalize)
            await provider.authenticate(user("alice"), "e\u0301")
            await until(lambda: not self.hash_of("alice").startswith("{"))
            again = provider.authenticate(user("alice"), "\u00e9")
            if same:
                self.assertIsNotNone(await again)
            else:
                await self.fails(again, InvalidCredentials)

    def test_bad_prefixes(self) -> None:
        """A prefix that makes another hash of it, or none, is refused."""
        for prefix in ("$wp", "bcrypt_sha256$", "{SSHA}", "md5:"):
            error = self.assertRaises(ConfigError, self.provider, new_hash_prefix=prefix)
            self.assertEqual(error.path, "new_hash_prefix")
        error = self.assertRaises(ConfigError, self.provider, new_hash_prefix="argon2")
        self.assertIn("bcrypt (hashing.format)", error.problem)
        error = self.assertRaises(
            ConfigError, self.provider, None, {"update": None}, new_hash_prefix="1|"
        )
        self.assertIn("no effect", error.problem)
