"""A homeserver that delegates to the login service of a test, and a store that serves it."""

from __future__ import annotations

from collections import defaultdict

from twisted.internet.defer import Deferred

from synapse_login_module.homeservers.host import Issue
from synapse_login_module.model import Account, Login, SessionInfo
from synapse_login_module.plugin import Environment
from synapse_login_module.stores import MemoryTokenStore


class DelegatedStore(MemoryTokenStore):
    """A store in memory with what the paths for a homeserver need.

    :ivar deleted: the user and the device of each deletion, in order.
    """

    def __init__(self, config: None, environment: Environment) -> None:
        super().__init__(config, environment)
        self.deleted: list[tuple[str, str]] = []

    def delete_device(self, user_id: str, device_id: str) -> Deferred[None]:
        """End the session of a device, and record the deletion."""
        return Deferred.fromCoroutine(self._delete_device(user_id, device_id))

    async def _delete_device(self, user_id: str, device_id: str) -> None:
        self.deleted.append((user_id, device_id))
        for session in await self.sessions(user_id):
            if session.device_id == device_id:
                await self.revoke(session)


class FakeHost:
    """The host of sessions; see :class:`synapse_login_module.homeservers.host.SessionHost`.

    :ivar owned: the users of each application service, by its token.
    :ivar failure: while it is set, every call fails with it.
    :ivar begun: the accounts that sessions began for.
    :ivar endings: how often it was told that sessions have ended.
    """

    def __init__(self) -> None:
        self.owned: defaultdict[str, set[str]] = defaultdict(set)
        self.failure: Exception | None = None
        self.asked: list[str] = []
        self.begun: list[Account] = []
        self.endings = 0

    async def begin(
        self, account: Account, device_id: str | None, display_name: str | None, issue: Issue
    ) -> Login:
        """Record the account, and begin the session."""
        if self.failure is not None:
            raise self.failure
        self.begun.append(account)
        return await issue(account.user_id, device_id)

    async def owns_user(self, as_token: str, user_id: str) -> bool:
        """Look the token up."""
        if self.failure is not None:
            raise self.failure
        self.asked.append(user_id)
        return user_id in self.owned[as_token]

    def ended(self) -> None:
        """Count the call."""
        self.endings += 1

    async def settle(self) -> None:
        """Count the call."""
        self.ended()

    async def forget(self, session: SessionInfo, wait: bool) -> None:
        """Do nothing."""
