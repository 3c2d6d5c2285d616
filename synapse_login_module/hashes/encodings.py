"""The ways that hashes are written as text."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error

CRYPT_DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The digits of crypt's base64, from the lowest to the highest."""

_DAMAGED = "a hash that is cut short or damaged"


def groups(pattern: re.Pattern[str], text: str, what: str) -> tuple[str, ...]:
    """Return the groups of a pattern that matches the whole of a text.

    :param what: what the text should be, for the error.
    :raise ValueError: when it does not match.
    """
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(f"{what} that is cut short or damaged")
    return match.groups()


def from_base64(text: str) -> bytes:
    """Decode base64, with or without its padding.

    :raise ValueError: when it is none.
    """
    digits = text.rstrip("=")
    try:
        return b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except Error:
        raise ValueError(_DAMAGED) from None


def from_adapted_base64(text: str) -> bytes:
    """Decode passlib's base64, which has a dot for each plus sign and no padding.

    :raise ValueError: when it is none.
    """
    return from_base64(text.replace(".", "+"))


def from_hex(text: str) -> bytes:
    """Decode hexadecimal digits.

    :raise ValueError: when it is none.
    """
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(_DAMAGED) from None
