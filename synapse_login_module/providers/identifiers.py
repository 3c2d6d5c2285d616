"""The names of accounts: those that clients send, and those that backends return."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple
from uuid import UUID

from twisted.logger import Logger

from synapse_login_module.errors import InvalidCredentials
from synapse_login_module.model import (
    MAX_USER_ID,
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
    canonical_email,
    fold,
    localpart_from,
)

Kind = Literal["user", "email", "phone"]

NAMES: Mapping[Kind, tuple[str, ...]] = {
    "user": ("user_id", "localpart"),
    "email": ("email",),
    "phone": ("phone",),
}
"""The placeholders that a template or a statement may use, by the kind of identifier."""

_MAX_SUBJECT = 512
_ID = "id:"
_PRINTED_GUID = re.compile(
    r"objectGUID:\{?([0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})\}?", re.ASCII | re.IGNORECASE
)


class Named(NamedTuple):
    """The name of an account, and the user ID made from it.

    :param name: the name as the backend spells it: a full user ID or a bare name.
    :param user_id: the full user ID: the backend's own, unchanged, or one made from the bare name.
        ``None`` when the name cannot make one.
    """

    name: str
    user_id: str | None

    def spelled(self, server_name: str) -> str:
        """Return the name as a full user ID, spelled as the backend spells it."""
        return self.name if self.name.startswith("@") else str(UserId(self.name, server_name))

    def require_user_id(self, log: Logger, provider: str) -> str:
        """Return the user ID of an account whose password was right.

        :param log: gets a warning when the name makes no user ID.
        :param provider: the name of the account's provider, for the log.
        :raise InvalidCredentials: when the name makes no user ID.
        """
        if self.user_id is None:
            log.warn(
                "{provider}: {account!r} cannot log in: its name makes no user ID",
                provider=provider,
                account=self.name,
            )
            raise InvalidCredentials("bad_user_id")
        return self.user_id


def kind_of(identifier: Identifier) -> Kind:
    """Return the kind of an identifier."""
    if isinstance(identifier, EmailIdentifier):
        return "email"
    return "phone" if isinstance(identifier, PhoneIdentifier) else "user"


def names_of(identifier: Identifier, server_name: str) -> Mapping[str, str] | None:
    """Return the values of :data:`NAMES`; ``None`` when the identifier cannot be a user of this
    server.
    """
    if isinstance(identifier, EmailIdentifier):
        address = canonical_email(identifier.address)
        return {"email": address} if address is not None and is_name(address) else None
    if isinstance(identifier, PhoneIdentifier):
        return {"phone": identifier.msisdn} if is_name(identifier.msisdn) else None
    user_id = own_user_id(str(identifier.user_id), server_name)
    if user_id is None:
        return None
    return {"user_id": user_id, "localpart": identifier.user_id.localpart}


def without_domain(identifier: Identifier, domain: str | None) -> Identifier:
    r"""Remove the domain from a name that is typed as in Windows, ``DOMAIN\alice``.

    :param domain: the domain of the users, compared without regard to case; ``None`` for none.
    :return: the identifier with the user's name alone. A name with another domain is unchanged, and
        no account has it.
    """
    if domain is None or not isinstance(identifier, UserIdentifier):
        return identifier
    typed, backslash, name = identifier.user_id.localpart.partition("\\")
    if not backslash or fold(typed) != fold(domain):
        return identifier
    return replace(identifier, user_id=identifier.user_id._replace(localpart=name))


def names_of_subject(subject: str, server_name: str) -> Mapping[str, str] | None:
    """Return the values of :data:`NAMES`, and ``subject``, for a subject that is a name.

    :param subject: a full user ID, or a bare name.
    :return: ``None`` when it cannot be a user of this server.
    """
    user_id = own_user_id(subject, server_name)
    if user_id is None:
        return None
    localpart = UserId.parse(user_id, server_name).localpart
    return {"user_id": user_id, "localpart": localpart, "subject": subject}


def own_user_id(given: object, server_name: str) -> str | None:
    """Return the full user ID of a name; ``None`` when it cannot be a user of this server.

    :param given: a full user ID or a bare local part; for any other value the result is ``None``.
    """
    if not isinstance(given, str):
        return None
    user_id = UserId.parse(given, server_name)
    if user_id.server_name != server_name or not is_name(user_id.localpart):
        return None
    if set(user_id.localpart) & set(":@") or len(str(user_id).encode("utf-8")) > MAX_USER_ID:
        return None
    return str(user_id)


def named(given: object, server_name: str) -> Named | None:
    """Read the name that a backend returned for an account.

    :param given: a full user ID, which is kept unchanged, or a bare name, from which a user ID is
        made.
    :return: ``None`` when it is not a name, or is a user ID of another server.
    """
    if not isinstance(given, str) or not given or not given.isprintable():
        return None
    if given.startswith("@"):
        user_id = own_user_id(given, server_name)
        return None if user_id is None else Named(user_id, user_id)
    return Named(given, user_id_from(given, server_name))


def user_id_from(name: str, server_name: str) -> str | None:
    """Make a full user ID from a bare name; return ``None`` when that is impossible."""
    localpart = localpart_from(name)
    return None if localpart is None else own_user_id(localpart, server_name)


def named_as_typed(typed: str, server_name: str) -> Named:
    """Use the name that the client sent, for a backend that does not return the account's name.

    :param typed: the local part. Its ASCII letters are converted to lower case.
    """
    return Named(fold(typed), user_id_from(typed, server_name))


def subject_of(given: object) -> str | None:
    """Read the id that an account has in its backend; return ``None`` when it cannot be a subject.

    :param given: text, an integer or a UUID. Text that begins with "@" is a name, and not an id.
    """
    if isinstance(given, UUID) or (isinstance(given, int) and not isinstance(given, bool)):
        return str(given)
    if not isinstance(given, str) or not 0 < len(given) <= _MAX_SUBJECT:
        return None
    return given if given.isprintable() and not given.startswith("@") else None


def tagged_id(given: object) -> str | None:
    """Make a subject from the id that an account has in its backend; ``None`` if it cannot be one.

    The subject is the id with a tag before it, which no name has: a bare name that makes a user ID
    has no colon, and a full user ID begins with "@". Without the tag, an account whose name is the
    id of another account would be taken for that one.

    :param given: the id, as in :func:`subject_of`.
    """
    text = subject_of(given)
    return None if text is None else subject_of(with_tag(text))


def with_tag(text: str) -> str:
    """Write an id, which can be a subject, as :func:`tagged_id` does."""
    return _ID + text


def id_in(subject: str) -> str | None:
    """Return the id in a subject of :func:`tagged_id`; ``None`` for a subject that is a name."""
    return subject[len(_ID) :] or None if subject.startswith(_ID) else None


def subject_as_typed(text: str) -> str:
    """Return the subject that an operator means.

    Tools of Active Directory print an ``objectGUID`` as a UUID, with the first three groups the
    other way round. A subject has its octets in hexadecimal.
    """
    match = _PRINTED_GUID.fullmatch(text)
    return f"objectGUID:{UUID(match[1]).bytes_le.hex()}" if match else text


def unchecked_status(subject: str, server_name: str) -> AccountStatus | None:
    """Return the status of an account whose backend cannot look at it without a password.

    :return: :attr:`~synapse_login_module.model.AccountStatus.UNVERIFIABLE`, or ``None`` when the
        subject cannot be an account of this server.
    """
    if subject.startswith("@"):
        known = own_user_id(subject, server_name) is not None
    else:
        known = subject_of(subject) is not None
    return AccountStatus.UNVERIFIABLE if known else None


def is_name(text: str) -> bool:
    """Say whether a text can be a name: not empty, and without unprintable characters or spaces.

    Some backends ignore such characters when they compare names.
    """
    return bool(text) and text.isprintable() and " " not in text
