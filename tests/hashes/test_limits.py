"""Texts that are no hashes, or that would take too long: each is refused, and at once."""

from __future__ import annotations

import subprocess
import sys
from unittest import skipUnless

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.hashes import crypt, libcrypt, parse_hash
from synapse_login_module.hashes.argon2 import _low_level
from synapse_login_module.hashes.kinds import MOST_MEMORY, MOST_SECONDS
from synapse_login_module.hashes.table import FORMATS
from tests.hashes.vectors import VECTORS, Vector

ARGON2_END = "a" * 22 + "$" + "b" * 43
KEYCLOAK_SECRET = '{"value":"' + "A" * 44 + '","salt":"' + "A" * 24 + '"}'
BCRYPT = "." * 53

TOO_MUCH = (
    f"$2b$17${BCRYPT}",
    f"$2b$31${BCRYPT}",
    f"$wp$2y$20${BCRYPT}",
    f"$argon2id$v=19$m=262144,t=100,p=1${ARGON2_END}",
    f"$argon2id$v=19$m=4194304,t=1,p=1${ARGON2_END}",
    f"$argon2id$v=19$m=128,t=35000,p=16${ARGON2_END}",
    f"argon2$999999999$65536$8$50${'a' * 32}${'b' * 100}",
    f"$y$jST${ARGON2_END}",
    f"$y$jHj${ARGON2_END}",
    f"$gy$jHT${ARGON2_END}",
    f"$7$z6..../....salt${'b' * 43}",
    f"$7$zzzzzzzzzzzsalt${'b' * 43}",
    f"$6$rounds=999999999$salt${'a' * 86}",
    f"$6$rounds=7000000$salt${'a' * 86}",
    f"$5$rounds=99999999$salt${'a' * 43}",
    f"$6$rounds=1000001$salt${'a' * 86}",
    f"$P$S{'a' * 30}",
    f"$P$I{'a' * 30}",
    f"$S$L{'a' * 51}",
    f"U$S$S{'a' * 51}",
    f"scrypt$1073741824$salt$8$1${'a' * 86}==",
    f"scrypt$262144$salt$8$1${'a' * 86}==",
    f"scrypt$2$salt$999999999$1${'a' * 86}==",
    f"scrypt$2$salt$1$999999999${'a' * 86}==",
    f"scrypt$2$salt$1$2000000${'a' * 86}==",
    f"$scrypt$ln=62,r=8,p=1$aaaa${'a' * 43}",
    f"pbkdf2_sha256$999999999$s${'a' * 43}=",
    f"{{PBKDF2}}$1$a$99999999${'a' * 40}",
    '{"hashIterations":1e300,"algorithm":"pbkdf2-sha256"}' + KEYCLOAK_SECRET,
)
"""Hashes beyond the limits."""

JUNK = (
    "",
    "$",
    "{",
    "{}",
    '{"',
    '{"' + "[" * 1000,
    '{"a":' * 150,
    "$argon2id$v=16",
    f"$argon2id$v=16$m=1,t=1,p=1${ARGON2_END}",
    f"$argon2id$v=19$m=65536,t=1,p=17${ARGON2_END}",
    f"$argon2id$v=19$m=9999999999,t=9999999999,p=1${ARGON2_END}",
    f"$argon2d$v=19$m=65536,t=1,p=1${ARGON2_END}",
    f"$y$jzT${ARGON2_END}",
    f"$y$j./${ARGON2_END}",
    f"$7$C....../....salt${'b' * 43}",
    f"$7$C6...........salt${'b' * 43}",
    f"$6$rounds=999$salt${'a' * 86}",
    f"$6$rounds=1000${'a' * 17}${'a' * 86}",
    f"scrypt$3$salt$8$1${'a' * 86}==",
    f"$scrypt$ln=0,r=8,p=1$aaaa${'a' * 43}",
    f"$scrypt$ln=16,r=1,p=1$aaaa${'a' * 43}",
    f"pbkdf2_sha256$0$s${'a' * 43}=",
    "{SSHA}" + "=" * 30,
    "{SSHA.HEX}" + "g" * 50,
    "{SSHA}" + "a" * 27 + "=",
    "{PBKDF2}1$a$" + "a" * 27,
    '{"hashIterations":0,"algorithm":"argon2","additionalParameters":{"memory":["64"],'
    '"type":["id"],"parallelism":["1"]}}' + KEYCLOAK_SECRET,
    '{"hashIterations":-5,"algorithm":"argon2","additionalParameters":{"memory":["64"],'
    '"type":["id"],"parallelism":["0"]}}' + KEYCLOAK_SECRET,
    '{"hashIterations":NaN,"algorithm":"pbkdf2-sha256"}' + KEYCLOAK_SECRET,
    '{"hashIterations":1,"algorithm":["a"]}{"value":{},"salt":7}',
    "é",
    "\ud800",
    "\0",
    "$2b$04$" + "\0" * 53,
    "x" * 100_000,
)
"""Texts that are no hashes."""

REFUSED = (
    ("$apr1$abc$" + "a" * 22, "an MD5 entry"),
    ("$1$abc$" + "a" * 22, "an MD5 entry"),
    ("{CRYPT}$1$abc$" + "a" * 22, "an MD5 entry"),
    ("{MD5-CRYPT}$1$abc$" + "a" * 22, "an MD5 entry"),
    ("{SHA}" + "a" * 27 + "=", "a SHA entry without a salt"),
    ("{SHA512.HEX}" + "a" * 128, "a SHA entry without a salt"),
    ("{MD5}" + "a" * 22 + "==", "an MD5 sum"),
    ("d41d8cd98f00b204e9800998ecf8427e", "an MD5 sum"),
    ("rqXexS6ZhobKA", "a crypt() entry"),
    ("{CRYPT}rqXexS6ZhobKA", "a crypt() entry"),
    (f"$2x$10${BCRYPT}", "a faulty version"),
    ("secret", "an entry in plain text"),
)
"""Hashes of formats that are refused for what they are."""


def reason(text: str) -> str | None:
    """Return why a text is refused; ``None`` if it is not."""
    try:
        parse_hash(text)
    except ValueError as error:
        return str(error)
    return None


class RefusalTests(SynchronousTestCase):
    """What is refused."""

    def test_too_much(self) -> None:
        """A hash that would take too long or too much memory is refused, and the reason says so."""
        for text in TOO_MUCH:
            self.assertRegex(reason(text) or "", "takes too |more than [12]", text)

    def test_junk(self) -> None:
        """Any other text is refused."""
        for text in JUNK:
            self.assertIsNotNone(reason(text), ascii(text[:40]))

    def test_weak_formats(self) -> None:
        """Formats that protect nothing are named."""
        for text, what in REFUSED:
            self.assertIn(what, reason(text) or "", text)

    def test_tells_nothing(self) -> None:
        """The reason holds no part of the hash but its parameters."""
        for text in (*TOO_MUCH, *(text for text, _ in REFUSED), *JUNK):
            found = reason(text) or ""
            self.assertLess(len(found), 120, found)
            self.assertNotIn("aaaa", found)
            self.assertNotIn("secret", found)

    @given(
        st.sampled_from([each.prefix for each in FORMATS]),
        st.text(alphabet='$.,=/+-_0123456789abcdefzABCZ{}"[]:|mtpr', max_size=200),
    )
    def test_any_text(self, prefix: str, text: str) -> None:
        """Any text after a prefix is refused with a reason, or is within the limits."""
        try:
            stored = parse_hash(prefix + text)
        except ValueError:
            return
        self.assertLessEqual(stored.kind.seconds, MOST_SECONDS)
        self.assertLessEqual(stored.kind.memory, MOST_MEMORY)

    @given(st.sampled_from(VECTORS), st.integers(0, 200), st.text(max_size=3))
    def test_changed(self, vector: Vector, place: int, other: str) -> None:
        """So is a hash with one character changed, or cut short."""
        text = vector.text
        for changed in (text[:place] + other + text[place + 1 :], text[:place]):
            try:
                stored = parse_hash(changed)
            except ValueError:
                continue
            self.assertLessEqual(stored.kind.seconds, MOST_SECONDS)
            self.assertLessEqual(stored.kind.memory, MOST_MEMORY)
            self.assertTrue(stored.digest)


class MissingTests(SynchronousTestCase):
    """Libraries that are not there."""

    def test_argon2(self) -> None:
        """Without argon2-cffi, the reason says how to install it."""
        _low_level.cache_clear()
        self.addCleanup(_low_level.cache_clear)
        for name in [name for name in sys.modules if name.split(".")[0] == "argon2"]:
            self.addCleanup(sys.modules.__setitem__, name, sys.modules.pop(name))
        sys.modules["argon2"] = None  # type: ignore[assignment]
        self.addCleanup(sys.modules.pop, "argon2")
        for vector in VECTORS:
            if vector.kind.startswith("argon2"):
                self.assertIn(
                    "pip install 'synapse-login-module[argon2]'", reason(vector.text) or ""
                )

    def forget(self) -> None:
        """Forget which library and schemes were found."""
        libcrypt._function.cache_clear()
        libcrypt.supports.cache_clear()

    def test_libcrypt(self) -> None:
        """Without libcrypt, or one that has the scheme, the reason says so."""
        self.forget()
        self.addCleanup(self.forget)
        self.patch(libcrypt, "_LIBRARIES", ("libcrypt.so.of-nobody",))
        for vector in VECTORS:
            if vector.kind.startswith("crypt"):
                self.assertIn("this system's libcrypt does not make", reason(vector.text) or "")

    @skipUnless(sys.platform == "linux", "elsewhere there is no such library")
    def test_refused_salt(self) -> None:
        """A salt that the library refuses takes as long as another, and no password is right."""
        settings: list[bytes] = []
        real = libcrypt.crypt

        def crypt_and_tell(password: bytes, setting: bytes) -> bytes:
            made = real(password, setting)
            settings.append(setting if made else b"")
            return made

        self.patch(crypt, "crypt", crypt_and_tell)
        stored = parse_hash(f"$y$j75${'a' * 22}${'b' * 43}")
        self.assertFalse(stored.verify(b"x"))
        self.assertEqual(settings, [b"", stored.kind.salt])

    @skipUnless(sys.platform == "linux", "elsewhere there is no such library")
    def test_failure(self) -> None:
        """What the library refuses to hash is of no password."""
        self.assertEqual(libcrypt.crypt(b"x", b"$6$rounds=1$x$"), b"")
        self.assertEqual(libcrypt.crypt(b"x", b"*0"), b"")


_STARVED = """
import resource, sys
from synapse_login_module.hashes import parse_hash
stored = [parse_hash(text) for text in sys.argv[1:]]
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**25
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for each in stored:
    try:
        print(each.verify(b"x"))
    except MemoryError:
        print("no memory")
"""


class MemoryTests(SynchronousTestCase):
    """A process that may have little more memory than it has."""

    @skipUnless(sys.platform == "linux", "elsewhere there is no such limit")
    def test_starved(self) -> None:
        """A hash that there is no memory for is not checked, and so its password is not wrong."""
        texts = (
            f"$argon2id$v=19$m=131072,t=1,p=1${ARGON2_END}",
            f"scrypt$131072$salt$8$1${'a' * 86}==",
            f"$y$jCT${ARGON2_END}",
            f"$7$F6..../....salt${'b' * 43}",
        )
        done = subprocess.run(
            [sys.executable, "-c", _STARVED, *texts], capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout, "no memory\n" * len(texts))
