"""Telephone numbers as MSISDNs.

International numbers are always parsed. National ones need the world's numbering plans: they are
parsed where ``phonenumbers`` is installed (the ``[phone]`` extra).
"""

from __future__ import annotations

import re
from typing import Any

_INTERNATIONAL = re.compile(r"(?:\+|00)([1-9][0-9]{4,14})", re.ASCII)
_DECORATION = re.compile(r"[\s().\-/]")


class NotAPhoneNumber(ValueError):
    """The text cannot be parsed as a telephone number."""


def to_msisdn(country: str, phone: str) -> str:
    """Return a number as digits alone, beginning with the country code.

    :param country: the two-letter code of the country that a national number is dialled in; may be
        empty for an international one.
    :param phone: the number as people write it.
    :raise NotAPhoneNumber: when it cannot be parsed.
    """
    if len(phone) > 64:
        raise NotAPhoneNumber("not a telephone number")
    match = _INTERNATIONAL.fullmatch(_DECORATION.sub("", phone.replace("(0)", "")))
    if match:
        return match[1]
    phonenumbers = _numbering_plans()
    if phonenumbers is None:
        raise NotAPhoneNumber("not an international telephone number, as +447700900123")
    try:
        number = phonenumbers.parse(phone, country.upper() or None)
    except phonenumbers.NumberParseException:
        raise NotAPhoneNumber("not a telephone number of that country") from None
    formatted: str = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return formatted.removeprefix("+")


def _numbering_plans() -> Any:
    """Import the library when it is needed, as it is large; ``None`` where it is not installed."""
    try:
        import phonenumbers
    except ImportError:
        return None
    return phonenumbers
