"""Accounts and devices at a homeserver that delegates authentication to this server."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, NamedTuple

APPLICATION_SERVICE = "application_service"
"""The provider's name in the links of users that no password provider knows, and that an
application service logs in as. No password provider may have it."""

MAX_HOMESERVER_DEVICE_ID = 255
"""The longest device ID, in characters, at a homeserver that delegates authentication. Synapse
makes a device of a longer one, and then accepts none of its tokens."""

LockedAccounts = Literal["keep", "end"]


class HomeserverAccount(NamedTuple):
    """An account as the homeserver has it.

    :param display_name: ``None`` when it has none.
    """

    user_id: str
    display_name: str | None = None
    is_deactivated: bool = False


class NameStatus(enum.Enum):
    """Whether an account of a name can be made at the homeserver."""

    FREE = "free"
    IN_USE = "in use"
    RESERVED = "reserved"
    """It is in an exclusive namespace of an application service, or is reserved otherwise."""
    INVALID = "invalid"


class DeviceDeletion(NamedTuple):
    """A device that is to be deleted at the homeserver, leased by one server.

    :param attempts: how often its deletion was attempted, this time included.
    :param lease: identifies the lease, opaque outside the store.
    """

    user_id: str
    device_id: str
    attempts: int
    lease: int


class OwedDeletions(NamedTuple):
    """The devices that are still to be deleted at the homeserver.

    :param number: how many are due.
    :param oldest: since when the first of them has been due, in milliseconds since the epoch;
        ``None`` when none is due.
    """

    number: int
    oldest: int | None


@dataclass(frozen=True, slots=True)
class HomeserverPolicy:
    """What the server does for a homeserver, whichever kind of homeserver that is.

    :param register_users: whether the first login of an account makes its Matrix account.
    :param sync_profile: whether a login carries over the display name.
    :param admins: the user IDs whose tokens administer the homeserver.
    :param locked_accounts: whether the tokens of a locked account are kept, and its client told to
        try again later, or are inactive.
    :param device_grace: the time for which the devices of an account that is gone are kept, in
        milliseconds. Deleting a device deletes its encryption keys.
    """

    register_users: bool = True
    sync_profile: bool = False
    admins: frozenset[str] = frozenset()
    locked_accounts: LockedAccounts = "keep"
    device_grace: int = 24 * 60 * 60_000
