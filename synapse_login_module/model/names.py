"""Identifiers of users: user IDs, e-mail addresses and telephone numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple

MAX_USER_ID = 255
"""The longest user ID, in bytes (Matrix specification, Appendices, "User Identifiers")."""

_TO_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")


def fold(name: str) -> str:
    """Convert the ASCII letters of a name to lower case, and nothing else.

    ``str.lower`` would convert the Kelvin sign to ``k``, and so merge two accounts.
    """
    return name.translate(_TO_LOWER)


def localpart_from(name: str) -> str | None:
    """Convert a name to the local part of a user ID.

    Source: Matrix specification, Appendices, "User Identifiers".

    :return: ``None`` when the result is not a valid local part.
    """
    folded = fold(name)
    return folded if _LOCALPART.fullmatch(folded) else None


def canonical_email(address: str) -> str | None:
    """Convert an e-mail address to the form in which addresses are compared, as Synapse does.

    The part before the "@" is case-folded, the part after it converted to lower case. Nothing else
    is changed, so that this service and the homeserver store the same text. Source: MSC2265.

    :return: ``None`` when it is not an e-mail address: it needs exactly one "@", and text before
        it. This rejects "@alice:example.com", which users of some directories can enter as their
        own address. Logins by that address would be counted as logins by the other user's ID, and
        would make networks known for that user.
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
        """Parse a full user ID or a bare local part.

        :param text: ``@alice:example.com`` or ``alice``.
        :param default_server: the server name for a bare local part.
        """
        if not text.startswith("@"):
            return cls(text, default_server)
        localpart, _, server = text[1:].partition(":")
        return cls(localpart, server)

    def __str__(self) -> str:
        return f"@{self.localpart}:{self.server_name}"


@dataclass(frozen=True, slots=True)
class UserIdentifier:
    """A user identified by user ID (``m.id.user``, or the legacy ``user``).

    :param typed: the text that the client sent: a bare local part, or a user ID.
    """

    user_id: UserId
    typed: str = field(default="", compare=False)

    def __str__(self) -> str:
        return str(self.user_id)


@dataclass(frozen=True, slots=True)
class EmailIdentifier:
    """A user identified by e-mail address (``m.id.thirdparty``).

    :param address: the address in the form of :func:`canonical_email`. Text that is not an address
        stays as the client sent it, and identifies no user.
    """

    address: str

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True, slots=True)
class PhoneIdentifier:
    """A user identified by telephone number (``m.id.phone``).

    :param msisdn: the number in international form, digits only.
    """

    msisdn: str

    def __str__(self) -> str:
        return self.msisdn


Identifier = UserIdentifier | EmailIdentifier | PhoneIdentifier
