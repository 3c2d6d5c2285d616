"""saslauthd's protocol: four counted strings there, one back. A connection carries one question.

A counted string is its length in bytes, as two bytes in network order, and the bytes::

    0        2              2 + length
    +--------+--------------+
    | length | bytes        |
    +--------+--------------+

The question is user, password, service and realm. The answer begins with ``OK`` or with ``NO``, and
a reason may follow.
"""

from __future__ import annotations

import struct
from enum import Enum

_LENGTH = struct.Struct("!H")

MAX_STRING = 256
"""The longest user or password that saslauthd reads, in bytes (``MAX_REQ_LEN`` in its source)."""

_MAX_ANSWER = 1024

_OUTAGES = (
    b"[alert]",
    b"internal error",
    b"internal mechanism failure",
    b"pam start error",
    b"lookup failure",
    b"insufficient permission",
    b"krb5_verify_init_creds failed",
)
"""What is in the reasons that saslauthd's mechanisms give when they cannot check a password."""

_REFUSED_ACCOUNT = b"acct error"
"""What mechanism ``pam`` says of an account that it refuses after the password was right."""


class Verdict(Enum):
    """What saslauthd says about a password."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    REFUSED_ACCOUNT = "the account is refused"
    """The password is right."""


class BadAnswer(Exception):
    """saslauthd answered nothing that decides, for a reason."""


def can_be_asked(text: bytes) -> bool:
    """Say whether saslauthd can be asked about a user or password.

    A NUL byte would end the string early for saslauthd. An empty password is never right.
    """
    return 0 < len(text) <= MAX_STRING and b"\0" not in text


def question(*strings: bytes) -> bytes:
    """Encode user, password, service and realm."""
    return b"".join(_LENGTH.pack(len(each)) + each for each in strings)


def answer_in(received: bytes) -> bytes | None:
    """Return the answer in what was received; ``None`` if it is not complete.

    :raise BadAnswer: when it is longer than any answer.
    """
    if len(received) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(received)
    if length > _MAX_ANSWER:
        raise BadAnswer("the answer is not in saslauthd's protocol")
    text = received[_LENGTH.size : _LENGTH.size + length]
    return text if len(text) == length else None


def verdict_of(answer: bytes) -> Verdict:
    """Read an answer.

    :raise BadAnswer: when saslauthd could not check the password.
    """
    word, rest = answer[:2], answer[2:].rstrip(b"\0")
    if rest[:1] not in (b"", b" ") or word not in (b"OK", b"NO"):
        raise BadAnswer("the answer is not in saslauthd's protocol")
    if word == b"OK":
        return Verdict.ACCEPTED
    reason = rest.strip().lower()
    if _REFUSED_ACCOUNT in reason:
        return Verdict.REFUSED_ACCOUNT
    if any(words in reason for words in _OUTAGES):
        raise BadAnswer(f"saslauthd answered NO {ascii(reason.decode('latin-1'))[1:-1]}")
    return Verdict.REFUSED
