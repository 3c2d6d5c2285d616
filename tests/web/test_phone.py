"""Tests for telephone numbers."""

from __future__ import annotations

from unittest import skipIf

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.web import phone
from synapse_login_module.web.phone import NotAPhoneNumber, to_msisdn

without_plans = skipIf(phone._numbering_plans() is None, "phonenumbers is not installed")


class InternationalTests(SynchronousTestCase):
    """Numbers that begin with a country code."""

    def check(self) -> None:
        """International numbers in every spelling."""
        for written in (
            "+447700900123",
            "00447700900123",
            "+44 7700 900123",
            "+44-7700-900-123",
            "+44.7700.900123",
            "(+44) 7700/900123",
            " +44 7700\t900123 ",
            "00 44 7700 900123",
        ):
            for country in ("", "GB", "gb", "US"):
                self.assertEqual(to_msisdn(country, written), "447700900123", written)

    def test_with_numbering_plans(self) -> None:
        """Every spelling is understood, with any country."""
        self.check()

    def test_without_numbering_plans(self) -> None:
        """Every spelling is understood without the library of numbering plans too."""
        self.patch(phone, "_numbering_plans", lambda: None)
        self.check()

    def test_bounds(self) -> None:
        """International numbers have five to fifteen digits."""
        self.patch(phone, "_numbering_plans", lambda: None)
        for digits in ("12345", "123456789012345"):
            self.assertEqual(to_msisdn("", f"+{digits}"), digits)
        for digits in ("1234", "1234567890123456", "0447700900123"):
            self.assertRaises(NotAPhoneNumber, to_msisdn, "", f"+{digits}")

    @without_plans
    def test_trunk_prefix(self) -> None:
        """The zero in brackets, which is not dialled from abroad, is left out."""
        self.assertEqual(to_msisdn("GB", "+44 (0)7700 900123"), "447700900123")


class NationalTests(SynchronousTestCase):
    """Numbers as they are dialled in their own country."""

    @without_plans
    def test_country(self) -> None:
        """National numbers are understood by the country's numbering plan."""
        for country, written, msisdn in (
            ("GB", "07700 900123", "447700900123"),
            ("gb", "07700900123", "447700900123"),
            ("US", "(202) 555-0123", "12025550123"),
            ("DE", "030 901820", "4930901820"),
            ("IT", "06 698 1234", "39066981234"),
        ):
            self.assertEqual(to_msisdn(country, written), msisdn)

    @without_plans
    def test_no_country(self) -> None:
        """Without a country, or with an unknown one, national numbers are rejected."""
        for country in ("", "ZZ", "GBR", "\0", "Ü"):
            self.assertRaises(NotAPhoneNumber, to_msisdn, country, "07700 900123")

    def test_without_numbering_plans(self) -> None:
        """Without the library of numbering plans they are rejected, and the error asks for an
        international number.
        """
        self.patch(phone, "_numbering_plans", lambda: None)
        with self.assertRaises(NotAPhoneNumber) as raised:
            to_msisdn("GB", "07700 900123")
        self.assertIn("international", str(raised.exception))


class NonsenseTests(SynchronousTestCase):
    """Texts that are no telephone numbers."""

    def test_nonsense(self) -> None:
        """They are rejected."""
        for written in ("", " ", "+", "00", "alice", "+alice", "\0", "+44é"):
            self.assertRaises(NotAPhoneNumber, to_msisdn, "GB", written)

    def test_long(self) -> None:
        """A very long text is rejected without being parsed."""
        for written in ("+44 7700 900123" + " " * 50, "1" * 65_536):
            self.assertRaises(NotAPhoneNumber, to_msisdn, "GB", written)

    def check(self, country: str, written: str) -> None:
        """Check that a text gives digits or an error."""
        try:
            msisdn = to_msisdn(country, written)
        except NotAPhoneNumber:
            return
        self.assertRegex(msisdn, r"\A[0-9]+\Z")

    @settings(max_examples=300)
    @given(
        st.sampled_from(["", "GB", "US", "ZZ"]) | st.text(st.characters(), max_size=3),
        st.text(st.characters()) | st.text("+0123456789 ()-./ext;#*,\n", max_size=70),
    )
    def test_any_text(self, country: str, written: str) -> None:
        """Any text gives digits or an error, with numbering plans and without."""
        self.check(country, written)
        patch = self.patch(phone, "_numbering_plans", lambda: None)
        try:
            self.check(country, written)
        finally:
            patch.restore()
