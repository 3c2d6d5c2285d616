"""Tests for the tokens of the account page."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import ExpiredToken, UnknownToken
from synapse_login_module.model import Link
from synapse_login_module.tokens.format import KeyRing, KeySet, TokenKind, fingerprint, parse
from synapse_login_module.tokens.page_token import LIFETIME, PageTokens

ALICE = Link("@alice:example.com", "directory", "4711")
KEYS = {1: b"1" * 32, 2: b"2" * 32}


class PageTokenTests(SynchronousTestCase):
    """Page tokens."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.ring = KeyRing(KEYS)
        self.tokens = PageTokens(self.ring, self.clock.seconds)

    def test_round_trip(self) -> None:
        """A token says whose it is, the key that it was made under, and the link."""
        made = self.tokens.make(ALICE)
        visit = self.tokens.read(made.token)
        self.assertEqual((made.user_id, made.expires_in_ms), (ALICE.user_id, LIFETIME))
        self.assertEqual((visit.user_id, visit.key_id), (ALICE.user_id, 2))
        self.assertTrue(visit.is_of(ALICE))

    def test_longest_user_id(self) -> None:
        """A user ID of 255 bytes fits."""
        link = ALICE._replace(user_id=f"@{'a' * 242}:example.com")
        self.assertEqual(len(link.user_id), 255)
        self.assertEqual(
            self.tokens.read(self.tokens.make(link).token).user_id,
            link.user_id,
        )

    def test_another_link(self) -> None:
        """A token is not of a link to another account, of another provider, or of none."""
        visit = self.tokens.read(self.tokens.make(ALICE).token)
        others = ALICE._replace(subject="4712"), ALICE._replace(provider="other"), None
        for link in others:
            self.assertFalse(visit.is_of(link), link)

    def test_expiry(self) -> None:
        """A token is good for a quarter of an hour, to the millisecond."""
        token = self.tokens.make(ALICE).token
        self.clock.advance(LIFETIME / 1000 - 0.5)
        self.tokens.read(token)
        self.clock.advance(0.5)
        self.assertRaises(ExpiredToken, self.tokens.read, token)

    def test_every_bit_counts(self) -> None:
        """A token with any one bit changed is unknown."""
        token = self.tokens.make(ALICE).token
        raw = urlsafe_b64decode(token.removeprefix("slmpt_") + "==")
        for place in range(len(raw)):
            for bit in (1, 128):
                changed = bytearray(raw)
                changed[place] ^= bit
                text = urlsafe_b64encode(changed).rstrip(b"=").decode("ascii")
                self.assertRaises(UnknownToken, self.tokens.read, f"slmpt_{text}")

    @given(st.text() | st.text("abcAB01-_", max_size=500).map("slmpt_".__add__))
    def test_any_text(self, text: str) -> None:
        """Any text that is no token is unknown, whatever it is."""
        self.assertRaises(UnknownToken, self.tokens.read, text)

    def test_servers_that_share_keys(self) -> None:
        """A token is good at a server that has its key, though another key signs there."""
        token = self.tokens.make(ALICE).token
        other = PageTokens(KeyRing({**KEYS, 3: b"3" * 32}), self.clock.seconds)
        self.assertEqual(other.read(token).user_id, ALICE.user_id)

    def test_key_removed(self) -> None:
        """A token ends with its key, and with a key of the same id in its place."""
        token = self.tokens.make(ALICE).token
        for keys in ({1: KEYS[1]}, {1: KEYS[1], 2: b"x" * 32}):
            other = PageTokens(KeyRing(keys), self.clock.seconds)
            self.assertRaises(UnknownToken, other.read, token)

    def test_key_added(self) -> None:
        """A key that is new in the key file is read before its token counts as unknown."""
        token = self.tokens.make(ALICE).token
        ring = KeyRing({1: KEYS[1]}, lambda: KeySet(KEYS))
        self.assertEqual(PageTokens(ring, self.clock.seconds).read(token).key_id, 2)

    def test_good_for_nothing_else(self) -> None:
        """No other kind of token is a page token, and a page token is of no other kind."""
        token = self.tokens.make(ALICE).token
        for kind in TokenKind:
            self.assertIsNone(parse(kind, token))
            other = self.ring.derive(kind, 2, 1, 0, b"s" * 16)
            self.assertRaises(UnknownToken, self.tokens.read, other)
            renamed = "slmpt_" + other.partition("_")[2]
            self.assertRaises(UnknownToken, self.tokens.read, renamed)

    def test_key_of_its_own(self) -> None:
        """The key under a page token is neither a token key nor what a fingerprint is made of."""
        label = b"synapse_login_module: the key of account page tokens"
        key = self.ring.subkey(2, label)
        assert key is not None
        self.assertNotEqual(key, KEYS[2])
        self.assertFalse(key.hex().startswith(fingerprint(2, KEYS[2])))
        self.assertNotEqual(key, self.ring.subkey(1, label))
        self.assertNotEqual(key, self.ring.subkey(2, b"another purpose"))
        self.assertIsNone(self.ring.subkey(9, label))

    def test_secrecy(self) -> None:
        """The token is not in what a log would show of it."""
        made = self.tokens.make(ALICE)
        self.assertNotIn(made.token, repr(made))
