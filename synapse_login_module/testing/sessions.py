"""A refresh as one call."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from synapse_login_module.interfaces import ITokenStore
from synapse_login_module.model import TokenPair


def refresh(
    store: ITokenStore, refresh_token: str, access_token: str | None, strict: bool
) -> Deferred[TokenPair]:
    """Present a refresh token to a store and exchange it, as a request does."""
    return store.present(refresh_token).addCallback(store.refresh, access_token, strict)
