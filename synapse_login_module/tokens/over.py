"""Whether a session is over: a pure function of its row, the lifetimes and the time.

The row of a session that is over stays for a while (``tokens.keep_ended``). As long as it is there,
the session's tokens can be told from tokens that never existed, and its client is told to keep the
device and its encryption keys.
"""

from __future__ import annotations

from typing import NamedTuple

from synapse_login_module.model import Session, TokenPolicy
from synapse_login_module.tokens.format import MAX_GENERATION

ENDED = MAX_GENERATION + 1
"""The generation of a session that was ended and whose row stays. No token is of this generation:
all tokens of the session are of earlier ones, and so are superseded. ``issued_at`` of such a row is
the time at which the session ended.
"""

NO_REFRESH_TOKEN = 0
"""The ``previous_expires_at`` of a session that has no refresh token. In generation 0 the column
has no other meaning. Such a session is over when its access token expires.
"""


class Bounds(NamedTuple):
    """The latest times in the row of a session that was over at a given moment.

    All are milliseconds since the epoch. ``None`` means that no session ends that way.

    :param ended: the moment itself: the latest ``issued_at`` of a session that was ended, and the
        latest expiry of an access token that was not valid any more.
    :param idle: the latest ``issued_at`` of a session that was idle too long.
    :param absolute: the latest ``created_at`` of a session that was too old.
    """

    ended: int
    idle: int | None
    absolute: int | None


def end(session: Session, now: int) -> Session:
    """Return the row of a session that is ended now and whose device lives on."""
    return session._replace(generation=ENDED, confirmed=True, issued_at=now)


def is_ended(session: Session) -> bool:
    """Return whether a session was ended, as by reuse. Expiry does not count."""
    return session.generation >= ENDED


def bounds(policy: TokenPolicy, moment: int) -> Bounds:
    """Compute the bounds for sessions that were over at a moment."""
    return Bounds(
        moment,
        None if policy.refresh_token is None else moment - policy.refresh_token,
        None if policy.session is None else moment - policy.session,
    )


def was_over(session: Session, bounds: Bounds) -> bool:
    """Return whether a session was over: it was ended, was too old, or had no valid token left.

    ``stores/over_sql.py`` states the same rule in SQL.
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
    """Return whether a token had expired at a moment."""
    return expires_at is not None and expires_at <= moment
