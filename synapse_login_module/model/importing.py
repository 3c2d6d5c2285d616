"""Sessions that are taken over from a homeserver."""

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
