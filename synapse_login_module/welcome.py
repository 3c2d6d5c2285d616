"""What an account's status means for its logins."""

from __future__ import annotations

from synapse_login_module.errors import AccountDeactivated, AccountLocked
from synapse_login_module.model import AccountStatus


def require_active(status: AccountStatus | None) -> None:
    """Let an account through that is active, or that nobody can look at; one that nobody knows any
    more counts as closed.

    :raise AccountLocked: when it is locked for now.
    :raise AccountDeactivated: when it is closed.
    """
    if status is AccountStatus.LOCKED:
        raise AccountLocked
    if status in (None, AccountStatus.DEACTIVATED):
        raise AccountDeactivated
