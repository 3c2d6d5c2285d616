"""Filters as octets, and names that a template makes, over many cases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from ldaptor.protocols import pureldap  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.providers.ldap.filters import (
    at,
    equals,
    filled,
    for_any_name,
    parsed,
)
from synapse_login_module.providers.ldap.names import Template, filled_name

OCTETS = st.binary(min_size=1, max_size=40)
RDN_SPECIALS = st.text(st.sampled_from(' #,+"\\<>;=aZ\0ß雪/'), min_size=1, max_size=12)


def escaped(value: bytes) -> str:
    """Octets, each written as an escape."""
    return "".join(f"\\{octet:02X}" for octet in value)


def as_they_stand(value: bytes) -> str:
    """Octets, written as characters where they are some that stand for themselves."""
    text = value.decode("utf-8", "surrogateescape")
    return "".join(
        each if each.isprintable() and each not in "*()\\{} " else escaped(octets_of(each))
        for each in text
    )


def octets_of(text: str) -> bytes:
    """What text was decoded from."""
    return text.encode("utf-8", "surrogateescape")


class ParsedTests(SynchronousTestCase):
    """What RFC 4515 makes of a text."""

    @given(OCTETS)
    def test_octets(self, value: bytes) -> None:
        """Any octets go through an escaped text unchanged, in any kind of filter."""
        for text in (escaped(value), as_they_stand(value)):
            wire = equals("cn", value).toWire()
            self.assertEqual(parsed(f"(cn={text})").toWire(), wire)
            both = pureldap.LDAPFilter_and([equals("cn", value), equals("sn", value)])
            self.assertEqual(parsed(f"(&(cn={text})(sn={text}))").toWire(), both.toWire())
            negated = pureldap.LDAPFilter_not(equals("cn", value))
            self.assertEqual(parsed(f"(!(cn={text}))").toWire(), negated.toWire())
            for operator in (">=", "<=", "~="):
                ordered = parsed(f"(cn{operator}{text})")
                self.assertEqual(ordered.assertionValue.value, value)
            parts = parsed(f"(cn={text}*{text}*{text})").substrings
            self.assertEqual([part.value for part in parts], [value] * 3)
            self.assertEqual(parsed(f"(cn:1.2.3:={text})").matchValue.value, value)

    def test_as_in_the_issue(self) -> None:
        """Letters beyond ASCII may stand for themselves or be escaped; octets need be no text."""
        wanted = equals("cn", "Köln").toWire()
        for text in ("(cn=Köln)", "(cn=K\\c3\\b6ln)", "(cn=\\4b\\C3\\B6ln)"):
            self.assertEqual(parsed(text).toWire(), wanted)
        guid = bytes(range(0x39, 0x49)) + b"\x0e\xff"
        text = f"(objectGUID={escaped(guid)})"
        self.assertEqual(parsed(text).toWire(), equals("objectGUID", guid).toWire())

    def test_no_filters(self) -> None:
        """What is no filter is none."""
        for text in ("", "cn=a", "(cn=a", "(cn=\\c)", "(cn=\\zz)", "(cn=a)(b=c)", "(cn=\ud800)"):
            with self.assertRaises(ValueError):
                parsed(text)


class FilledTests(SynchronousTestCase):
    """Values that are put into a filter."""

    def test_parts_and_rules(self) -> None:
        """They go into parts of values and into matching rules too."""
        for text, wanted in (
            ("(mail={localpart}@*)", "(mail=bob@*)"),
            ("(cn:caseExactMatch:={localpart})", "(cn:caseExactMatch:=bob)"),
            ("(|(uid={localpart})(mail=*{localpart}*x))", "(|(uid=bob)(mail=*bob*x))"),
        ):
            self.assertEqual(filled(parsed(text), "bob").toWire(), parsed(wanted).toWire(), text)

    def test_for_any_name(self) -> None:
        """Any name fits there, as it does where a whole value is compared."""
        for text, wanted in (
            ("(mail={localpart}@*)", "(mail=*)"),
            ("(cn:caseExactMatch:={localpart})", "(cn=*)"),
            ("(:caseExactMatch:={localpart})", "(objectClass=*)"),
            ("(mail=*@example.com)", "(mail=*@example.com)"),
        ):
            self.assertEqual(for_any_name(parsed(text)).toWire(), parsed(wanted).toWire(), text)

    def test_time(self) -> None:
        """The time goes into a filter that depends on it, in the form that each place is for."""
        # 2026-01-01, as LDAP writes it and as Active Directory does.
        text = "(|(a=x)(t>={now})(e<={now_filetime}))"
        wanted = "(|(a=x)(t>=20260101000000Z)(e<=134116992000000000))"
        self.assertEqual(at(parsed(text), 1_767_225_600.9).toWire(), parsed(wanted).toWire())


class TemplateTests(SynchronousTestCase):
    """Distinguished names with a local part in them."""

    @given(RDN_SPECIALS)
    def test_makes(self, localpart: str) -> None:
        """It makes what it is filled with, and nothing that is elsewhere."""
        for above in ("ou=people,dc=example", "o=A\\, B,c=x", "ou=M\\c3\\bcnchen,dc=example"):
            text = f"uid={{localpart}},{above}"
            name = filled_name(text, localpart).encode()
            self.assertTrue(Template(text).makes(name))
            self.assertFalse(Template(f"uid={{localpart}},ou=x,{above}").makes(name))
            self.assertFalse(Template(f"cn={{localpart}},{above}").makes(name))

    def test_spellings(self) -> None:
        """Case, spaces and the way of escaping make no difference."""
        template = Template("uid={localpart}, OU=München\\, Süd,dc=example")
        for name in (
            "UID=bob,ou=München\\2C Süd,DC=Example",
            "uid=bob , ou=M\\C3\\BCnchen\\, S\\c3\\bcd , dc=example",
        ):
            self.assertTrue(template.makes(name.encode()), name)
        for name in ("uid=bob,ou=München,dc=example", "uid=bob", "", "bob", "uid=bob,,dc=example"):
            self.assertFalse(template.makes(name.encode()), name)

    def test_parts(self) -> None:
        """What is above all its names, and what they are named by."""
        for text, parent, by_uid in (
            ("uid={localpart},ou=a\\,b,dc=c", "ou=a\\,b,dc=c", True),
            ("UID={localpart}, dc=c", "dc=c", True),
            ("cn={localpart},dc=c", "dc=c", False),
            ("uid=x-{localpart},dc=c", "dc=c", False),
            ("uid={localpart}+cn=x,dc=c", "dc=c", False),
            ("uid={localpart},ou={localpart},dc=c", None, True),
            ("uid={localpart}", None, True),
        ):
            template = Template(text)
            self.assertEqual((template.parent, template.is_named_by("uid")), (parent, by_uid), text)
        for text in ("uid={localpart},x", "{localpart}", "uid={localpart},", "=x,dc=c"):
            with self.assertRaises(ValueError):
                Template(text)
