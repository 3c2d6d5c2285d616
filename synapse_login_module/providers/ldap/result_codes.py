"""The result codes of RFC 4511, appendix A, and what they mean as the result of a user's bind."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

SUCCESS = 0
SIZE_LIMIT_EXCEEDED = 4
CONSTRAINT_VIOLATION = 19
NO_SUCH_OBJECT = 32
INVALID_DN_SYNTAX = 34
INAPPROPRIATE_AUTHENTICATION = 48
INVALID_CREDENTIALS = 49
INSUFFICIENT_ACCESS_RIGHTS = 50
BUSY = 51
UNAVAILABLE = 52
UNWILLING_TO_PERFORM = 53


class Bind(Enum):
    """The meaning of the result of a user's bind."""

    ACCEPTED = auto()
    """The password is right."""

    REFUSED = auto()
    """The user may not log in with this password: a 403, whatever the reason."""

    FAILED = auto()
    """The server did not decide: a 503."""

    ELSEWHERE = auto()
    """The server cannot decide at the moment: the next one is asked."""


_BINDS: Mapping[int, Bind] = {
    SUCCESS: Bind.ACCEPTED,
    # 389 Directory Server: too many wrong passwords.
    CONSTRAINT_VIOLATION: Bind.REFUSED,
    NO_SUCH_OBJECT: Bind.REFUSED,
    # These two are about the name of the bind, which the directory decides on.
    INVALID_DN_SYNTAX: Bind.REFUSED,
    INAPPROPRIATE_AUTHENTICATION: Bind.REFUSED,
    INVALID_CREDENTIALS: Bind.REFUSED,
    INSUFFICIENT_ACCESS_RIGHTS: Bind.REFUSED,
    # 389 Directory Server: the account is inactivated.
    UNWILLING_TO_PERFORM: Bind.REFUSED,
    BUSY: Bind.ELSEWHERE,
    UNAVAILABLE: Bind.ELSEWHERE,
}
"""Every other code is about the server or the way of the request, and is a failure:
operationsError, protocolError, authMethodNotSupported, strongerAuthRequired, referral,
confidentialityRequired…
"""


def meaning_of_bind(code: int) -> Bind:
    """Return the meaning of a bind's result code; an unknown code is a failure."""
    return _BINDS.get(code, Bind.FAILED)
