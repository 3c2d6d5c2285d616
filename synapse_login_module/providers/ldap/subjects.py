"""The subject of an entry: an immutable id, or its name if it has none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from synapse_login_module.errors import UnusableAccount
from synapse_login_module.model import fold
from synapse_login_module.providers.identifiers import subject_of
from synapse_login_module.providers.ldap.messages import Entry

_FOUND_BY_THEMSELVES = ("entryUUID", "objectGUID", "nsUniqueId")
_SPELLED = {fold(attribute): attribute for attribute in _FOUND_BY_THEMSELVES}
_BINARY = frozenset({"objectguid", "objectsid", "guid"})
"""Attributes of Active Directory and eDirectory whose values are octets."""

_TAGGED = re.compile(r"([A-Za-z][A-Za-z0-9-]*):(.+)")


class Subjects:
    """Makes the subjects of entries: ``ATTRIBUTE:VALUE``, or the name as the directory spells it.

    Octets are in hexadecimal. A name has no colon, so the two forms cannot be confused.

    :param attribute: the attribute that is configured; ``None`` to use ``entryUUID``,
        ``objectGUID`` or ``nsUniqueId`` if an entry has it.
    :param searchable: whether entries can be searched by an attribute other than their name.
    :param required: whether a name cannot be a subject.
    """

    def __init__(self, attribute: str | None, searchable: bool, required: bool = False) -> None:
        self._is_configured = attribute is not None
        self._required = required or self._is_configured
        if attribute is not None:
            self.attributes: Sequence[str] = (attribute,)
        else:
            self.attributes = _FOUND_BY_THEMSELVES if searchable else ()

    def of(self, entry: Entry, name: str) -> str:
        """Make the subject of an entry.

        :param name: the entry's name.
        :raise UnusableAccount: when the entry lacks the attribute that is configured, or an id
            that is required, or when the attribute has several values, or one that cannot be a
            subject.
        """
        for attribute in self.attributes:
            values = entry.attributes.get(fold(attribute), ())
            if not values and not self._is_configured:
                continue
            subject = _tagged(attribute, values)
            if subject is None:
                raise UnusableAccount(f"LDAP: {attribute} of an entry cannot be its subject")
            return subject
        if self._required:
            some = ", ".join(self.attributes)
            raise UnusableAccount(f"LDAP: an entry has none of {some}, or they cannot be read")
        return name


def condition(subject: str) -> tuple[str, str | bytes] | None:
    """Return the attribute and the value of a subject; ``None`` for a subject that is a name."""
    match = _TAGGED.fullmatch(subject)
    if match is None:
        return None
    attribute, value = match.groups()
    if fold(attribute) in _BINARY:
        with suppress(ValueError):
            return attribute, bytes.fromhex(value)
    return attribute, value


def _tagged(attribute: str, values: Sequence[bytes]) -> str | None:
    if len(values) != 1:
        return None
    low = fold(attribute)
    if low in _BINARY:
        text: str | None = values[0].hex()
    else:
        try:
            text = values[0].decode("utf-8")
        except UnicodeDecodeError:
            return None
    return subject_of(f"{_SPELLED.get(low, low)}:{text}") if text else None
