"""When a session is over: a pure function of its row, the lifetimes and the time.

The row of such a session stays for a while (``tokens.keep_ended``). As long as it is there, its
tokens are told from tokens that never were, and a client learns that its device lives on.
"""

from __future__ import annotations

from typing import NamedTuple

from synapse_login_module.model import Session, TokenPolicy
from synapse_login_module.tokens.format import MAX_GENERATION

ENDED = MAX_GENERATION + 1
"""The generation of a session that was ended, and whose row stays. No token is of it: all tokens of
the session are of earlier ones, and so are superseded. ``issued_at`` is when it ended.
"""

NO_REFRESH_TOKEN = 0
"""What stands for ``previous_expires_at``, which means nothing in generation 0, where the login was
given no refresh token: such a session is over when its access token is.
"""


class Bounds(NamedTuple):
    """What a row has to lie before for its session to have been over at a moment.

    Milliseconds since the epoch; ``None`` where a session never ends that way.

    :param ended: for ``issued_at`` of one that was ended, and for the expiry of its access tokens
        where a session is over when they are.
    :param idle: for ``issued_at``.
    :param absolute: for ``created_at``.
    """

    ended: int
    idle: int | None
    absolute: int | None


def end(session: Session, now: int) -> Session:
    """The row of a session that ends now, though its device lives on."""
    return session._replace(generation=ENDED, confirmed=True, issued_at=now)


def is_ended(session: Session) -> bool:
    """Whether a session was ended, and did not merely run out."""
    return session.generation >= ENDED


def bounds(policy: TokenPolicy, moment: int) -> Bounds:
    """What a row has to lie before for its session to have been over at a moment."""
    return Bounds(
        moment,
        None if policy.refresh_token is None else moment - policy.refresh_token,
        None if policy.session is None else moment - policy.session,
    )


def was_over(session: Session, bounds: Bounds) -> bool:
    """Whether a session was over: ended, too old, or left with no token that is good for anything.

    The stores in databases ask the same in SQL (``stores/over_sql.py``).
    """
    if is_ended(session):
        return session.issued_at <= bounds.ended
    if bounds.absolute is not None and session.created_at <= bounds.absolute:
        return True
    if not has_passed(session.access_expires_at, bounds.ended):
        return False
    if session.generation == 0 and session.previous_expires_at == NO_REFRESH_TOKEN:
        return True
    if bounds.idle is None or session.issued_at > bounds.idle:
        return False
    return session.confirmed or has_passed(session.previous_expires_at, bounds.ended)


def has_passed(expires_at: int | None, moment: int) -> bool:
    """Whether a token had expired at a moment."""
    return expires_at is not None and expires_at <= moment
