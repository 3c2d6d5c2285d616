"""Rows of Synapse's token tables, and a session's generations in the terms of ``rotation.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from synapse_login_module.model import Link, Session


class EndedToken(NamedTuple):
    """An access token that has ended.

    :param row_id: the id of its row.
    :param device_id: its device; ``None`` for a token without one.
    """

    row_id: int
    token: str
    device_id: str | None


@dataclass(frozen=True, slots=True)
class AccessRow:
    """A row of ``access_tokens``. Times are in milliseconds since the epoch.

    :param expires_at: when the token expires; ``None`` for never.
    :param used: whether the token has been used.
    """

    row_id: int
    token: str
    expires_at: int | None
    used: bool
    issued_at: int


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of a session: a row of ``refresh_tokens`` and its access token.

    :param expires_at: when the refresh token expires, in milliseconds since the epoch; ``None`` for
        never.
    :param access: ``None`` when the access token is gone.
    """

    row_id: int
    token: str
    expires_at: int | None
    access: AccessRow | None


@dataclass(frozen=True, slots=True)
class TokenChain:
    """The generation of a presented refresh token, and the generation after it.

    :param next: the generation after the presented one, if there is one.
    :param older: whether the generation after the presented one was refreshed, too.
    :param ends_at: when the session ends at the latest, in milliseconds since the epoch; ``None``
        for never.
    :param link: the link of its user.
    """

    user_id: str
    device_id: str
    presented: Generation
    next: Generation | None
    older: bool
    ends_at: int | None
    link: Link | None = None


def as_session(chain: TokenChain) -> tuple[Session, int]:
    """Return a chain as the session and the presented generation that ``rotation.py`` takes."""
    latest = chain.next or chain.presented
    access = latest.access
    generation = 0 if chain.next is None else (2 if chain.older else 1)
    session = Session(
        session_id=0,
        user_id=chain.user_id,
        device_id=chain.device_id,
        display_name=None,
        salt=b"",
        key_id=0,
        generation=generation,
        confirmed=access is None or access.used,
        created_at=0,
        issued_at=0 if access is None else access.issued_at,
        access_expires_at=None,
        previous_expires_at=None,
    )
    return session, 0


def is_expired(chain: TokenChain, now: int) -> bool:
    """Say whether a session can no longer be refreshed, since its last refresh token or the session
    itself has expired.
    """
    latest = chain.next or chain.presented
    ends_at = earliest(latest.expires_at, chain.ends_at)
    return ends_at is not None and ends_at <= now


def is_over(access: AccessRow, now: int) -> bool:
    """Say whether an access token has expired."""
    return access.expires_at is not None and access.expires_at <= now


def after(now: int, lifetime: int | None) -> int | None:
    """Return the end of a lifetime that begins now; ``None`` is unlimited."""
    return None if lifetime is None else now + lifetime


def earliest(*moments: int | None) -> int | None:
    """Return the earliest of some times; ``None`` is never."""
    return min((moment for moment in moments if moment is not None), default=None)
