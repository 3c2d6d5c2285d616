"""Tests for comparing kinds, for what is weak, and for new hashes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.config.settings import Hashing
from synapse_login_module.hashes import NewHashes, parse_hash
from synapse_login_module.hashes.argon2 import new_hashes as argon2id
from synapse_login_module.hashes.bcrypt import new_hashes as bcrypt
from synapse_login_module.hashes.common import MostCommon
from synapse_login_module.passwords import check_password, make_hash
from tests.hashes.vectors import PASSWORD, VECTORS

_BY_NAME = {vector.name: vector.text for vector in VECTORS}
_DIGEST = "b" * 43


class WeakerTests(SynchronousTestCase):
    """Which hashes are made anew."""

    def weaker(self, text: str, new: NewHashes) -> bool:
        """Say whether a hash is weaker than new ones."""
        return parse_hash(text).kind.is_weaker_than(new.kind)

    def test_bcrypt(self) -> None:
        """Of bcrypt's, those of a lower cost are weaker, however they are marked."""
        tail = "." * 53
        for prefix in ("", "{BLF-CRYPT}", "1|", "bcrypt$", "bcrypt_sha256$", "$wp"):
            self.assertTrue(self.weaker(f"{prefix}$2y$10${tail}", bcrypt(12)), prefix)
            for cost in (12, 14):
                self.assertFalse(self.weaker(f"{prefix}$2y${cost}${tail}", bcrypt(12)), prefix)

    def test_formats(self) -> None:
        """What graphics cards compute fast is weaker than bcrypt, and that than Argon2id."""
        for name in ("dovecot_ssha", "drupal", "django_pbkdf2_sha256", "htpasswd_sha512"):
            self.assertTrue(self.weaker(_BY_NAME[name], bcrypt(4)), name)
            self.assertTrue(self.weaker(_BY_NAME[name], argon2id(1024, 1, 1)), name)
        self.assertTrue(self.weaker(f"$2b$14${'.' * 53}", argon2id(19_456, 2, 1)))

    def test_never_down(self) -> None:
        """A memory-hard hash is not made anew with bcrypt."""
        for name in ("php_argon2id", "php_argon2i", "django_scrypt", "mkpasswd_yescrypt"):
            self.assertFalse(self.weaker(_BY_NAME[name], bcrypt(16)), name)

    def test_argon2(self) -> None:
        """An Argon2id hash is weaker if it takes less time, and no more memory."""
        new = argon2id(19_456, 2, 1)
        for cost, weaker in (
            ("m=19456,t=1,p=1", True),
            ("m=7168,t=5,p=1", True),
            ("m=19456,t=2,p=1", False),
            ("m=19456,t=3,p=1", False),
            ("m=65536,t=1,p=1", False),
            ("m=20000,t=1,p=1", False),
        ):
            text = f"$argon2id$v=19${cost}${'a' * 22}${_DIGEST}"
            self.assertIs(self.weaker(text, new), weaker, cost)


class WeakTests(SynchronousTestCase):
    """Parameters that are below what OWASP asks for."""

    def test_weak(self) -> None:
        """Each format has its bound."""
        tail = "." * 53
        for text, weak in (
            (f"$2b$09${tail}", True),
            (f"$2b$10${tail}", False),
            (f"$argon2id$v=19$m=7168,t=5,p=1${'a' * 22}${_DIGEST}", False),
            (f"$argon2id$v=19$m=7168,t=4,p=1${'a' * 22}${_DIGEST}", True),
            (f"pbkdf2_sha256$600000$salt${'a' * 43}=", False),
            (f"pbkdf2_sha256$599999$salt${'a' * 43}=", True),
            (f"$scrypt$ln=17,r=8,p=1$aaaa${_DIGEST}", False),
            (f"$scrypt$ln=14,r=8,p=1$aaaa${_DIGEST}", True),
            (f"$y$j9T${'a' * 22}${_DIGEST}", False),
            (f"$y$j75${'a' * 22}${_DIGEST}", True),
            (f"$6$salt${'a' * 86}", True),
            (f"$6$rounds=200000$salt${'a' * 86}", False),
            (f"$P$B{'a' * 30}", True),
            (_BY_NAME["dovecot_ssha"], True),
        ):
            self.assertIs(parse_hash(text).kind.is_weak, weak, text)


class NewHashesTests(SynchronousTestCase):
    """New hashes."""

    def test_formats(self) -> None:
        """What is made is of the configured kind, and right for its password alone."""
        argon2 = {"memory": 1024, "iterations": 2, "parallelism": 1}
        for given, kind in (
            ({"rounds": 4}, "bcrypt cost=4"),
            ({"format": "argon2id", "argon2": argon2}, "argon2id m=1024 t=2 p=1"),
        ):
            new = Hashing.model_validate(given).new_hashes()
            for normalize in (None, True, False):
                text = make_hash(PASSWORD, "pepper", new, normalize)
                self.assertEqual(str(parse_hash(text).kind), kind)
                self.assertTrue(check_password(PASSWORD, text, "pepper", normalize))
                self.assertFalse(check_password(PASSWORD, text, "", normalize))
                self.assertNotEqual(text, make_hash(PASSWORD, "pepper", new, normalize))

    def test_nfkc(self) -> None:
        """NFKC is applied by the rule of the hash, unless the configuration says otherwise."""
        composed, decomposed = "\u00e9", "e\u0301"
        for new, rule in ((bcrypt(4), True), (argon2id(1024, 1, 1), False)):
            for normalize in (None, True, False):
                text = make_hash(decomposed, "", new, normalize)
                self.assertTrue(check_password(decomposed, text, "", normalize))
                same = rule if normalize is None else normalize
                self.assertIs(check_password(composed, text, "", normalize), same)


class MostCommonTests(SynchronousTestCase):
    """The most common kind of hashes that are seen one at a time."""

    def test_odd_one(self) -> None:
        """A single hash of another kind changes nothing, however often it is seen."""
        usual = MostCommon[int]()
        for number in range(3):
            self.assertEqual(usual.seen(f"user{number}", 12), 12)
        for odd in (14, 4):
            for _ in range(20):
                self.assertEqual(usual.seen("odd", odd), 12)

    def test_made_anew(self) -> None:
        """When most hashes have been renewed, the new kind is the most common."""
        usual = MostCommon[str]()
        for kind in ("bcrypt", "argon2id"):
            said = [usual.seen(f"user{number}", kind) for number in range(5)]
        self.assertEqual(said[-1], "argon2id")

    def test_bound(self) -> None:
        """The number of remembered accounts is bounded; those seen last are kept."""
        usual = MostCommon[int](accounts=3)
        for number in range(10):
            usual.seen(f"user{number}", 12)
        self.assertEqual([usual.seen(f"other{number}", 10) for number in range(3)], [12, 10, 10])
