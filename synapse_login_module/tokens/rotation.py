"""What a presented token means for its session: pure functions of the row and the time.

The table that this states is in the documentation ("Sessions and tokens"). Sources: the seed
specification of ``/tokenrefresh`` for the strict column, the Matrix client-server specification of
``POST /refresh`` for the lenient one, RFC 9700 section 4.14.2 for ending the session on reuse.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from synapse_login_module.model import Session, TokenPolicy
from synapse_login_module.tokens import over
from synapse_login_module.tokens.format import MAX_GENERATION


class Outcome(enum.Enum):
    """What becomes of one presented refresh token."""

    ROTATED = "rotated"
    CAUGHT_UP = "caught up"
    REPEATED = "repeated"
    RACED = "raced"
    REUSED = "reused"
    ENDED = "ended"
    EXPIRED = "expired"


class Decision(NamedTuple):
    """The outcome, and the row as it must stand once it is answered.

    :param session: the row to write, or ``None`` when nothing of it changes.
    """

    outcome: Outcome
    session: Session | None = None


class AccessOutcome(enum.Enum):
    """What becomes of one presented access token."""

    VALID = "valid"
    CONFIRMS = "confirms"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    AHEAD = "ahead"


def access_expiry(
    now: int, lifetime: int | None, created_at: int, policy: TokenPolicy
) -> int | None:
    """When an access token handed out now ends: at its lifetime or with the session."""
    ends = [now + lifetime] if lifetime is not None else []
    if policy.session is not None:
        ends.append(created_at + policy.session)
    return min(ends, default=None)


def caught_up(session: Session, presented: int, now: int, policy: TokenPolicy) -> Session:
    """The row as it must have stood when a token was made that is ahead of it.

    Nobody but this service makes tokens, and none of a generation that the session has not come to.
    So the row is of before: a backup was put back, or a standby took over that did not have all.
    Its holder has shown that it has the pair. When that was handed out nobody knows any more: its
    idle time begins now, and its access token has expired, unless such never do, so that none lives
    longer than it was to. The holder refreshes.

    :param presented: the generation of the token, whose authenticity has been checked.
    """
    lasting = policy.refreshable_access_token is None
    return session._replace(
        generation=presented,
        confirmed=True,
        issued_at=now,
        access_expires_at=access_expiry(now, None, session.created_at, policy) if lasting else now,
        previous_expires_at=None,
    )


def refresh(
    session: Session, presented: int, now: int, strict: bool, key_id: int, policy: TokenPolicy
) -> Decision:
    """Decide one refresh.

    :param session: the row as it stands.
    :param presented: the generation of the refresh token, whose authenticity has been checked.
    :param now: the time in milliseconds.
    :param strict: ``True`` for ``/tokenrefresh``, ``False`` for ``/refresh``.
    :param key_id: the key under which a new generation is derived.
    """
    if over.is_ended(session):
        return Decision(Outcome.ENDED)
    outcome = Outcome.ROTATED
    if presented > session.generation and not _session_over(session, now, policy):
        outcome = Outcome.CAUGHT_UP
        session = caught_up(session, presented, now, policy)
    generation = session.generation
    if _passed(session.issued_at, policy.refresh_token, now) or _session_over(session, now, policy):
        return Decision(Outcome.EXPIRED)

    expires_at = access_expiry(now, policy.refreshable_access_token, session.created_at, policy)
    if presented == generation == MAX_GENERATION:
        # No token can hold the next one: the session ends as one whose lifetime has passed.
        return Decision(Outcome.EXPIRED)
    if presented == generation:
        rotated = session._replace(
            key_id=key_id,
            generation=generation + 1,
            confirmed=strict,
            issued_at=now,
            access_expires_at=expires_at,
            previous_expires_at=session.access_expires_at,
        )
        return Decision(outcome, rotated)
    if presented == generation - 1:
        if not session.confirmed:
            repeated = session._replace(
                confirmed=strict, issued_at=now, access_expires_at=expires_at
            )
            return Decision(Outcome.REPEATED, repeated)
        if not _passed(session.issued_at, policy.reuse_interval, now):
            return Decision(Outcome.RACED)
    return Decision(Outcome.REUSED, over.end(session, now))


def access(session: Session, presented: int, now: int, policy: TokenPolicy) -> AccessOutcome:
    """Decide what an access token is good for.

    :param presented: the generation of the access token, whose authenticity has been checked.
    """
    if presented > session.generation:
        too_old = _session_over(session, now, policy)
        return AccessOutcome.EXPIRED if too_old else AccessOutcome.AHEAD
    if presented == session.generation:
        expires_at = session.access_expires_at
        good = AccessOutcome.VALID if session.confirmed else AccessOutcome.CONFIRMS
    elif presented == session.generation - 1 and not session.confirmed:
        expires_at = session.previous_expires_at
        good = AccessOutcome.VALID
    else:
        return AccessOutcome.SUPERSEDED
    if (expires_at is not None and now >= expires_at) or _session_over(session, now, policy):
        return AccessOutcome.EXPIRED
    return good


def _session_over(session: Session, now: int, policy: TokenPolicy) -> bool:
    return _passed(session.created_at, policy.session, now)


def _passed(since: int, lifetime: int | None, now: int) -> bool:
    return lifetime is not None and now - since >= lifetime
