"""What a directory says about a password beside the result of a bind.

OpenLDAP and others answer the control of draft-behera-ldap-password-policy, section 6, if they are
asked for it. 389 Directory Server sends the older control of draft-vchu-ldap-pwd-policy as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from ldaptor.protocols import pureber  # type: ignore[import-untyped]

POLICY = b"1.3.6.1.4.1.42.2.27.8.5.1"
_EXPIRED = b"2.16.840.1.113730.3.4.4"

_SEQUENCE = 0x30
_ERROR = 0x81


class PolicyError(Enum):
    """The errors of the control that matter here, by their numbers."""

    EXPIRED = 0
    """The password is right, and has expired."""

    LOCKED = 1
    """The account is locked. That is said without a look at the password."""

    MUST_CHANGE = 2
    """The password is right, and must be changed. Nothing else is allowed."""


def policy_error(controls: Any, is_accepted: bool) -> PolicyError | None:
    """Return the error that the controls of the response to a bind name.

    :param controls: what ldaptor decoded; ``None`` for no controls.
    :param is_accepted: whether the bind succeeded.
    :raise ValueError: when a control is not well-formed.
    """
    values = {kind: value for kind, _, value in controls or ()}
    if POLICY in values:
        return _read(values[POLICY] or b"")
    if _EXPIRED in values:
        return PolicyError.MUST_CHANGE if is_accepted else PolicyError.EXPIRED
    return None


def _read(value: bytes) -> PolicyError | None:
    if not value:
        return None
    for tag, content in _elements(dict(_elements(value)).get(_SEQUENCE, b"")):
        if tag == _ERROR:
            number = int.from_bytes(content, "big")
            return next((each for each in PolicyError if each.value == number), None)
    return None


def _elements(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element."""
    while encoded:
        try:
            length, size = pureber.berDecodeLength(encoded, offset=1)
        except pureber.BERExceptionInsufficientData:
            raise ValueError("not a control") from None
        end = 1 + size + length
        if len(encoded) < end:
            raise ValueError("not a control")
        yield encoded[0], encoded[1 + size : end]
        encoded = encoded[end:]
