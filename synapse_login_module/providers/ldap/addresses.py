"""E-mail addresses, as the attributes of entries hold them."""

from __future__ import annotations

from collections.abc import Sequence

from synapse_login_module.model import fold
from synapse_login_module.providers.ldap.messages import Entry, texts

_PREFIX = "smtp:"
_PREFIXED = "proxyaddresses"
"""The attribute of Active Directory with addresses of several kinds, each after its kind. The
primary one has its kind in capitals.
"""


def values_for(attribute: str, address: str) -> Sequence[str]:
    """Return the values that an attribute may have for an e-mail address."""
    if fold(attribute) != _PREFIXED:
        return (address,)
    return (f"{_PREFIX}{address}", f"{_PREFIX.upper()}{address}")


def emails_of(entry: Entry, attribute: str | None) -> tuple[str, ...]:
    """Return the e-mail addresses of an entry, the primary one first."""
    values = texts(entry, attribute)
    if fold(attribute or "") != _PREFIXED:
        return values
    size = len(_PREFIX)
    primary_first = sorted(values, key=lambda value: not value.startswith(_PREFIX.upper()))
    return tuple(value[size:] for value in primary_first if fold(value[:size]) == _PREFIX)
