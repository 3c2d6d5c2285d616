"""The one place where sessions end, for every reason there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from synapse_login_module.accounts.watch import EndReason
from synapse_login_module.errors import AccountNotLinked
from synapse_login_module.model import Claim
from synapse_login_module.synapse import link_rows
from synapse_login_module.synapse.aftermath import Aftermath
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.chains import EndedToken
from synapse_login_module.synapse.session_rows import forget_sessions, mark_ended
from synapse_login_module.synapse.tables import TokenRows


class Ended(NamedTuple):
    """What has ended in a transaction, and is to be told once that is committed.

    :param tokens: the access tokens that were alive until then.
    """

    user_id: str
    tokens: Sequence[EndedToken]
    reason: EndReason


class SessionEnding:
    """Ends sessions as Synapse does, but for devices and their keys, which stay.

    First the tokens end, in a transaction of the caller's or of its own; then whoever wants to know
    is told: the ``on_logged_out`` callbacks of all modules. Pushers go; those of an account that is
    gone all go, whatever they hang on.

    When Synapse dies between the two, or the second fails, the tokens have ended all the same. Then
    whoever ends the account again removes its pushers, and the sweep does, to which an account with
    pushers is alive. Nothing else is done again: nobody is told a second time of the same token,
    and the pushers of one device stay until the device or the account goes.

    :param homeserver: the way into Synapse.
    :param count: called with the reason for each access token that ends.
    """

    log = Logger()

    def __init__(self, homeserver: Homeserver, count: Callable[[str], None]) -> None:
        self._homeserver = homeserver
        self._aftermath = Aftermath(homeserver)
        self._count = count

    @staticmethod
    def end_rows(
        rows: TokenRows, user_id: str, device_id: str | None, reason: EndReason, now: int
    ) -> Ended:
        """End the sessions of a device, or all of a user's, within a transaction."""
        tokens = rows.end(user_id, device_id, now)
        if reason.is_of_account:
            rows.drop_login_tokens(user_id)
        if reason is EndReason.REUSED and device_id is not None:
            mark_ended(rows, user_id, device_id)
        else:
            forget_sessions(rows, user_id, device_id)
        return Ended(user_id, tokens, reason)

    @staticmethod
    def replace_rows(rows: TokenRows, user_id: str, device_id: str) -> Ended:
        """Leave a device the session that began last, within a transaction.

        Nobody is told: the device is logged in, and keeps its pushers.
        """
        tokens = rows.end_earlier(user_id, device_id)
        forget_sessions(rows, user_id, device_id)
        return Ended(user_id, tokens, EndReason.REPLACED)

    @staticmethod
    def refuse_rows(
        rows: TokenRows, user_id: str, access_token: str, claim: Claim | None, now: int
    ) -> Ended | None:
        """End the session that has just begun unless its user is linked as it was at the password,
        within a transaction; ``None`` where it is.

        What a command ends, it ends once. A login that was under way then, and waited for something
        of Synapse's, comes to have its tokens only afterwards; it comes here with them.

        :param claim: see :func:`~synapse_login_module.synapse.link_rows.is_still`.
        """
        if link_rows.is_still(rows, user_id, claim):
            return None
        # No more than these tokens: whatever else there is belongs to whoever is linked now.
        return Ended(user_id, rows.end_one(user_id, access_token, now), EndReason.REVOKED)

    async def require_link(self, user_id: str, access_token: str, claim: Claim | None) -> None:
        """End the session that has just begun unless its link is what it was; on Synapse's side.

        :raise AccountNotLinked: when it has been ended.
        """
        now = self._homeserver.now()

        def work(rows: TokenRows) -> Ended | None:
            return self.refuse_rows(rows, user_id, access_token, claim, now)

        ended = await self._homeserver.transaction("synapse_login_issue", work)
        if ended is not None:
            await self.tell_if_possible(ended)
            raise link_has_changed(user_id)

    async def end(self, user_id: str, device_id: str | None, reason: EndReason) -> int:
        """End the sessions of a device, or all of a user's; on Synapse's side.

        :return: how many access tokens were alive.
        """
        now = self._homeserver.now()

        def work(rows: TokenRows) -> Ended:
            return self.end_rows(rows, user_id, device_id, reason, now)

        ended = await self._homeserver.transaction("synapse_login_end", work)
        await self.tell(ended)
        return len(ended.tokens)

    async def tell_if_possible(self, ended: Ended) -> None:
        """Tell of what has ended, where what comes of that must not hide why it has ended."""
        try:
            await self.tell(ended)
        except Exception:
            self.log.failure("telling of sessions of {user_id} that ended", user_id=ended.user_id)

    async def tell(self, ended: Ended) -> None:
        """Tell of what has ended, once it is committed; on Synapse's side."""
        for _ in ended.tokens:
            self._count(ended.reason.value)
        if ended.reason is EndReason.REPLACED:
            return
        for token in ended.tokens:
            await self._aftermath.tell_modules(ended.user_id, token)
        if ended.reason.is_of_account:
            await self._aftermath.remove_all_pushers(ended.user_id)
        elif ended.tokens:
            await self._aftermath.remove_pushers(ended.user_id, ended.tokens)


def link_has_changed(user_id: str) -> AccountNotLinked:
    """What a login fails with whose link has changed since its password was found right."""
    return AccountNotLinked(user_id, "its link has changed", "links relink")


class HomeserverEndings:
    """What the judge does to accounts; see :class:`~synapse_login_module.accounts.watch.Endings`.

    :param homeserver: the way into Synapse.
    :param ending: what ends sessions.
    """

    def __init__(self, homeserver: Homeserver, ending: SessionEnding) -> None:
        self._homeserver = homeserver
        self._aftermath = Aftermath(homeserver)
        self._ending = ending

    def end(self, user_id: str, reason: EndReason) -> Deferred[int]:
        """End all sessions of a user; fires with how many access tokens were alive."""
        return self._homeserver.call_in_background(self._ending.end, user_id, None, reason)

    def lock(self, user_id: str, locked: bool) -> Deferred[None]:
        """Tell Synapse that a user is locked, or is no longer."""
        return self._homeserver.call_in_background(self._aftermath.set_locked, user_id, locked)
