"""What a presented token means for its session: pure functions of the row and the time.

The documentation has these rules as a table ("Sessions and tokens"). Sources: the seed
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
    """The outcome of presenting a refresh token."""

    ROTATED = "rotated"
    """A new pair is issued."""
    CAUGHT_UP = "caught up"
    """The row was behind the token, as after a restore. It catches up, and a new pair is issued."""
    REPEATED = "repeated"
    """The pair was issued before and is not confirmed yet. The same pair is issued again."""
    RACED = "raced"
    """The token was replaced within the reuse interval. It is rejected, and the session lives."""
    REUSED = "reused"
    """The token was replaced long ago. It is rejected, and the session is ended."""
    ENDED = "ended"
    """The session was ended before."""
    EXPIRED = "expired"
    """The session was idle too long, is too old, or has no further generation."""


class Decision(NamedTuple):
    """The outcome of a refresh, and the row that must be durable before the response is sent.

    :param session: the row to write, or ``None`` when the row does not change.
    """

    outcome: Outcome
    session: Session | None = None


class AccessOutcome(enum.Enum):
    """The outcome of presenting an access token."""

    VALID = "valid"
    CONFIRMS = "confirms"
    """The token is valid, and its use confirms its pair."""
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    """A later pair has replaced the token."""
    AHEAD = "ahead"
    """The row is behind the token, as after a restore; see :func:`caught_up`."""


def access_expiry(
    now: int, lifetime: int | None, created_at: int, policy: TokenPolicy
) -> int | None:
    """Compute when an access token that is issued now expires.

    It expires at the end of its lifetime or of its session, whichever comes first.

    :param lifetime: the lifetime of the access token; ``None`` for no limit.
    :param created_at: the time of the session's login.
    :return: ``None`` when it never expires.
    """
    expiries = [now + lifetime] if lifetime is not None else []
    if policy.session is not None:
        expiries.append(created_at + policy.session)
    return min(expiries, default=None)


def caught_up(session: Session, presented: int, now: int, policy: TokenPolicy) -> Session:
    """Bring a row up to the generation of an authentic token that is ahead of it.

    Only this service issues tokens, and never of a generation that the row has not reached. So the
    row is older than the token: a backup was restored, or a standby took over that lacked the last
    transactions. The client has the pair, so the session is confirmed. The time at which the pair
    was issued is lost. So the idle time begins now, and the access token counts as expired, so that
    it lives no longer than intended; the client then refreshes. If access tokens have no lifetime,
    the access token stays valid.

    :param presented: the generation of the token, which has been verified.
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

    :param session: the session's current row.
    :param presented: the generation of the refresh token, which has been verified.
    :param now: the time in milliseconds since the epoch.
    :param strict: ``True`` for ``/tokenrefresh``, ``False`` for ``/refresh``.
    :param key_id: the id of the key under which a new generation is derived.
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
        # The next generation does not fit into a token, so the session counts as expired.
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
    """Decide whether an access token is valid.

    :param presented: the generation of the access token, which has been verified.
    """
    if presented > session.generation:
        too_old = _session_over(session, now, policy)
        return AccessOutcome.EXPIRED if too_old else AccessOutcome.AHEAD
    if presented == session.generation:
        good = AccessOutcome.VALID if session.confirmed else AccessOutcome.CONFIRMS
    elif presented == session.generation - 1 and not session.confirmed:
        good = AccessOutcome.VALID
    else:
        return AccessOutcome.SUPERSEDED
    if over.has_passed(access_token_expiry(session, presented, policy), now):
        return AccessOutcome.EXPIRED
    return good


def access_token_expiry(session: Session, presented: int, policy: TokenPolicy) -> int | None:
    """Compute when an access token expires that is not superseded.

    It expires by its row or, after the lifetime of sessions was made shorter, with its session.

    :param presented: the generation of the access token: that of the row, or the one before.
    :return: milliseconds since the epoch; ``None`` when it never expires.
    """
    # Of generation 0, previous_expires_at is a marker: see over.NO_REFRESH_TOKEN. No token is of
    # the generation before.
    is_current = presented == session.generation
    expires_at = session.access_expires_at if is_current else session.previous_expires_at
    end = None if policy.session is None else session.created_at + policy.session
    return min((each for each in (expires_at, end) if each is not None), default=None)


def _session_over(session: Session, now: int, policy: TokenPolicy) -> bool:
    return _passed(session.created_at, policy.session, now)


def _passed(since: int, lifetime: int | None, now: int) -> bool:
    return lifetime is not None and now - since >= lifetime
