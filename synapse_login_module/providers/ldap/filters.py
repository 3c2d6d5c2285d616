"""Filters and names, with a local part in the place of ``{localpart}``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ldaptor.ldapfilter import InvalidLDAPFilter, parseFilter  # type: ignore[import-untyped]
from ldaptor.protocols import pureldap  # type: ignore[import-untyped]
from ldaptor.protocols.ldap import distinguishedname  # type: ignore[import-untyped]

from synapse_login_module.providers.ldap.messages import octets

PLACEHOLDER = "{localpart}"

ANY = pureldap.LDAPFilterMatchAll


def parsed(text: str) -> Any:
    """The filter that a text is.

    :raise ValueError: when it is none (RFC 4515).
    """
    try:
        return _plain(parseFilter(text))
    except (InvalidLDAPFilter, RecursionError):
        raise ValueError("not an LDAP filter (RFC 4515)") from None


def filled(template: Any, localpart: str) -> Any:
    """A filter with a local part in the place of ``{localpart}``.

    It goes into the parsed filter, as a value: there is nothing in it to escape.
    """
    if isinstance(template, pureldap.LDAPFilterSet):
        return type(template)([filled(each, localpart) for each in template])
    if isinstance(template, pureldap.LDAPFilter_not):
        return pureldap.LDAPFilter_not(filled(template.value, localpart))
    if isinstance(template, pureldap.LDAPAttributeValueAssertion):
        value = template.assertionValue.value.replace(PLACEHOLDER, localpart)
        return type(template)(template.attributeDesc, pureldap.LDAPAssertionValue(octets(value)))
    return template


def for_anybody(template: Any) -> Any:
    """A filter with any value at all in the place of ``{localpart}``: what it asks of an account
    besides its name.
    """
    if isinstance(template, pureldap.LDAPFilterSet):
        return type(template)([for_anybody(each) for each in template])
    if isinstance(template, pureldap.LDAPFilter_not):
        named = filled(template, "").toWire() != template.toWire()
        return ANY if named else template
    if (
        isinstance(template, pureldap.LDAPAttributeValueAssertion)
        and PLACEHOLDER in template.assertionValue.value
    ):
        return pureldap.LDAPFilter_present(template.attributeDesc.value)
    return template


def filled_name(template: str, localpart: str) -> str:
    """A distinguished name with a local part, escaped, in the place of ``{localpart}``."""
    escaped: str = distinguishedname.escape(localpart)
    return template.replace(PLACEHOLDER, escaped)


def equals(attribute: str, value: str | bytes) -> Any:
    """Has the value."""
    asserted = octets(value) if isinstance(value, str) else value
    return pureldap.LDAPFilter_equalityMatch(
        pureldap.LDAPAttributeDescription(attribute), pureldap.LDAPAssertionValue(asserted)
    )


def one_of(filters: Sequence[Any]) -> Any:
    """Matches one of them at least."""
    return filters[0] if len(filters) == 1 else pureldap.LDAPFilter_or(filters)


def both(one: Any, other: Any) -> Any:
    """Matches the one and the other; ``None`` for the other is no condition."""
    return one if other is None else pureldap.LDAPFilter_and([one, other])


def _plain(given: Any) -> Any:
    """A filter without the default values that ldaptor writes out, which not all servers take."""
    if isinstance(given, pureldap.LDAPFilterSet):
        return type(given)([_plain(each) for each in given])
    if isinstance(given, pureldap.LDAPFilter_not):
        return pureldap.LDAPFilter_not(_plain(given.value))
    if isinstance(given, pureldap.LDAPFilter_extensibleMatch) and not given.dnAttributes.value:
        given.dnAttributes = None
    return given
