"""How users are named: user IDs, e-mail addresses and telephone numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple

MAX_USER_ID = 255
"""How long a user ID may be (Matrix specification, Appendices, "User Identifiers")."""

_TO_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")


def fold(name: str) -> str:
    """Put a name's ASCII letters in lower case, and leave all else as it is.

    ``str.lower`` would make ``k`` of the Kelvin sign, and so one account of two.
    """
    return name.translate(_TO_LOWER)


def localpart_from(name: str) -> str | None:
    """Make the local part of a user ID from a name, or ``None`` when it makes no valid one.

    Source: Matrix specification, Appendices, "User Identifiers".
    """
    folded = fold(name)
    return folded if _LOCALPART.fullmatch(folded) else None


def canonical_email(address: str) -> str | None:
    """Put an e-mail address in the form that addresses are compared in, which is Synapse's.

    Before the "@" case is folded, after it letters are put in lower case; no more is done, so
    that what is stored here and at the homeserver is the same text. Source: MSC2265.

    :return: ``None`` when it is no e-mail address, which has one "@", and something before that.
        Else "@alice:example.com" were one, which users may give as their own in some directories.
        Logins by it would count, and make networks known, as those of another's user ID.
    """
    local, at, domain = address.strip().partition("@")
    if not local or not at or "@" in domain:
        return None
    return f"{local.casefold()}@{domain.lower()}"


class UserId(NamedTuple):
    """A Matrix user identifier, ``@localpart:server_name``.

    Source: Matrix specification, Appendices, "User Identifiers".
    """

    localpart: str
    server_name: str

    @classmethod
    def parse(cls, text: str, default_server: str) -> UserId:
        """Read a full user ID, or a bare local part of ``default_server``.

        :param text: ``@alice:example.com`` or ``alice``.
        :param default_server: the server that a bare local part belongs to.
        """
        if not text.startswith("@"):
            return cls(text, default_server)
        localpart, _, server = text[1:].partition(":")
        return cls(localpart, server)

    def __str__(self) -> str:
        return f"@{self.localpart}:{self.server_name}"


@dataclass(frozen=True, slots=True)
class UserIdentifier:
    """The user named by their user ID (``m.id.user``, or the legacy ``user``).

    :param typed: the name as the client sent it: a bare local part, or a user ID.
    """

    user_id: UserId
    typed: str = field(default="", compare=False)

    def __str__(self) -> str:
        return str(self.user_id)


@dataclass(frozen=True, slots=True)
class EmailIdentifier:
    """The user named by an e-mail address, as ``canonical_email`` makes it (``m.id.thirdparty``).

    One that is no address stays as it is, and is nobody's.
    """

    address: str

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True, slots=True)
class PhoneIdentifier:
    """The user named by a telephone number: an MSISDN, digits alone (``m.id.phone``)."""

    msisdn: str

    def __str__(self) -> str:
        return self.msisdn


Identifier = UserIdentifier | EmailIdentifier | PhoneIdentifier
