"""Makes login tokens for a user, at an operator's command."""

from __future__ import annotations

from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IAccounts, ITokenStore
from synapse_login_module.model import AccountStatus, LoginToken

_PROBLEMS = {
    None: "no password provider knows {user_id}",
    AccountStatus.LOCKED: "{user_id} is locked: no login token would log it in",
    AccountStatus.DEACTIVATED: "{user_id} is deactivated: no login token would log it in",
}


async def make_login_token(accounts: IAccounts, store: ITokenStore, user_id: str) -> LoginToken:
    """Make a login token, if the account could log in with it.

    :param user_id: a full user ID.
    :raise ConfigError: when no provider knows the account, or it is locked or deactivated.
    :raise ProviderUnavailable: when its provider is unavailable.
    :raise StoreUnavailable: when the token store is unavailable.
    """
    status = await accounts.account_status(user_id, None)
    if status in _PROBLEMS:
        raise ConfigError("", _PROBLEMS[status].format(user_id=user_id))
    return await store.make_login_token(user_id)
