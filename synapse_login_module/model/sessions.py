"""Sessions, their tokens, and how long these live."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from synapse_login_module.model.accounts import Link


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """How long what is issued lives. Durations in milliseconds; ``None`` is "for ever".

    :param refreshable_access_token: an access token of a client that refreshes.
    :param nonrefreshable_access_token: an access token of a client that did not ask to.
    :param refresh_token: how long a session may go without a refresh (idle).
    :param session: how long a session may live at all (absolute).
    :param login_token: a login token.
    :param reuse_interval: how long after a rotation the earlier refresh token counts as the loser
        of a race and not as stolen.
    :param keep_ended: how long the row of a session stays once that is over, so that its client
        is told to keep its encryption keys.
    """

    refreshable_access_token: int | None = 5 * 60_000
    nonrefreshable_access_token: int | None = None
    refresh_token: int | None = None
    session: int | None = None
    login_token: int = 2 * 60_000
    reuse_interval: int = 10_000
    keep_ended: int | None = 30 * 24 * 60 * 60_000


class Session(NamedTuple):
    """One login: a user on a device. The whole of what a store keeps of it.

    :param session_id: a positive 63-bit number, the store's primary key.
    :param salt: 16 random bytes; without them no key makes this session's tokens.
    :param key_id: the key under which the pair of ``generation`` was derived.
    :param generation: 0 at login, one more with each refresh.
    :param confirmed: whether the holder has shown that it has the pair of ``generation``.
    :param created_at: the moment of the login.
    :param issued_at: the moment at which the pair of ``generation`` was last handed out.
    :param access_expires_at: when the access token of ``generation`` ends.
    :param previous_expires_at: when the access token of ``generation - 1`` ends; means nothing
        once the session is confirmed.
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
    """A key that tokens of a store are made under, or were, as the store knows it.

    :param fingerprint: tells it from another of that id, and says nothing of the key.
    :param retired: whether the tokens made under it are over.
    """

    key_id: int
    fingerprint: str
    retired: bool = False


class Pruned(NamedTuple):
    """What one batch of pruning has removed.

    :param sessions: so many rows of sessions that had long been over.
    :param login_tokens: so many of login tokens.
    :param after: where the next batch begins; ``None`` when all has been looked at.
    """

    sessions: int
    login_tokens: int
    after: int | None


class SessionInfo(NamedTuple):
    """What the rest of the service may know of a session.

    :param handle: the store's own name for it; opaque to everyone else.
    :param link: the link of its user, or ``None``; only ``present`` sets it.
    """

    handle: int | str
    user_id: str
    device_id: str
    display_name: str | None = None
    created_at: int | None = None
    issued_at: int | None = None
    link: Link | None = None


class PresentedToken(NamedTuple):
    """A refresh token that a store has found authentic.

    :param session: the session that it is of.
    :param checked: what the store keeps of the token for ``refresh``; opaque to everyone else.
    """

    session: SessionInfo
    checked: Any

    def __repr__(self) -> str:
        return f"PresentedToken({self.session!r})"


class TokenPair(NamedTuple):
    """The access and the refresh token of one generation.

    :param refresh_token: ``None`` when the policy gives none.
    :param expires_in_ms: what is left of the access token's life; ``None`` when it does not expire.
    """

    access_token: str
    refresh_token: str | None
    expires_in_ms: int | None

    def __repr__(self) -> str:
        return f"TokenPair(expires_in_ms={self.expires_in_ms})"


@dataclass(frozen=True, slots=True)
class Login:
    """What a login ended in."""

    user_id: str
    device_id: str
    tokens: TokenPair


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A single-use token for ``m.login.token``."""

    token: str = field(repr=False)
    expires_in_ms: int
