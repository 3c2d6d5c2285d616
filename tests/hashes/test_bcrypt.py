"""Tests for bcrypt, and for how passwords are prepared."""

from __future__ import annotations

import bcrypt
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.hashes import parse_hash, prepare
from synapse_login_module.passwords import check_password, hash_password
from tests.test_passwords import ROUNDS, bcrypt_of


def is_hash(text: str) -> bool:
    """Say whether a text is accepted as a hash."""
    try:
        parse_hash(text)
    except ValueError:
        return False
    return True


def kind_of(text: str) -> str:
    """Return the kind of a hash."""
    return str(parse_hash(text).kind)


def prepared(password: str, pepper: str) -> bytes:
    """Return the bytes that bcrypt gets of a password, by Synapse's rule."""
    return prepare(password, pepper, True)[:72]


class PrepareTests(SynchronousTestCase):
    """How passwords are prepared for bcrypt: Synapse's rule."""

    def test_many_marks(self) -> None:
        """Only the start of a password is normalized: thousands of marks would take seconds."""
        marks = "a" + "\u0345" * 600 + "\u0334" * 16_000
        self.assertEqual(prepared(marks, ""), prepared(marks[:1024], ""))
        self.assertEqual(prepared("a" * 2000, "pepper"), b"a" * 72)

    def test_short(self) -> None:
        """A short password becomes its UTF-8, followed by the pepper."""
        self.assertEqual(prepared("ilovebananas", ""), b"ilovebananas")
        self.assertEqual(prepared("ilovebananas", "pepper"), b"ilovebananaspepper")
        self.assertEqual(prepared("pässword", ""), b"p\xc3\xa4ssword")
        self.assertEqual(prepared("", ""), b"")

    def test_bounds(self) -> None:
        """Of 71, 72, 73 and many more bytes, the first 72 count."""
        for length in (71, 72, 73, 100, 65_536):
            self.assertEqual(prepared("a" * length, ""), b"a" * min(length, 72))

    def test_cut_inside_a_character(self) -> None:
        """The cut is after 72 bytes, even inside a character."""
        self.assertEqual(prepared("a" * 71 + "ä", ""), b"a" * 71 + b"\xc3")
        self.assertEqual(prepared("a" * 70 + "ä", ""), b"a" * 70 + b"\xc3\xa4")
        self.assertEqual(prepared("a" * 69 + "\U0001f34c", ""), b"a" * 69 + b"\xf0\x9f\x8d")

    def test_pepper_across_the_bound(self) -> None:
        """The pepper is cut with the password, and has no effect after a long one."""
        self.assertEqual(prepared("a" * 70, "pepper"), b"a" * 70 + b"pe")
        self.assertEqual(prepared("a" * 72, "pepper"), b"a" * 72)
        self.assertEqual(prepared("a" * 71, "é"), b"a" * 71 + b"\xc3")

    def test_normalised(self) -> None:
        """NFKC is applied to the password before it is cut, and not to the pepper."""
        self.assertEqual(prepared("a\u0308", ""), b"\xc3\xa4")
        self.assertEqual(prepared("\ufb01", ""), b"fi")
        self.assertEqual(prepared("x", "a\u0308"), b"xa\xcc\x88")
        self.assertEqual(prepared("x", "\ufb01"), b"x\xef\xac\x81")
        self.assertEqual(prepared("a\u0308" * 30, ""), b"\xc3\xa4" * 30)
        self.assertEqual(prepared("a", "\u0308"), b"a\xcc\x88")


class CheckTests(SynchronousTestCase):
    """Hashes, made and checked."""

    def test_own_hash(self) -> None:
        """A hash is of its password and pepper and of no other, and of the cost asked for."""
        made = hash_password("ilovebananas", "pepper", ROUNDS)
        self.assertTrue(check_password("ilovebananas", made, "pepper"))
        self.assertFalse(check_password("ilovebananas", made, ""))
        self.assertFalse(check_password("Ilovebananas", made, "pepper"))
        self.assertEqual(kind_of(made), f"bcrypt cost={ROUNDS}")

    def test_foreign_hash(self) -> None:
        """A hash that a homeserver made is good here, at 71, 72 and 73 bytes, and one made here is
        good there.
        """
        for password, pepper, raw in (
            ("a" * 71, "", b"a" * 71),
            ("a" * 72, "", b"a" * 72),
            ("a" * 73, "", b"a" * 72),
            ("a" * 70, "xyz", b"a" * 70 + b"xy"),
            ("a" * 71 + "ä", "", b"a" * 71 + b"\xc3"),
        ):
            self.assertTrue(check_password(password, bcrypt_of(raw), pepper))
            made = hash_password(password, pepper, ROUNDS).encode("ascii")
            self.assertTrue(bcrypt.checkpw(raw, made))

    def test_each_byte_to_the_bound(self) -> None:
        """The 72nd byte counts, and the 73rd does not."""
        made = hash_password("a" * 72, "", ROUNDS)
        self.assertFalse(check_password("a" * 71, made, ""))
        self.assertFalse(check_password("a" * 71 + "b", made, ""))
        self.assertTrue(check_password("a" * 72 + "b", made, ""))

    def test_nul(self) -> None:
        """A NUL is a byte like any other."""
        made = hash_password("a\0b", "", ROUNDS)
        self.assertTrue(check_password("a\0b", made, ""))
        for other in ("a", "a\0", "a\0c"):
            self.assertFalse(check_password(other, made, ""))

    @settings(max_examples=30)
    @given(st.text(), st.text(max_size=80))
    def test_any_text(self, password: str, pepper: str) -> None:
        """Any password can be hashed and is then right."""
        made = hash_password(password, pepper, ROUNDS)
        self.assertTrue(check_password(password, made, pepper))


class CostTests(SynchronousTestCase):
    """The cost of a hash."""

    def test_cost(self) -> None:
        """The cost is read from the hash, in every version of bcrypt that Synapse accepts."""
        tail = bcrypt_of(b"x")[7:]
        for hashed, cost in (
            (f"$2b$12${tail}", 12),
            (f"$2a$04${tail}", 4),
            (f"$2y$16${tail}", 16),
        ):
            self.assertEqual(kind_of(hashed), f"bcrypt cost={cost}")

    def test_no_hash(self) -> None:
        """A text that is not a bcrypt hash is refused."""
        tail = bcrypt_of(b"x")[7:]
        for bad in (
            "",
            "ilovebananas",
            "$",
            "$2b$12$",
            f"$2b$12${tail[:-1]}",
            f"$2b$12${tail}x",
            f"$2b$03${tail}",
            f"$2b$32${tail}",
            f"$2b$xx${tail}",
            f"$1$12${tail}",
            f"$2x$12${tail}",
            f"$argon2id$12${tail}",
            f"$2b$17${tail}",
            f"$2b$31${tail}",
            f"$2b$12${tail[:20]}${tail[21:]}",
        ):
            self.assertFalse(is_hash(bad), bad)

    def test_what_bcrypt_refuses(self) -> None:
        """A hash that bcrypt cannot check, or that no password can match, is refused."""
        tail = bcrypt_of(b"x")[7:]
        taken = []
        for bad in (
            f"x$2b$04${tail}",
            f" $2b$04${tail}",
            f"$2b$4${tail}",
            f"$2b$ 4${tail}",
            f"$2b$+4${tail}",
            f"$2b$1_2${tail}",
            f"$2b$04${'!' * 53}",
            f"$2b$04${'é' * 53}",
            f"$2b$04${tail[:-1]}\n",
        ):
            if is_hash(bad):
                taken.append(bad)
        self.assertEqual(taken, [])
