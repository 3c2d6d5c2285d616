"""What a piece of work can read from a remote database, and what it can write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synapse_login_module.model import Claim, Link, Session, TokenKey
from synapse_login_module.stores.rows import LoginTokenRow


@dataclass(frozen=True, slots=True)
class SessionKey:
    """One session, by its number."""

    session_id: int


@dataclass(frozen=True, slots=True)
class UserKey:
    """The sessions of a user."""

    user_id: str


@dataclass(frozen=True, slots=True)
class PageKey:
    """The next sessions after a number, of a user or of all users, at most so many."""

    user_id: str | None
    after: int
    most: int


@dataclass(frozen=True, slots=True)
class LoginTokenKey:
    """One login token, by its number."""

    token_id: int


@dataclass(frozen=True, slots=True)
class OwnerKey:
    """One session, and the link of its user, by the number of the session."""

    session_id: int


@dataclass(frozen=True, slots=True)
class LinksKey:
    """The link of a user ID, and the links of a claim; all links if neither is given."""

    user_id: str | None = None
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class NewSessionKey:
    """The session, if any, that already has the number drawn for a new session."""

    session_id: int


@dataclass(frozen=True, slots=True)
class TokenKeysKey:
    """The keys that tokens are or were derived under."""


@dataclass(frozen=True, slots=True)
class ReservationKey:
    """Whether a device is reserved for a session that is about to begin."""

    user_id: str
    device_id: str


Key = (
    SessionKey
    | UserKey
    | PageKey
    | LoginTokenKey
    | OwnerKey
    | LinksKey
    | NewSessionKey
    | TokenKeysKey
    | ReservationKey
)
"""What work can read."""


@dataclass(frozen=True, slots=True)
class CompareAndSwap:
    """Write ``new`` if the row is still ``old``."""

    old: Session
    new: Session


@dataclass(frozen=True, slots=True)
class Insert:
    """Insert a session, and delete any other session of its user and device.

    :param login_token: the number of a login token to delete. If it does not exist any more,
        nothing is inserted.
    :param link: the link of the session's user. If it does not exist any more, nothing is inserted.
    :param new: whether to insert the link too, unless it exists. If another link conflicts with it,
        nothing is inserted.
    :param reserved: whether the device has to be reserved, which ends its reservation. If it is
        not, nothing is inserted.
    """

    session: Session
    login_token: int | None = None
    link: Link | None = None
    new: bool = False
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete sessions, if they exist.

    :param session_ids: the numbers of the sessions.
    :param user_id: a user whose login tokens are deleted too.
    :param note: when the devices of the sessions are due to be deleted at the homeserver; ``None``
        to note nothing.
    """

    session_ids: tuple[int, ...]
    user_id: str | None = None
    note: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteDevice:
    """Delete the session of a device, if there is one, and note the device.

    :param note: when the device is due to be deleted at the homeserver.
    """

    user_id: str
    device_id: str
    note: int


@dataclass(frozen=True, slots=True)
class InsertLoginToken:
    """Insert a login token, and delete all expired ones.

    :param now: milliseconds since the epoch.
    """

    row: LoginTokenRow
    now: int


@dataclass(frozen=True, slots=True)
class DeleteLoginToken:
    """Delete a login token, which has to exist still."""

    token_id: int


@dataclass(frozen=True, slots=True)
class InsertLink:
    """Delete other links, then insert a link, unless another one conflicts with it."""

    link: Link
    linked_at: int
    instead_of: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Delete a link, which has to exist still, and the login tokens of its user."""

    link: Link


@dataclass(frozen=True, slots=True)
class InsertKeys:
    """Insert the keys whose ids do not exist yet."""

    keys: tuple[TokenKey, ...]


@dataclass(frozen=True, slots=True)
class RetireKey:
    """Mark a key as retired, if it exists."""

    key_id: int


Write = (
    CompareAndSwap
    | Insert
    | Delete
    | DeleteDevice
    | InsertLoginToken
    | DeleteLoginToken
    | InsertLink
    | DeleteLink
    | InsertKeys
    | RetireKey
)
"""What work can write."""

Found = dict[Key, Any]
"""What was fetched: by key, the row, the rows, or ``None`` for a row that does not exist."""
