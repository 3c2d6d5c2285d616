"""Tests for deriving, parsing and verifying tokens."""

from __future__ import annotations

import hmac
import string
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from threading import Event, Thread

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.tokens.format import (
    KEY_SIZE,
    MAX_GENERATION,
    MAX_KEY_ID,
    SALT_SIZE,
    KeyRing,
    KeySet,
    TokenKind,
    parse,
)

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
SALT, OTHER_SALT = b"s" * SALT_SIZE, b"t" * SALT_SIZE
RING = KeyRing({1: KEY})
ALPHABET = string.ascii_letters + string.digits + "-_"

kinds = st.sampled_from(TokenKind)
key_ids = st.integers(0, MAX_KEY_ID)
session_ids = st.integers(1, 2**63 - 1)
generations = st.integers(0, MAX_GENERATION)
salts = st.binary(min_size=SALT_SIZE, max_size=SALT_SIZE)
any_text = st.text(st.characters())


def a_token(kind: TokenKind = TokenKind.ACCESS) -> str:
    """Derive a valid token."""
    return RING.derive(kind, 1, 12345, 6, SALT)


def signed(kind: TokenKind, header: bytes) -> str:
    """Make a token with any header and the right MAC for it."""
    raw = header + hmac.digest(KEY, SALT + header, "sha256")
    return f"{kind.prefix}_{urlsafe_b64encode(raw).decode('ascii')}"


class FormatTests(SynchronousTestCase):
    """Tests of the form of tokens."""

    def test_prefix(self) -> None:
        """A token begins with the project and the kind, followed by 64 characters of base64url."""
        for kind, prefix in (
            (TokenKind.ACCESS, "slmat_"),
            (TokenKind.REFRESH, "slmrt_"),
            (TokenKind.LOGIN, "slmlt_"),
        ):
            self.assertRegex(a_token(kind), rf"\A{prefix}[A-Za-z0-9_-]{{64}}\Z")

    def test_fields(self) -> None:
        """The documented fields are in network order, before the MAC over salt and header."""
        raw = urlsafe_b64decode(a_token(TokenKind.REFRESH).partition("_")[2])
        header = struct.pack(">BBHQI", 1, 2, 1, 12345, 6)
        self.assertEqual(raw, header + hmac.digest(KEY, SALT + header, "sha256"))

    def test_parse(self) -> None:
        """Parsing returns the parts."""
        parsed = parse(TokenKind.ACCESS, a_token())
        assert parsed is not None
        self.assertEqual((parsed.key_id, parsed.session_id, parsed.generation), (1, 12345, 6))
        self.assertTrue(RING.verify(parsed, SALT))

    @given(kinds, key_ids, session_ids, generations, salts)
    def test_round_trip(
        self, kind: TokenKind, key_id: int, session_id: int, generation: int, salt: bytes
    ) -> None:
        """Every derived token is parsed and authentic, and deriving it again gives it again."""
        ring = KeyRing({key_id: KEY})
        token = ring.derive(kind, key_id, session_id, generation, salt)
        self.assertEqual(token, ring.derive(kind, key_id, session_id, generation, salt))
        parsed = parse(kind, token)
        assert parsed is not None
        self.assertEqual(
            (parsed.key_id, parsed.session_id, parsed.generation),
            (key_id, session_id, generation),
        )
        self.assertTrue(ring.verify(parsed, salt))

    def test_every_part_counts(self) -> None:
        """Tokens that differ in any part differ."""
        ring = KeyRing({1: KEY, 2: KEY})
        tokens = {
            ring.derive(TokenKind.ACCESS, 1, 12345, 6, SALT),
            ring.derive(TokenKind.REFRESH, 1, 12345, 6, SALT),
            ring.derive(TokenKind.ACCESS, 2, 12345, 6, SALT),
            ring.derive(TokenKind.ACCESS, 1, 12346, 6, SALT),
            ring.derive(TokenKind.ACCESS, 1, 12345, 7, SALT),
            ring.derive(TokenKind.ACCESS, 1, 12345, 6, OTHER_SALT),
        }
        self.assertEqual(len({token[-43:] for token in tokens}), 6)


class RefusalTests(SynchronousTestCase):
    """Tests of text that is not a token."""

    @settings(max_examples=300)
    @given(kinds, any_text)
    def test_any_text(self, kind: TokenKind, text: str) -> None:
        """Parsing never raises, and returns None for text that is not a token."""
        self.assertIsNone(parse(kind, text))
        self.assertIsNone(parse(kind, f"{kind.prefix}_{text}"[:69]))

    @settings(max_examples=300)
    @given(kinds, st.text(ALPHABET, min_size=64, max_size=64))
    def test_any_base64(self, kind: TokenKind, text: str) -> None:
        """Parsing never raises for any base64url, and no token that it parses is authentic."""
        parsed = parse(kind, f"{kind.prefix}_{text}")
        self.assertFalse(parsed is not None and RING.verify(parsed, SALT))

    def test_every_altered_character(self) -> None:
        """A token with any one character changed to any other is rejected."""
        token = a_token()
        for position, character in enumerate(token):
            for other in ALPHABET.replace(character, ""):
                parsed = parse(TokenKind.ACCESS, token[:position] + other + token[position + 1 :])
                self.assertFalse(
                    parsed is not None and RING.verify(parsed, SALT), (position, other)
                )

    @given(st.integers(0, 69), any_text.filter(lambda text: len(text) <= 5), st.integers(0, 3))
    def test_every_alteration(self, position: int, inserted: str, removed: int) -> None:
        """A token with anything inserted or removed is rejected."""
        token = a_token()
        altered = token[:position] + inserted + token[position + removed :]
        parsed = parse(TokenKind.ACCESS, altered)
        accepted = parsed is not None and RING.verify(parsed, SALT)
        self.assertEqual(accepted, altered == token)

    def test_one_encoding(self) -> None:
        """Only the canonical text is accepted: no padding, space, line end or other alphabet."""
        header = struct.pack(">BBHQI", 1, 1, 1, 0x7BFFFFFFFFFFFFFF, 0xFBFFFFFF)
        token = signed(TokenKind.ACCESS, header)
        self.assertIsNotNone(parse(TokenKind.ACCESS, token))
        self.assertIn("-", token)
        self.assertIn("_", token[6:])
        prefix, body = token[:6], token[6:]
        for altered in (
            f"{token}=",
            f"{token}====",
            f"{token}\n",
            f" {token}",
            f"{token}A",
            f"{token}AAAA",
            token[:-1],
            prefix.upper() + body,
            prefix + body.replace("-", "+"),
            prefix + body.replace("_", "/"),
            prefix.replace("_", "-") + body,
            body,
            prefix + body[:-1] + "\N{MATHEMATICAL DOUBLE-STRUCK DIGIT ONE}",
            prefix + body[:-1] + "\N{ARABIC-INDIC DIGIT ONE}",
            prefix + body[:-1] + "\udc80",
        ):
            self.assertIsNone(parse(TokenKind.ACCESS, altered), ascii(altered))

    def test_other_kind(self) -> None:
        """A token of one kind is not a token of another, even under the other's prefix."""
        for kind in TokenKind:
            for other in set(TokenKind) - {kind}:
                token = a_token(kind)
                self.assertIsNone(parse(other, token))
                self.assertIsNone(parse(other, f"{other.value}{token[5:]}"))

    def test_other_format(self) -> None:
        """A token of a future format is rejected, even with the right MAC."""
        for version in (0, 2, 255):
            header = struct.pack(">BBHQI", version, 1, 1, 12345, 6)
            self.assertIsNone(parse(TokenKind.ACCESS, signed(TokenKind.ACCESS, header)))

    def test_session_id_beyond_the_database(self) -> None:
        """A session id that no database row can have is rejected."""
        for session_id, good in ((2**63 - 1, True), (2**63, False), (2**64 - 1, False)):
            header = struct.pack(">BBHQI", 1, 1, 1, session_id, 6)
            parsed = parse(TokenKind.ACCESS, signed(TokenKind.ACCESS, header))
            self.assertEqual(parsed is not None, good)


class KeyRingTests(SynchronousTestCase):
    """Tests of the server's keys."""

    def test_key_without_salt(self) -> None:
        """The key without the salt of a session makes no valid token of it."""
        parsed = parse(TokenKind.ACCESS, RING.derive(TokenKind.ACCESS, 1, 12345, 6, OTHER_SALT))
        assert parsed is not None
        self.assertFalse(RING.verify(parsed, SALT))

    def test_renewed_at_once(self) -> None:
        """Of two threads that read the keys again, the one that read later wins."""
        reading, goes_on = Event(), Event()
        versions = iter([KeySet({1: KEY}), KeySet({2: KEY})])

        def read_again() -> KeySet:
            version = next(versions)
            if 1 in version.keys:
                reading.set()
                goes_on.wait(60)
            return version

        ring = KeyRing({1: KEY}, read_again)
        threads = [Thread(target=ring.renew) for _ in range(2)]
        threads[0].start()
        reading.wait(60)
        threads[1].start()
        threads[1].join(0.05)  # without the lock it would finish first
        goes_on.set()
        for each in threads:
            each.join()
        self.assertEqual(ring.newest, 2)

    def test_salt_without_key(self) -> None:
        """The salt without the key makes no valid token."""
        forger = KeyRing({1: OTHER_KEY})
        parsed = parse(TokenKind.ACCESS, forger.derive(TokenKind.ACCESS, 1, 12345, 6, SALT))
        assert parsed is not None
        self.assertFalse(RING.verify(parsed, SALT))

    def test_unknown_key(self) -> None:
        """A token under a key that was removed, or never existed, is rejected."""
        parsed = parse(TokenKind.ACCESS, a_token())
        assert parsed is not None
        self.assertFalse(KeyRing({2: KEY}).verify(parsed, SALT))

    def test_key_of_another_id(self) -> None:
        """A token is verified under the key that it names, and no other."""
        parsed = parse(TokenKind.ACCESS, a_token())
        assert parsed is not None
        self.assertFalse(KeyRing({1: OTHER_KEY, 2: KEY}).verify(parsed, SALT))

    def test_rotation(self) -> None:
        """With a new key the old tokens stay valid, and the new key is the newest."""
        rotated = KeyRing({1: KEY, 2: OTHER_KEY})
        parsed = parse(TokenKind.ACCESS, a_token())
        assert parsed is not None
        self.assertTrue(rotated.verify(parsed, SALT))
        self.assertEqual((RING.newest, rotated.newest), (1, 2))

    def test_newest_is_the_highest(self) -> None:
        """The highest key id is the newest, in whatever order the keys are given."""
        self.assertEqual(KeyRing({300: KEY, 7: KEY}).newest, 300)
        self.assertEqual(KeyRing({0: KEY}).newest, 0)

    def test_waiting(self) -> None:
        """A waiting key verifies tokens and signs none. At least one key has to sign."""
        ring = KeyRing({1: KEY, 2: OTHER_KEY}, waiting=[2])
        self.assertEqual((ring.newest, set(ring.in_use)), (1, {1}))
        token = KeyRing({2: OTHER_KEY}).derive(TokenKind.ACCESS, 2, 12345, 6, SALT)
        parsed = parse(TokenKind.ACCESS, token)
        assert parsed is not None
        self.assertTrue(ring.verify(parsed, SALT))
        with self.assertRaises(ValueError):
            KeyRing({1: KEY}, waiting=[1])

    def test_fingerprint(self) -> None:
        """A fingerprint depends on key and id, is always the same, and does not show the key."""
        ring = KeyRing({1: KEY, 2: OTHER_KEY, 3: KEY})
        self.assertEqual(len(set(ring.fingerprints.values())), 3)
        again = KeyRing({1: KEY})
        self.assertEqual(again.fingerprints[1], ring.fingerprints[1])
        self.assertRegex(again.fingerprints[1], r"\A[0-9a-f]{32}\Z")
        for size in (2, 4, 8):
            self.assertNotIn(KEY.hex()[:size], again.fingerprints[1][:size])

    def test_fingerprint_is_no_token(self) -> None:
        """No token has the HMAC of a fingerprint, because the texts differ in length."""
        taken: list[bytes] = []
        new, update = hmac.new, hmac.HMAC.update

        def watched(key: bytes, msg: bytes | None = None, digestmod: str = "") -> hmac.HMAC:
            if msg is not None:
                taken.append(msg)
            return new(key, msg, digestmod)

        self.patch(hmac, "new", watched)
        ring = KeyRing({1: KEY, MAX_KEY_ID: KEY})

        def watched_update(mac: hmac.HMAC, msg: bytes) -> None:
            taken.append(msg)
            update(mac, msg)

        self.patch(hmac.HMAC, "update", watched_update)
        ring.derive(TokenKind.ACCESS, 1, 12345, 6, SALT)
        *labels, token = map(len, taken)
        self.assertEqual(len(labels), 2)
        self.assertNotIn(token, labels)

    def test_contains(self) -> None:
        """The ring returns the keys that it has."""
        self.assertTrue(RING.find(1))
        self.assertFalse(RING.find(2))

    def test_bad_keys(self) -> None:
        """A ring without a key, or with a key or an id of the wrong size, is rejected."""
        for keys in (
            {},
            {1: KEY[:-1]},
            {1: KEY + b"x"},
            {1: b""},
            {-1: KEY},
            {MAX_KEY_ID + 1: KEY},
            {1: KEY, 2: b"short"},
        ):
            with self.assertRaises(ValueError) as raised:
                KeyRing(keys)
            self.assertNotIn(repr(KEY)[2:20], str(raised.exception))
        KeyRing({0: KEY, MAX_KEY_ID: KEY})

    def test_ring_is_its_own(self) -> None:
        """A ring keeps its keys when the mapping that it was made from changes."""
        keys = {1: bytes(KEY_SIZE)}
        ring = KeyRing(keys)
        keys.clear()
        self.assertTrue(ring.find(1))
