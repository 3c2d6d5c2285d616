"""Tells Synapse and its modules about tokens that have ended and about locked users.

ModuleApi: ends tokens one by one and deletes their device with them; cannot remove pushers or lock
a user.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.chains import EndedToken
from synapse_login_module.synapse.other_modules import is_ours


class Aftermath:
    """Calls other modules' callbacks, removes pushers, and locks users in Synapse.

    All methods run on Synapse's side of the crossing.

    :param homeserver: the way into Synapse.
    """

    def __init__(self, homeserver: Homeserver) -> None:
        self._hs = homeserver.hs
        self._is_main = homeserver.is_main
        self._store = self._hs.get_datastores().main

    async def tell_modules(self, user_id: str, token: EndedToken) -> None:
        """Call the ``on_logged_out`` callbacks of all other modules.

        This module's own callback is left out. It would delete the device's session row, which was
        deleted with the tokens; by now the device may have a new session.
        """
        others = copy.copy(self._hs.get_password_auth_provider())
        others.on_logged_out_callbacks = [
            each for each in others.on_logged_out_callbacks if not is_ours(each)
        ]
        await others.on_logged_out(
            user_id=user_id, device_id=token.device_id, access_token=token.token
        )

    async def remove_pushers(self, user_id: str, tokens: Sequence[EndedToken]) -> None:
        """Remove and stop the pushers of the tokens' devices, and those that have only a token."""
        pushers = self._hs.get_pusherpool()
        devices = {token.device_id for token in tokens if token.device_id is not None}
        await pushers.remove_pushers_by_devices(user_id, devices)
        await pushers.remove_pushers_by_access_tokens(user_id, [each.row_id for each in tokens])

    async def remove_all_pushers(self, user_id: str) -> None:
        """Remove and stop all pushers of a user.

        ``delete_all_pushers_for_user`` stops no pusher: it would run until Synapse is restarted. So
        each is removed by itself first, which a worker leaves to the main process.
        """
        pushers = self._hs.get_pusherpool()
        for each in list(await self._store.get_pushers_by_user_id(user_id)):
            await pushers.remove_pusher(each.app_id, each.pushkey, user_id)
        if self._is_main:
            await self._store.delete_all_pushers_for_user(user_id)

    async def set_locked(self, user_id: str, locked: bool) -> None:
        """Lock or unlock a user."""
        await self._store.set_user_locked_status(user_id, locked)
