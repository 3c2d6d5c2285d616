"""What Synapse's rows show of tokens, and of a session's generations in rotation's terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from synapse_login_module.model import Link, Session


class EndedToken(NamedTuple):
    """An access token that has ended, and its device if it had one."""

    row_id: int
    token: str
    device_id: str | None


@dataclass(frozen=True, slots=True)
class AccessRow:
    """A row of ``access_tokens``."""

    row_id: int
    token: str
    expires_at: int | None
    used: bool
    issued_at: int


@dataclass(frozen=True, slots=True)
class Generation:
    """A row of ``refresh_tokens`` with its access token; one generation of a session."""

    row_id: int
    token: str
    expires_at: int | None
    access: AccessRow | None


@dataclass(frozen=True, slots=True)
class TokenChain:
    """A presented refresh token, and what came after it.

    :param next: the generation after the presented one, if there is one.
    :param older: whether there are more after that.
    :param ends_at: when the session ends, whatever happens.
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
    """A chain in rotation's terms, and the presented generation in them."""
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
    """Whether a chain can be refreshed no more."""
    latest = chain.next or chain.presented
    ends_at = earliest(latest.expires_at, chain.ends_at)
    return ends_at is not None and ends_at <= now


def is_over(access: AccessRow, now: int) -> bool:
    """Whether an access token has expired."""
    return access.expires_at is not None and access.expires_at <= now


def after(now: int, lifetime: int | None) -> int | None:
    """The end of a lifetime that begins now; ``None`` is for ever."""
    return None if lifetime is None else now + lifetime


def earliest(*moments: int | None) -> int | None:
    """The first of some moments; ``None`` is never."""
    return min((moment for moment in moments if moment is not None), default=None)
