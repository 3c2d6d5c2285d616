"""Names: those a client gives, as a backend is asked for them, and those a backend answers with."""

from __future__ import annotations

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
"""What a template or a statement for each kind of identifier may name."""

_MAX_SUBJECT = 512
_ID = "id:"


class Named(NamedTuple):
    """The name of an account, and the user ID that it makes.

    :param name: as the backend spells it: a full user ID, or the bare name that it has there.
    :param user_id: the full user ID: the backend's own as it stands, or one made from the name.
        ``None`` when the name makes none.
    """

    name: str
    user_id: str | None

    def spelled(self, server_name: str) -> str:
        """The name as a full user ID, spelled as the backend spells it."""
        return self.name if self.name.startswith("@") else str(UserId(self.name, server_name))

    def require_user_id(self, log: Logger, provider: str) -> str:
        """The user ID, for an account whose password was right.

        :param provider: the name of the provider that knows the account.
        :raise InvalidCredentials: when the name makes no user ID; the log says so.
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
    """What a client named the user by."""
    if isinstance(identifier, EmailIdentifier):
        return "email"
    return "phone" if isinstance(identifier, PhoneIdentifier) else "user"


def names_of(identifier: Identifier, server_name: str) -> Mapping[str, str] | None:
    """The values of :data:`NAMES`, or ``None`` when nobody of this server can be meant."""
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
    r"""Take a domain off a name that is typed as Windows writes it, ``DOMAIN\alice``.

    :param domain: the one whose users are asked for; in whatever case it is typed.
    :return: the user's name alone. What names another domain stays, and is nobody's.
    """
    if domain is None or not isinstance(identifier, UserIdentifier):
        return identifier
    typed, backslash, name = identifier.user_id.localpart.partition("\\")
    if not backslash or fold(typed) != fold(domain):
        return identifier
    return replace(identifier, user_id=identifier.user_id._replace(localpart=name))


def names_of_subject(subject: str, server_name: str) -> Mapping[str, str] | None:
    """The values of :data:`NAMES` for an account that is known by its name, and ``subject``.

    :param subject: a full user ID, or a bare name.
    :return: ``None`` when nobody of this server can be meant.
    """
    user_id = own_user_id(subject, server_name)
    if user_id is None:
        return None
    localpart = UserId.parse(user_id, server_name).localpart
    return {"user_id": user_id, "localpart": localpart, "subject": subject}


def own_user_id(given: object, server_name: str) -> str | None:
    """The full user ID that is meant, or ``None`` when it can be none of ours.

    :param given: a full user ID or a bare local part; anything else is no user ID.
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
    """Read the name that a backend gives to an account.

    :param given: a full user ID, which stays as it is, or a bare name, which one is made from.
    :return: ``None`` when it is no name, or a user ID of another server.
    """
    if not isinstance(given, str) or not given or not given.isprintable():
        return None
    if given.startswith("@"):
        user_id = own_user_id(given, server_name)
        return None if user_id is None else Named(user_id, user_id)
    return Named(given, user_id_from(given, server_name))


def user_id_from(name: str, server_name: str) -> str | None:
    """Make a full user ID from a bare name, or ``None`` when it makes none."""
    localpart = localpart_from(name)
    return None if localpart is None else own_user_id(localpart, server_name)


def named_as_typed(typed: str, server_name: str) -> Named:
    """Take the name that the client gave: where a backend does not say which account it was.

    :param typed: the local part; its ASCII letters are put in lower case.
    """
    return Named(fold(typed), user_id_from(typed, server_name))


def subject_of(given: object) -> str | None:
    """Read an account's id in its backend; ``None`` when it is none that can be kept.

    :param given: text, a whole number or a UUID. What begins like a user ID is a name, and no id.
    """
    if isinstance(given, UUID) or (isinstance(given, int) and not isinstance(given, bool)):
        return str(given)
    if not isinstance(given, str) or not 0 < len(given) <= _MAX_SUBJECT:
        return None
    return given if given.isprintable() and not given.startswith("@") else None


def tagged_id(given: object) -> str | None:
    """Make a subject of an account's id in its backend; ``None`` when it can be none.

    The tag tells it from every name: a name that makes a user ID has no colon, and a full user ID
    begins with "@". Else an account whose name is another's id would be the other's.

    :param given: what :func:`subject_of` takes.
    """
    text = subject_of(given)
    return None if text is None else subject_of(_ID + text)


def id_in(subject: str) -> str | None:
    """The id that :func:`tagged_id` made a subject of, or ``None`` for a subject that is a name."""
    return subject[len(_ID) :] or None if subject.startswith(_ID) else None


def unchecked_status(subject: str, server_name: str) -> AccountStatus | None:
    """What a backend says of an account that it cannot look at without a password."""
    if subject.startswith("@"):
        known = own_user_id(subject, server_name) is not None
    else:
        known = subject_of(subject) is not None
    return AccountStatus.UNVERIFIABLE if known else None


def is_name(text: str) -> bool:
    """Whether it is text that can be a name: not empty, without odd characters and without spaces,
    which some backends pass over.
    """
    return bool(text) and text.isprintable() and " " not in text
