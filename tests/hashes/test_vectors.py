"""Hashes that other programs made are right for their password, and for no other."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.hashes import Kind, parse_hash
from synapse_login_module.hashes.table import FORMATS
from tests.hashes.vectors import PASSWORD, VECTORS

QUICK = 0.02
"""Seconds that a check takes at most, if there are many of it here."""


class VectorTests(SynchronousTestCase):
    """Hashes of other programs."""

    def test_right(self) -> None:
        """Each is right for the password, and of the kind that its program was told to make."""
        for vector in VECTORS:
            stored = parse_hash(vector.text)
            self.assertEqual(str(stored.kind), vector.kind, vector.name)
            self.assertTrue(stored.verify(PASSWORD.encode()), vector.name)

    def test_wrong(self) -> None:
        """Each is wrong for other passwords, also for odd ones."""
        others = (b"passw\xc3\xb6rd", b"", PASSWORD.encode() + b"\0x", b"\xff", b"a" * 70_000)
        for vector in VECTORS:
            stored = parse_hash(vector.text)
            for other in others if stored.kind.seconds < QUICK else others[:1]:
                self.assertFalse(stored.verify(other), (vector.name, other[:20]))

    def test_another_digest(self) -> None:
        """A hash whose last character is another is not right."""
        for vector in VECTORS:
            if vector.text.endswith("}") or parse_hash(vector.text).kind.seconds > QUICK:
                continue
            for last in "0aA":
                text = vector.text[:-1] + last
                try:
                    stored = parse_hash(text)
                except ValueError:
                    continue
                # PBKDF2 and scrypt give the same digest when less of it is wanted, and the last
                # digit of base64 may have bits to spare.
                before = parse_hash(vector.text).digest
                if stored.digest != before and len(stored.digest) == len(before):
                    self.assertFalse(stored.verify(PASSWORD.encode()), (vector.name, last))

    def test_each_format(self) -> None:
        """There is a hash of each format."""
        texts = [vector.text for vector in VECTORS]
        more = {"$2a$", "$2b$"} | {f"bcrypt${digit}" for digit in "023456789"}
        upper = [text.upper() if text.startswith("{") else text for text in texts]
        for each in FORMATS:
            if each.prefix not in more:
                self.assertTrue(any(text.startswith(each.prefix) for text in upper), each.prefix)

    def test_public(self) -> None:
        """These are examples from documents of others that read Drupal's hashes."""
        for password, text in (
            ("password1234", "$S$DeIZ1KTE.VzRvudZ5.xgOakipuMFrVyPmRdWTjAdYieWj27NMglI"),
            ("terry-SELL-niggling", "$S$D0jOAf3SWo8LZbI3hnATd81YG0Q7XzQ9.hxtRfgcAO74X2qplNME"),
        ):
            self.assertTrue(parse_hash(text).verify(password.encode()))

    def test_php_programs(self) -> None:
        """WordPress and phpBB trim passwords, and phpBB hashes them as HTML."""
        for vector in VECTORS:
            trims = vector.name in ("wordpress", "passlib_phpass", "phpass", "phpbb")
            spaced = b" \t" + PASSWORD.encode() + b"\n"
            self.assertEqual(parse_hash(vector.text).verify(spaced), trims, vector.name)
        # Of nothing, which spaces are trimmed to: no password at all.
        for cheap in ("$P$6saltsalt", "$H$6saltsalt"):
            kind = parse_hash(cheap + "." * 22).kind
            self.assertEqual(kind.digest(b" ", b"saltsalt"), b"")
        self.assertEqual(parse_hash("$wp$2y$04$" + "." * 53).kind.digest(b" \t", b"." * 22), b"")
        # By PHP 8.2.36's hash(), of what its htmlspecialchars() makes of the password.
        escaped = parse_hash("$H$6saltsaltoZ4fdbKzIeZ7F2jAIpMKz/")
        self.assertTrue(escaped.verify(b'a&<>"b'))

    def test_unicode(self) -> None:
        """Only bare bcrypt is Synapse's, which applies NFKC."""
        for vector in VECTORS:
            kind = parse_hash(vector.text).kind
            self.assertEqual(kind.normalize, vector.text.startswith("$2"), vector.name)

    def test_decoys(self) -> None:
        """Each kind has a decoy that computes a digest with the same parameters."""
        for vector in VECTORS:
            kind: Kind = parse_hash(vector.text).kind
            made = kind.digest(b"x", kind.salt)
            self.assertEqual(len(made), len(parse_hash(vector.text).digest), vector.name)
