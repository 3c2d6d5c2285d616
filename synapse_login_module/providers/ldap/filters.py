"""Search filters, parsed and filled in with a local part in the place of ``{localpart}``.

The values in a parsed filter are octets. ldaptor's parser returns text, in which the escape of an
octet becomes the character of that number. So characters beyond ASCII are escaped as UTF-8 before
parsing, and each character of the parsed text is one octet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ldaptor.ldapfilter import InvalidLDAPFilter, parseFilter  # type: ignore[import-untyped]
from ldaptor.protocols import pureldap  # type: ignore[import-untyped]

from synapse_login_module.providers.ldap.messages import octets

PLACEHOLDER = "{localpart}"
NOW = "{now}"
NOW_FILETIME = "{now_filetime}"
"""The placeholders of the time, in a filter that depends on it."""

_FILETIME_OF_1970 = 116_444_736_000_000_000

ANY = pureldap.LDAPFilterMatchAll


def parsed(text: str) -> Any:
    """Parse a filter; its values become octets.

    :raise ValueError: when the text is not a filter (RFC 4515).
    """
    try:
        escaped = "".join(
            each if each.isascii() else "".join(f"\\{octet:02x}" for octet in each.encode("utf-8"))
            for each in text
        )
        return _rebuilt(_plain(parseFilter(escaped)), lambda value: value.encode("latin-1"))
    except (InvalidLDAPFilter, RecursionError, UnicodeEncodeError):
        raise ValueError("not an LDAP filter (RFC 4515)") from None


def filled(template: Any, localpart: str) -> Any:
    """Put a local part in the place of ``{localpart}`` in a parsed filter.

    It becomes a part of a value, so nothing in it needs escaping.
    """
    return _replaced(template, PLACEHOLDER, octets(localpart))


def at(template: Any, now: float) -> Any:
    """Put a time in the places of ``{now}`` and ``{now_filetime}`` in a parsed filter.

    The first becomes LDAP's generalized time, ``20260101120000Z``. The second becomes Active
    Directory's, the number of intervals of 100 nanoseconds since 1601.

    :param now: the time in seconds since the epoch.
    """
    generalized = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(now))
    filetime = str(int(now) * 10_000_000 + _FILETIME_OF_1970)
    with_now = _replaced(template, NOW, octets(generalized))
    return _replaced(with_now, NOW_FILETIME, octets(filetime))


def for_any_name(template: Any) -> Any:
    """Make a filter match any value in the place of ``{localpart}``.

    What is left are the conditions that every account has to meet, whatever its name.
    """
    if isinstance(template, pureldap.LDAPFilterSet):
        return type(template)([for_any_name(each) for each in template])
    if filled(template, "").toWire() == template.toWire():
        return template
    if isinstance(template, pureldap.LDAPFilter_not):
        return ANY
    if isinstance(template, pureldap.LDAPAttributeValueAssertion):
        return pureldap.LDAPFilter_present(template.attributeDesc.value)
    if isinstance(template, pureldap.LDAPFilter_substrings):
        return pureldap.LDAPFilter_present(template.type)
    return pureldap.LDAPFilter_present(template.type.value) if template.type else ANY


def equals(attribute: str, value: str | bytes) -> Any:
    """Make a filter that matches entries with this value of an attribute."""
    asserted = octets(value) if isinstance(value, str) else value
    return pureldap.LDAPFilter_equalityMatch(
        pureldap.LDAPAttributeDescription(attribute), pureldap.LDAPAssertionValue(asserted)
    )


def matches(rule: str, attribute: str, value: str) -> Any:
    """Make a filter that matches by another matching rule than that of the attribute.

    :param rule: the object identifier of the rule.
    """
    return pureldap.LDAPFilter_extensibleMatch(
        pureldap.LDAPMatchingRuleAssertion_matchingRule(rule),
        pureldap.LDAPMatchingRuleAssertion_type(attribute),
        pureldap.LDAPMatchingRuleAssertion_matchValue(octets(value)),
        None,
    )


def has(attribute: str) -> Any:
    """Make a filter that matches entries with any value of an attribute."""
    return pureldap.LDAPFilter_present(attribute)


def one_of(filters: Sequence[Any]) -> Any:
    """Make a filter that matches where one of several filters does."""
    return filters[0] if len(filters) == 1 else pureldap.LDAPFilter_or(filters)


def both(one: Any, other: Any) -> Any:
    """Make a filter that matches where both filters do; ``None`` for the other is no condition."""
    return one if other is None else pureldap.LDAPFilter_and([one, other])


def _replaced(template: Any, placeholder: str, value: bytes) -> Any:
    word = placeholder.encode("ascii")
    return _rebuilt(template, lambda given: given.replace(word, value))


def _rebuilt(given: Any, change: Callable[[Any], bytes]) -> Any:
    """Return a filter with a function applied to every value that it compares."""
    if isinstance(given, pureldap.LDAPFilterSet):
        return type(given)([_rebuilt(each, change) for each in given])
    if isinstance(given, pureldap.LDAPFilter_not):
        return pureldap.LDAPFilter_not(_rebuilt(given.value, change))
    if isinstance(given, pureldap.LDAPAttributeValueAssertion):
        value = pureldap.LDAPAssertionValue(change(given.assertionValue.value))
        return type(given)(given.attributeDesc, value)
    if isinstance(given, pureldap.LDAPFilter_substrings):
        parts = [type(each)(change(each.value)) for each in given.substrings]
        return pureldap.LDAPFilter_substrings(given.type, parts)
    if isinstance(given, pureldap.LDAPFilter_extensibleMatch):
        value = pureldap.LDAPMatchingRuleAssertion_matchValue(change(given.matchValue.value))
        return type(given)(given.matchingRule, given.type, value, given.dnAttributes)
    return given


def _plain(given: Any) -> Any:
    """Remove the default values that ldaptor encodes, which some servers reject."""
    if isinstance(given, pureldap.LDAPFilterSet):
        return type(given)([_plain(each) for each in given])
    if isinstance(given, pureldap.LDAPFilter_not):
        return pureldap.LDAPFilter_not(_plain(given.value))
    if isinstance(given, pureldap.LDAPFilter_extensibleMatch) and not given.dnAttributes.value:
        given.dnAttributes = None
    return given
