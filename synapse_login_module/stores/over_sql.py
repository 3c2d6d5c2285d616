"""Whether a session was over, in SQL: the rule of ``tokens/over.py``.

A comparison with NULL is never true. So a token that never expires is not expired, and a bound that
is NULL ends no session.
"""

from __future__ import annotations

from synapse_login_module.tokens.over import ENDED, NO_REFRESH_TOKEN


def was_over(ended: str, idle: str, absolute: str) -> str:
    """Return the SQL condition that a session was over.

    Each parameter is the placeholder of the bound of that name (:class:`~.tokens.over.Bounds`).
    """
    return (
        f"(generation >= {ENDED} AND issued_at <= {ended} OR generation < {ENDED}"
        f" AND (created_at <= {absolute} OR access_expires_at <= {ended}"
        f" AND (generation = 0 AND previous_expires_at = {NO_REFRESH_TOKEN}"
        f" OR issued_at <= {idle} AND (confirmed OR previous_expires_at <= {ended}))))"
    )
