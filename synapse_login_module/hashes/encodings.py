"""The ways that hashes are written as text."""

from __future__ import annotations

from base64 import b64decode


def from_base64(text: str) -> bytes:
    """Decode base64, with or without its padding.

    :raise ValueError: when it is none.
    """
    return b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)


def from_adapted_base64(text: str) -> bytes:
    """Decode passlib's base64, which has a dot for each plus sign and no padding.

    :raise ValueError: when it is none.
    """
    return from_base64(text.replace(".", "+"))


def from_hex(text: str) -> bytes:
    """Decode hexadecimal digits.

    :raise ValueError: when it is none.
    """
    if not text.isalnum():  # fromhex() skips spaces
        raise ValueError("not hexadecimal")
    return bytes.fromhex(text)
