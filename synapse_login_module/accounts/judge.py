"""Acts on what a provider answers about an account."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger

from synapse_login_module.accounts.brake import Brake
from synapse_login_module.accounts.watch import Endings, EndReason
from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import AccountStatus, Link, WatchedLink

_MANY = 200

Answer = tuple[WatchedLink, AccountStatus | None]
"""A link as it was when its provider was asked, and the provider's answer. ``None`` means that the
provider does not know the account."""


class Judge:
    """Ends the sessions of accounts that are gone or deactivated, unless the brake holds them, and
    tells the homeserver which accounts are locked. Every answer of a provider passes through it.

    :param watch: the links.
    :param brake: decides whether accounts that a provider does not know are gone.
    :param endings: ends the sessions, and locks users at the homeserver.
    """

    log = Logger()

    def __init__(self, watch: ILinkWatch, brake: Brake, endings: Endings) -> None:
        self._watch = watch
        self._brake = brake
        self._endings = endings
        self._one_at_a_time = DeferredLock()
        # The users whose links may have a mark that an "active" answer takes back. For all others,
        # "active" costs no query. None until the marks have been read: then each answer costs one.
        self._marked: set[str] | None = None

    async def start(self) -> None:
        """Read which links are marked."""
        self._marked = {*await self._watch.marked(), *(self._marked or ())}

    def judge(
        self, user_id: str, link: Link | None, status: AccountStatus | None
    ) -> Deferred[AccountStatus | None]:
        """Act on an answer about one user.

        :param user_id: the user.
        :param link: the link that the provider was asked by; ``None`` for a user without one.
        :param status: the answer; ``None`` when the provider no longer knows the account.
        :return: fires with the status that counts, once it was acted on: ``None`` or
            ``DEACTIVATED`` when all sessions of the user have ended (those of a user without a
            link are left to the caller); ``UNVERIFIABLE`` when the brake holds the account, when
            the link has changed, or when the provider cannot say. Fails with
            :class:`~synapse_login_module.errors.StoreUnavailable`.
        """
        if self._changes_nothing(user_id, status):
            return succeed(status)
        return Deferred.fromCoroutine(self._judge(user_id, link, status))

    def _changes_nothing(self, user_id: str, status: AccountStatus | None) -> bool:
        """Say whether an answer is "active" about a user whose link has no mark."""
        return (
            status is AccountStatus.ACTIVE
            and self._marked is not None
            and user_id not in self._marked
        )

    async def _judge(
        self, user_id: str, link: Link | None, status: AccountStatus | None
    ) -> AccountStatus | None:
        if status is AccountStatus.UNVERIFIABLE:
            return status
        if link is None and status is not AccountStatus.ACTIVE:
            return await self._judge_unlinked(user_id, status)
        rows = [row for row in await self._watch.find([user_id]) if link in (None, row.link)]
        if not rows:
            # The link was removed or replaced since the question. The command that did so ends
            # the sessions.
            return status if link is None else AccountStatus.UNVERIFIABLE
        if status is not None:
            return await self._act(rows[0], status)
        verdicts = await self.settle([(rows[0], status)], all_asked=False)
        return verdicts[user_id]

    async def _judge_unlinked(
        self, user_id: str, status: AccountStatus | None
    ) -> AccountStatus | None:
        if status is not None:
            return status
        await self._one_at_a_time.acquire()
        try:
            gone = await self._brake.lets_go_unlinked(user_id)
        finally:
            self._one_at_a_time.release()
        return None if gone else AccountStatus.UNVERIFIABLE

    async def settle(
        self, answers: Sequence[Answer], all_asked: bool
    ) -> dict[str, AccountStatus | None]:
        """Act on several answers.

        :param all_asked: whether these are the answers about all accounts of a provider.
        :return: the status that counts of each, by user ID; see :meth:`judge`.
        """
        verdicts: dict[str, AccountStatus | None] = {}
        gone = [row for row, status in answers if status is None]
        for row, status in answers:
            if status is not None:
                verdicts[row.user_id] = await self._settle_known(row, status)
        if gone:
            await self._one_at_a_time.acquire()
            try:
                verdicts.update(await self._settle_gone(gone, all_asked))
            finally:
                self._one_at_a_time.release()
        return verdicts

    async def end_held(self, row: WatchedLink, status: AccountStatus | None) -> None:
        """Act on an answer about an account that the brake holds, without asking the brake."""
        if status is not None:
            await self._settle_known(row, status)
            return
        fresh = await self._reload(row)
        if fresh is None or not fresh.held:
            return
        await self._watch.mark([row.user_id], gone_since=fresh.gone_since, held=False)
        await self._end(fresh, EndReason.GONE)

    async def _reload(self, row: WatchedLink) -> WatchedLink | None:
        """Read a link again; return ``None`` when it was removed or now names another account."""
        found = await self._watch.find([row.user_id])
        return next((each for each in found if each.link == row.link), None)

    async def _settle_known(self, row: WatchedLink, status: AccountStatus) -> AccountStatus:
        """Act on the status of an account that exists, and return the status that counts.

        The answer is about the subject that was linked when the question was asked. The user may
        be linked to another subject by now, about which the answer says nothing.

        :param row: the link as it was before the question.
        """
        if self._is_settled(row, status):
            return status
        fresh = await self._reload(row)
        return AccountStatus.UNVERIFIABLE if fresh is None else await self._act(fresh, status)

    def _is_settled(self, row: WatchedLink, status: AccountStatus) -> bool:
        """Say whether an answer changes nothing, so that the link need not be read again."""
        if status is AccountStatus.UNVERIFIABLE:
            return True
        if row.is_marked or self._marked is None or row.user_id in self._marked:
            return False
        if status is AccountStatus.DEACTIVATED:
            return not row.alive
        return status is AccountStatus.ACTIVE

    async def _act(self, row: WatchedLink, status: AccountStatus) -> AccountStatus:
        """Act on the status of an account.

        :param row: its link as it is now.
        """
        if row.gone_since is not None or row.held:
            await self._watch.mark([row.user_id], gone_since=None, held=False)
        if status is AccountStatus.DEACTIVATED:
            if row.alive:
                await self._end(row, EndReason.DEACTIVATED)
        elif status is AccountStatus.LOCKED:
            await self._lock(row)
        elif row.locked:
            await self._unlock(row)
        if self._marked is not None and status is AccountStatus.ACTIVE:
            self._marked.discard(row.user_id)
        return status

    async def _lock(self, row: WatchedLink) -> None:
        """Lock a user at the homeserver. A lock that is there already was set earlier, from here or
        by an administrator, and is left alone.
        """
        if row.is_locked:
            return
        self._remember_marked([row.user_id])
        # The mark comes before the lock: a lock without a mark would never be taken back.
        if not await self._watch.mark_locked(row.link, True):
            return  # the link was removed meanwhile: nothing would take the lock back
        await self._endings.lock(row.user_id, True)
        self.log.info("{user_id} is locked: its provider says so", user_id=row.user_id)

    async def _unlock(self, row: WatchedLink) -> None:
        if row.is_locked:
            await self._endings.lock(row.user_id, False)
            self.log.info("{user_id} is no longer locked", user_id=row.user_id)
        await self._watch.mark_locked(row.link, False)

    async def _settle_gone(
        self, asked: Sequence[WatchedLink], all_asked: bool
    ) -> dict[str, AccountStatus | None]:
        """Act on accounts that their provider no longer knows. The caller holds the lock."""
        links = {row.user_id: row.link for row in asked}
        verdicts: dict[str, AccountStatus | None] = {}
        fresh: list[WatchedLink] = []
        users = list(links)
        for start in range(0, len(users), _MANY):
            fresh += await self._watch.find(users[start : start + _MANY])
        new = []
        for row in fresh:
            if row.link != links[row.user_id] or row.held:
                verdicts[row.user_id] = AccountStatus.UNVERIFIABLE
            elif row.gone_since is None or self._vanished_again(row):
                new.append(row)
            else:
                verdicts[row.user_id] = None
                if row.alive:
                    await self._end(row, EndReason.GONE)
        if new:
            self._remember_marked([row.user_id for row in new])
            gone = await self._brake.let_go(new, all_asked)
            for row in new:
                verdicts[row.user_id] = None if gone else AccountStatus.UNVERIFIABLE
                if gone and row.alive:
                    await self._end(row, EndReason.GONE)
        for user_id in links:
            verdicts.setdefault(user_id, AccountStatus.UNVERIFIABLE)
        return verdicts

    def _vanished_again(self, row: WatchedLink) -> bool:
        """Say whether an account that is marked as gone has logged in since, and vanished anew."""
        return row.alive and self._brake.is_past(row.gone_since)

    async def _end(self, row: WatchedLink, reason: EndReason) -> None:
        ended = await self._endings.end(row.user_id, reason)
        self.log.info(
            "{user_id} is {reason} at {provider}: {count} access tokens ended",
            user_id=row.user_id,
            reason=reason.value,
            provider=row.link.provider,
            count=ended,
        )

    def _remember_marked(self, user_ids: Sequence[str]) -> None:
        if self._marked is not None:
            self._marked.update(user_ids)
