"""At its start a server makes its token keys known, and says what is wrong with them."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.interfaces import ITokenKeys


class SharesKeys(Service):
    """Has a store know the keys of this server as soon as it runs, if it can.

    Nothing waits for it: the store does it by itself before it signs.

    :param store: the token store, which has been started.
    """

    log = Logger()

    def __init__(self, store: Any) -> None:
        self._store = store

    def startService(self) -> None:
        """Begin."""
        super().startService()
        if ITokenKeys.providedBy(self._store):
            self._store.share_token_keys().addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable):
            self.log.warn("the token keys cannot be compared: {why}", why=failure.getErrorMessage())
        else:
            self.log.failure("comparing the token keys", failure)
