"""Names: those a client gives, as a backend is asked for them, and those a backend answers with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from synapse_login_module.model import (
    MAX_USER_ID,
    AccountStatus,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
)

Kind = Literal["user", "email", "phone"]

NAMES: Mapping[Kind, tuple[str, ...]] = {
    "user": ("user_id", "localpart"),
    "email": ("email",),
    "phone": ("phone",),
}
"""What a template or a statement for each kind of identifier may name."""


def kind_of(identifier: Identifier) -> Kind:
    """What a client named the user by."""
    if isinstance(identifier, EmailIdentifier):
        return "email"
    return "phone" if isinstance(identifier, PhoneIdentifier) else "user"


def names_of(identifier: Identifier, server_name: str) -> Mapping[str, str] | None:
    """The values of :data:`NAMES`, or ``None`` when nobody of this server can be meant."""
    if isinstance(identifier, EmailIdentifier):
        return {"email": identifier.address} if _is_name(identifier.address) else None
    if isinstance(identifier, PhoneIdentifier):
        return {"phone": identifier.msisdn} if _is_name(identifier.msisdn) else None
    user_id = own_user_id(str(identifier.user_id), server_name)
    if user_id is None:
        return None
    return {"user_id": user_id, "localpart": identifier.user_id.localpart}


def own_user_id(given: object, server_name: str) -> str | None:
    """The full user ID that a backend's answer means, or ``None`` when it can be none of ours.

    :param given: a full user ID or a bare local part; anything else is no user ID.
    """
    if not isinstance(given, str):
        return None
    user_id = UserId.parse(given, server_name)
    if user_id.server_name != server_name or not _is_name(user_id.localpart):
        return None
    if set(user_id.localpart) & set(":@") or len(str(user_id).encode("utf-8")) > MAX_USER_ID:
        return None
    return str(user_id)


def unchecked_status(user_id: str, server_name: str) -> AccountStatus | None:
    """What a backend says of an account that it cannot look at without a password."""
    known = own_user_id(user_id, server_name) == user_id
    return AccountStatus.UNCHECKED if known else None


def _is_name(text: str) -> bool:
    """Whether it is text that can be a name: not empty, without odd characters and without spaces,
    which some backends pass over.
    """
    return bool(text) and text.isprintable() and " " not in text
