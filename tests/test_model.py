"""Tests for the values that the parts hand to one another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.model import canonical_email, fold, localpart_from


class NameTests(SynchronousTestCase):
    """Names."""

    def test_fold(self) -> None:
        """ASCII letters are put in lower case, and nothing else is touched."""
        self.assertEqual(fold("ALICE-Äß\u212a\u0130"), "alice-Äß\u212a\u0130")

    @given(st.text())
    def test_localpart(self, name: str) -> None:
        """A name makes a local part of the characters that Matrix allows, or none."""
        localpart = localpart_from(name)
        allowed = set("abcdefghijklmnopqrstuvwxyz0123456789._=/+-")
        if name and set(fold(name)) <= allowed:
            self.assertEqual(localpart, fold(name))
        else:
            self.assertIsNone(localpart)


class EmailTests(SynchronousTestCase):
    """E-mail addresses, in the form that Synapse compares them in."""

    def test_canonical(self) -> None:
        """Case is folded before the "@", and letters are put in lower case after it."""
        for address, canonical in (
            ("alice@example.com", "alice@example.com"),
            (" Alice@Example.COM\t", "alice@example.com"),
            ("Straße@Straße.example", "strasse@straße.example"),
            ("\u212aate@\u212a.example", "kate@k.example"),
            # Not NFKC: Synapse does none, and keeps what was typed.
            ("\uff41lice@example.com", "\uff41lice@example.com"),
            ("a b@c", "a b@c"),
        ):
            self.assertEqual(canonical_email(address), canonical, address)

    def test_none(self) -> None:
        """What has no "@", or several, or nothing before it, as a user ID has, is no address."""
        for text in ("", "alice", "a@b@c", "@@", "@alice:example.com", " @example.com"):
            self.assertIsNone(canonical_email(text), text)

    @given(st.text(), st.text())
    def test_once(self, local: str, domain: str) -> None:
        """What is canonical stays as it is."""
        canonical = canonical_email(f"{local}@{domain}")
        if canonical is not None:
            self.assertEqual(canonical_email(canonical), canonical)
