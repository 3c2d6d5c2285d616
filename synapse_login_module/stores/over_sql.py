"""When a session was over, as SQL: what ``tokens/over.py`` says of one row.

No comparison with NULL is true: neither of a moment that never comes nor with a bound that there is
not.
"""

from __future__ import annotations

from synapse_login_module.tokens.over import ENDED, NO_REFRESH_TOKEN


def was_over(ended: str, idle: str, absolute: str) -> str:
    """The condition.

    :param ended: what stands for the bound of that name (:class:`~.tokens.over.Bounds`), as the
        others: the placeholder of a number.
    """
    return (
        f"(generation >= {ENDED} AND issued_at <= {ended} OR generation < {ENDED}"
        f" AND (created_at <= {absolute} OR access_expires_at <= {ended}"
        f" AND (generation = 0 AND previous_expires_at = {NO_REFRESH_TOKEN}"
        f" OR issued_at <= {idle} AND (confirmed OR previous_expires_at <= {ended}))))"
    )
