"""The homeserver that sessions are used at, as the use cases see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from synapse_login_module.model import Account, Login, SessionInfo

Issue = Callable[[str, "str | None"], "Deferred[Login]"]
"""Begins a session of a user ID on a device, or on a new one (``None``)."""


class SessionHost(Protocol):
    """The homeserver that sessions are used at, as far as this service has to deal with it."""

    async def begin(
        self, account: Account, device_id: str | None, display_name: str | None, issue: Issue
    ) -> Login:
        """Prepare the account and the device at the homeserver, and begin the session.

        Raises ``AccountNotLinked``, ``AccountDeactivated``, ``AccountRefused``,
        ``HomeserverUnavailable`` or what ``issue`` fails with; then no session has begun.

        :param account: an account whose password was right.
        :param display_name: that of the device.
        """

    async def owns_user(self, as_token: str, user_id: str) -> bool:
        """Check whether a token is that of an application service that may act as a user.

        Raises ``HomeserverUnavailable``.
        """

    def ended(self) -> None:
        """Have the devices deleted of the sessions that have just ended for good."""

    async def settle(self) -> None:
        """Do the same, and wait until it was tried, for some seconds at most."""

    async def forget(self, session: SessionInfo, wait: bool) -> None:
        """Have the homeserver forget the access tokens of a session, some of which have ended.

        :param wait: whether to wait for that, for a bounded time.
        """


class NoHomeserver:
    """The :class:`SessionHost` of a service whose sessions no other server knows."""

    async def begin(
        self, account: Account, device_id: str | None, display_name: str | None, issue: Issue
    ) -> Login:
        """Begin the session."""
        return await issue(account.user_id, device_id)

    async def owns_user(self, as_token: str, user_id: str) -> bool:
        """Return ``False``: no homeserver has application services."""
        return False

    def ended(self) -> None:
        """Do nothing."""

    async def settle(self) -> None:
        """Do nothing."""

    async def forget(self, session: SessionInfo, wait: bool) -> None:
        """Do nothing."""
