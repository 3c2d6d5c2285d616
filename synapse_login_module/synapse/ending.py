"""Ends sessions in Synapse, for every reason. No other part of the package does."""

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
    """The sessions that a transaction has ended, for :meth:`SessionEnding.tell` after the commit.

    :param user_id: the user.
    :param tokens: the access tokens that were alive until then.
    :param reason: why they ended.
    """

    user_id: str
    tokens: Sequence[EndedToken]
    reason: EndReason


class SessionEnding:
    """Ends sessions as Synapse does, except that devices and their keys stay.

    First the tokens end, in a transaction of the caller's or of its own. After the commit the
    ``on_logged_out`` callbacks of other modules are called, and pushers are removed: those of the
    devices, or all of the user's where the whole account ends.

    If Synapse dies between these steps, or the second one fails, the tokens have ended all the
    same. The pushers then go when the account is ended again; the sweep does that too, since an
    account with pushers counts as alive. Nothing else is repeated: no module is told twice about
    the same token, and the pushers of one device stay until the device or the account goes.

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
        """End the sessions of a device, or all of a user's, within the caller's transaction.

        :param device_id: the device; ``None`` for all of the user's.
        :param now: milliseconds since the epoch.
        """
        tokens = rows.end(user_id, device_id, now)
        if reason.is_of_account:
            rows.delete_login_tokens(user_id)
        if reason is EndReason.REUSED and device_id is not None:
            mark_ended(rows, user_id, device_id)
        else:
            forget_sessions(rows, user_id, device_id)
        return Ended(user_id, tokens, reason)

    @staticmethod
    def replace_rows(rows: TokenRows, user_id: str, device_id: str) -> Ended:
        """End all sessions of a device but the one that began last, within the caller's
        transaction.

        :meth:`tell` only counts these: the device is logged in and keeps its pushers.
        """
        tokens = rows.end_earlier(user_id, device_id)
        forget_sessions(rows, user_id, device_id)
        return Ended(user_id, tokens, EndReason.REPLACED)

    @staticmethod
    def refuse_rows(
        rows: TokenRows, user_id: str, access_token: str, claim: Claim | None, now: int
    ) -> Ended | None:
        """End the session that has just begun if its user's link has changed since the password was
        checked, within the caller's transaction.

        A command that changes a link ends the sessions that exist then. A login under way at that
        time gets its tokens later. This check ends them.

        :param claim: see :func:`~synapse_login_module.synapse.link_rows.is_unchanged`.
        :return: ``None`` when the link has not changed.
        """
        if link_rows.is_unchanged(rows, user_id, claim):
            return None
        # Only these tokens: all others are those of the account that is linked now.
        return Ended(user_id, rows.end_one(user_id, access_token, now), EndReason.REVOKED)

    async def require_link(self, user_id: str, access_token: str, claim: Claim | None) -> None:
        """End the session that has just begun if its user's link has changed; on Synapse's side.

        :raise AccountNotLinked: when it has.
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

        :param device_id: the device; ``None`` for all of the user's.
        :return: how many access tokens were alive.
        """
        now = self._homeserver.now()

        def work(rows: TokenRows) -> Ended:
            return self.end_rows(rows, user_id, device_id, reason, now)

        ended = await self._homeserver.transaction("synapse_login_end", work)
        await self.tell(ended)
        return len(ended.tokens)

    async def tell_if_possible(self, ended: Ended) -> None:
        """Call :meth:`tell`, and only log what it raises: the caller has an error of its own to
        raise.
        """
        try:
            await self.tell(ended)
        except Exception:
            self.log.failure(
                "cannot tell Synapse that sessions of {user_id} have ended", user_id=ended.user_id
            )

    async def tell(self, ended: Ended) -> None:
        """Count ended sessions, call other modules' callbacks and remove pushers, after the commit;
        on Synapse's side.
        """
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
    """Return the error for a login whose link has changed since its password was checked."""
    return AccountNotLinked(user_id, "its link has changed", "links relink")


class HomeserverEndings:
    """Ends sessions and locks users for the judge; see
    :class:`~synapse_login_module.accounts.watch.Endings`.

    :param homeserver: the way into Synapse.
    :param ending: ends the sessions.
    """

    def __init__(self, homeserver: Homeserver, ending: SessionEnding) -> None:
        self._homeserver = homeserver
        self._aftermath = Aftermath(homeserver)
        self._ending = ending

    def end(self, user_id: str, reason: EndReason) -> Deferred[int]:
        """End all sessions of a user; fires with how many access tokens were alive."""
        return self._homeserver.call_in_background(self._ending.end, user_id, None, reason)

    def lock(self, user_id: str, locked: bool) -> Deferred[None]:
        """Lock or unlock a user in Synapse."""
        return self._homeserver.call_in_background(self._aftermath.set_locked, user_id, locked)
