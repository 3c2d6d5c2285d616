"""Sessions, their tokens, and the lifetimes of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from synapse_login_module.model.accounts import Link


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """The lifetimes of tokens and sessions, in milliseconds; ``None`` is "for ever".

    :param refreshable_access_token: lifetime of an access token of a client that refreshes.
    :param nonrefreshable_access_token: lifetime of an access token of a client that does not
        refresh.
    :param refresh_token: the longest time between two refreshes of a session (idle lifetime).
    :param session: the longest time from a session's login to its end (absolute lifetime).
    :param login_token: lifetime of a login token.
    :param reuse_interval: the time after a rotation within which the previous refresh token counts
        as the loser of a race, and not as reused.
    :param keep_ended: the time that the row of a session stays after the session is over. While it
        is there, its client is told to keep its encryption keys (``soft_logout``).
    """

    refreshable_access_token: int | None = 5 * 60_000
    nonrefreshable_access_token: int | None = None
    refresh_token: int | None = None
    session: int | None = None
    login_token: int = 2 * 60_000
    reuse_interval: int = 10_000
    keep_ended: int | None = 30 * 24 * 60 * 60_000


class Session(NamedTuple):
    """One login: a user on a device. This is everything that a store keeps of it.

    :param session_id: a positive 63-bit number, the store's primary key.
    :param salt: 16 random bytes. Deriving this session's tokens takes both the salt and the key.
    :param key_id: the key under which the pair of ``generation`` was derived.
    :param generation: 0 at login, one more with each refresh.
    :param confirmed: whether the client has shown that it has the pair of ``generation``.
    :param created_at: the time of the login.
    :param issued_at: the time at which the pair of ``generation`` was last handed out.
    :param access_expires_at: when the access token of ``generation`` expires.
    :param previous_expires_at: when the access token of ``generation - 1`` expires. It has no
        meaning once the session is confirmed.
    """

    session_id: int
    user_id: str
    device_id: str
    display_name: str | None
    salt: bytes
    key_id: int
    generation: int
    confirmed: bool
    created_at: int
    issued_at: int
    access_expires_at: int | None
    previous_expires_at: int | None

    def __repr__(self) -> str:
        return f"Session(session_id={self.session_id}, user_id={self.user_id!r})"


class TokenKey(NamedTuple):
    """What a store knows of a key that its tokens are or were derived under.

    :param fingerprint: text that differs between two keys of one id, and does not reveal the key.
    :param retired: whether the tokens made under the key are no longer valid.
    """

    key_id: int
    fingerprint: str
    retired: bool = False


class Pruned(NamedTuple):
    """The result of one batch of pruning.

    :param sessions: the number of deleted session rows.
    :param login_tokens: the number of deleted login tokens.
    :param after: where the next batch begins; ``None`` after the last batch.
    :param imported_tokens: the number of deleted digests of imported tokens, which can no longer be
        used.
    """

    sessions: int
    login_tokens: int
    after: int | None
    imported_tokens: int = 0


class EndedBatch(NamedTuple):
    """The result of ending one batch of sessions.

    :param sessions: the number of sessions that this ended.
    :param after: where the next batch begins; ``None`` after the last batch.
    """

    sessions: int
    after: int | None


class SessionCounts(NamedTuple):
    """How many sessions a store has.

    :param living: the sessions that are not over.
    :param removable: the sessions that pruning would remove now.
    """

    living: int
    removable: int


class SessionInfo(NamedTuple):
    """A session as the rest of the service sees it.

    :param handle: the store's identifier of the session, opaque outside the store.
    :param link: the link of the session's user, or ``None``. Only ``ITokenStore.present`` sets it.
    :param access_expires_at: when the access token that was presented expires. Only
        ``ITokenStore.session_for_access_token`` sets it.
    """

    handle: int | str
    user_id: str
    device_id: str
    display_name: str | None = None
    created_at: int | None = None
    issued_at: int | None = None
    link: Link | None = None
    access_expires_at: int | None = None


class SeenSession(NamedTuple):
    """A session, with what the homeserver knows of its device.

    :param last_seen_at: when the device was last used.
    :param last_seen_ip: the client address that it was last used from.
    """

    session: SessionInfo
    last_seen_at: int | None = None
    last_seen_ip: str | None = None


class PresentedToken(NamedTuple):
    """A refresh token that a store has found authentic.

    :param session: the session of the token.
    :param checked: data for the store's ``refresh``, opaque outside the store.
    """

    session: SessionInfo
    checked: Any

    def __repr__(self) -> str:
        return f"PresentedToken({self.session!r})"


class TokenPair(NamedTuple):
    """The access and the refresh token of one generation.

    :param refresh_token: ``None`` when the login was made without one.
    :param expires_in_ms: the remaining lifetime of the access token; ``None`` when it does not
        expire.
    """

    access_token: str
    refresh_token: str | None
    expires_in_ms: int | None

    def __repr__(self) -> str:
        return f"TokenPair(expires_in_ms={self.expires_in_ms})"


@dataclass(frozen=True, slots=True)
class Login:
    """The session that a login began."""

    user_id: str
    device_id: str
    tokens: TokenPair


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A single-use token for ``m.login.token``."""

    token: str = field(repr=False)
    expires_in_ms: int
