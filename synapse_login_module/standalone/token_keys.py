"""Records a server's token keys in the store at its start, and logs what is wrong with them."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.interfaces import ITokenKeys


class SharesKeys(Service):
    """Records the token keys of this server in a store that is an ``ITokenKeys``.

    Nothing waits for the result, because the store repeats this before it signs a token.

    :param store: the token store, started before this service.
    """

    log = Logger()

    def __init__(self, store: Any) -> None:
        self._store = store

    def startService(self) -> None:
        """Begin to record the keys."""
        super().startService()
        if ITokenKeys.providedBy(self._store):
            self._store.share_token_keys().addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable):
            self.log.warn("the token keys cannot be compared: {why}", why=failure.getErrorMessage())
        else:
            self.log.failure("comparing the token keys failed", failure)
