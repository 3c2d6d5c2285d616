"""Accounts and sessions that are taken over from a homeserver."""

from __future__ import annotations

import enum
from typing import NamedTuple


class ImportedSession(NamedTuple):
    """A session of a homeserver, with the tokens that its client has.

    :param known_at: when the client was last known to have it, in milliseconds since the epoch.
    :param access_expires_at: when its access tokens expire, in milliseconds since the epoch.
    :param access_tokens: the SHA-256 digest of each access token, 32 bytes.
    :param refresh_tokens: the SHA-256 digest of each refresh token that can still be used.
    """

    user_id: str
    device_id: str
    display_name: str | None
    known_at: int
    access_expires_at: int | None
    access_tokens: frozenset[bytes]
    refresh_tokens: frozenset[bytes] = frozenset()

    @property
    def tokens(self) -> frozenset[bytes]:
        """The digests of all tokens."""
        return self.access_tokens | self.refresh_tokens


class ImportOutcome(enum.Enum):
    """What taking over a session came to."""

    TAKEN = "taken"
    """The session was not here, and is now."""
    RENEWED = "renewed"
    """It was taken over before and has not been refreshed here. It has the present tokens now."""
    KNOWN = "known"
    """It was taken over before. Nothing has changed."""
    IN_USE = "in use"
    """Its device has a session that began here, or that is refreshed here. That one stays."""
    ENDED = "ended"
    """It was taken over before and has ended here since. It stays so."""


class HomeserverUser(NamedTuple):
    """An account of a homeserver that checked passwords itself.

    :param problem: why it is no ordinary account, as words after "its account is"; ``None`` if it
        is one. A deactivated account may be ordinary.
    :param password_hash: its bcrypt hash, or ``None`` when it has no password.
    :param has_sso_id: whether it was logged in to by single sign-on.
    :param phones: telephone numbers, as MSISDN.
    """

    user_id: str
    problem: str | None = None
    password_hash: str | None = None
    has_sso_id: bool = False
    is_admin: bool = False
    is_deactivated: bool = False
    is_locked: bool = False
    display_name: str | None = None
    emails: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"HomeserverUser({self.user_id!r})"


class HomeserverDevice(NamedTuple):
    """The tokens of one device of a homeserver, or why they are not taken over.

    :param session: ``None`` when there is a problem.
    :param tokens: how many access tokens the device has.
    """

    user_id: str
    device_id: str
    session: ImportedSession | None
    problem: str | None
    tokens: int


class DevicelessTokens(NamedTuple):
    """The access tokens of a user that are of no device.

    :param puppets: how many of them act as another user.
    """

    user_id: str
    tokens: int
    puppets: int
