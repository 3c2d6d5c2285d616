"""What becomes of an account when its provider has been asked for it."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger

from synapse_login_module.accounts.brake import Brake
from synapse_login_module.accounts.watch import Endings, EndReason
from synapse_login_module.linkwatch import ILinkWatch, WatchedLink
from synapse_login_module.model import AccountStatus, Link

_MANY = 200

Answer = tuple[WatchedLink, AccountStatus | None]
"""A link, and what its provider said."""


class Judge:
    """Ends the sessions of accounts that are gone or closed, unless the brake holds them, and has
    the homeserver know who is locked. Every answer of a provider comes through here.

    :param watch: the links.
    :param brake: says whether so many can be gone.
    :param endings: does it.
    """

    log = Logger()

    def __init__(self, watch: ILinkWatch, brake: Brake, endings: Endings) -> None:
        self._watch = watch
        self._brake = brake
        self._endings = endings
        self._one_at_a_time = DeferredLock()
        # Most answers are "active", of accounts of which nothing is written down: these cost
        # nothing. Until it is known which those are, each is looked up.
        self._marked: set[str] | None = None

    async def start(self) -> None:
        """Find out of whom anything is written down."""
        self._marked = {*await self._watch.marked(), *(self._marked or ())}

    def judge(
        self, user_id: str, link: Link | None, status: AccountStatus | None
    ) -> Deferred[AccountStatus | None]:
        """Say what an answer means for a user.

        :param user_id: who was asked for.
        :param link: the link by which; ``None`` for a user that has none.
        :param status: what the provider said; ``None`` when it knows no such account any more.
        :return: fires with what is to count, once it has been acted upon: ``None`` and
            ``DEACTIVATED`` when all sessions of the user have ended, ``UNVERIFIABLE`` when the
            brake holds them or the provider cannot say. Fails with
            :class:`~synapse_login_module.errors.StoreUnavailable`.
        """
        if self._is_of_no_concern(user_id, status):
            return succeed(status)
        return Deferred.fromCoroutine(self._judge(user_id, link, status))

    def _is_of_no_concern(self, user_id: str, status: AccountStatus | None) -> bool:
        """Whether an answer is one of the many that change nothing."""
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
            # Unlinked or linked anew since: whoever did that ends what has to end.
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
        """Act upon answers.

        :param all_asked: whether these are of all accounts of a provider.
        :return: what each counts as, by user; see :meth:`judge`.
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
        """Act upon an answer for somebody whom the brake holds, and is to hold no longer."""
        if status is not None:
            await self._settle_known(row, status)
            return
        fresh = await self._again(row)
        if fresh is None or not fresh.held:
            return
        await self._watch.mark([row.user_id], gone_since=fresh.gone_since, held=False)
        await self._end(fresh, EndReason.GONE)

    async def _again(self, row: WatchedLink) -> WatchedLink | None:
        """What a link is by now; ``None`` when it is there no more, or of another account."""
        found = await self._watch.find([row.user_id])
        return next((each for each in found if each.link == row.link), None)

    async def _settle_known(self, row: WatchedLink, status: AccountStatus) -> AccountStatus:
        """Act upon the status of an account that is there, and say what it counts as.

        The answer is about the subject that was linked when the question was asked, which may have
        taken a while: it says nothing about whoever is linked by now.

        :param row: as it was before the question.
        """
        if self._is_settled(row, status):
            return status
        fresh = await self._again(row)
        return AccountStatus.UNVERIFIABLE if fresh is None else await self._act(fresh, status)

    def _is_settled(self, row: WatchedLink, status: AccountStatus) -> bool:
        """Whether an answer changes nothing, so that nothing need be looked up."""
        if status is AccountStatus.UNVERIFIABLE:
            return True
        if row.is_marked or self._marked is None or row.user_id in self._marked:
            return False
        if status is AccountStatus.DEACTIVATED:
            return not row.alive
        return status is AccountStatus.ACTIVE

    async def _act(self, row: WatchedLink, status: AccountStatus) -> AccountStatus:
        """Act upon the status of an account; on its row as it is."""
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
        """Have the homeserver know; a lock that is there already is somebody else's or told."""
        if row.is_locked:
            return
        self._note([row.user_id])
        # In this order: a lock that is not known to be ours would stay for ever.
        if not await self._watch.mark_locked(row.link, True):
            return  # unlinked this moment: nobody would take the lock back
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
        """Act upon accounts that their provider knows no more; under the lock."""
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
            elif row.gone_since is None or self._has_been_back(row):
                new.append(row)
            else:
                verdicts[row.user_id] = None
                if row.alive:
                    await self._end(row, EndReason.GONE)
        if new:
            self._note([row.user_id for row in new])
            gone = await self._brake.let_go(new, all_asked)
            for row in new:
                verdicts[row.user_id] = None if gone else AccountStatus.UNVERIFIABLE
                if gone and row.alive:
                    await self._end(row, EndReason.GONE)
        for user_id in links:
            verdicts.setdefault(user_id, AccountStatus.UNVERIFIABLE)
        return verdicts

    def _has_been_back(self, row: WatchedLink) -> bool:
        """Whether somebody who is gone has logged in since, and so has vanished once more."""
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

    def _note(self, user_ids: Sequence[str]) -> None:
        if self._marked is not None:
            self._marked.update(user_ids)
