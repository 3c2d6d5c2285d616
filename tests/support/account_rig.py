"""The login service with the account page, over fakes."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed

from synapse_login_module.account_page import AccountPage
from synapse_login_module.errors import HomeserverUnavailable
from synapse_login_module.model import Claim, Login
from synapse_login_module.tokens.page_token import PageTokens
from synapse_login_module.web.account import AccountHandlers
from tests.support.rig import Rig


class RecordingHomeserver:
    """Records the resets of cross-signing that it allows.

    :ivar allowed: the users that may reset.
    :ivar is_down: whether it cannot be reached.
    """

    def __init__(self) -> None:
        self.allowed: list[str] = []
        self.is_down = False

    def allow_cross_signing_reset(self, user_id: str) -> Deferred[None]:
        """Record a user."""
        if self.is_down:
            return fail(HomeserverUnavailable("refused"))
        self.allowed.append(user_id)
        return succeed(None)


class RecordingDevices:
    """Records the devices that are deleted, and ends their sessions.

    :param store: the token store of the sessions.
    :ivar deleted: the users and devices.
    """

    def __init__(self, store: Any) -> None:
        self.deleted: list[tuple[str, str]] = []
        self._store = store

    def delete_device(self, user_id: str, device_id: str) -> Deferred[None]:
        """Record a device."""
        return Deferred.fromCoroutine(self._delete(user_id, device_id))

    async def _delete(self, user_id: str, device_id: str) -> None:
        self.deleted.append((user_id, device_id))
        for each in await self._store.sessions(user_id):
            if each.device_id == device_id:
                await self._store.revoke(each)


class AccountRig(Rig):
    """The login service with the account page.

    :param delegated: whether there is a homeserver, whose devices are deleted.
    :ivar homeserver: the homeserver.
    :ivar devices: the devices that are deleted.
    """

    def __init__(self, *, delegated: bool = True, **rig: Any) -> None:
        self.homeserver = RecordingHomeserver()
        self.delegated = delegated
        super().__init__(**rig)

    async def issue(self, user_id: str, device_id: str, display_name: str | None) -> Login:
        """Begin a session, as a login does, and link its account."""
        claim = Claim(("fake",), user_id)
        login: Login = await self.store.issue(
            user_id, device_id, display_name, True, True, claim=claim
        )
        return login

    def account_handlers(self) -> AccountHandlers:
        """The handlers of the account page."""
        self.devices = RecordingDevices(self.store)
        page = AccountPage(
            self.service,
            self.store,
            PageTokens(self.keys, self.clock.seconds),
            cast(Any, self.homeserver) if self.delegated else None,
            cast(Any, self.devices) if self.delegated else None,
        )
        return AccountHandlers(page, self.clients, self.server_name)
