"""Carries out wishes: requests of commands to end sessions.

Only the running Synapse can end sessions, since its caches hold tokens. So a command inserts a wish
with the user and the reason. The main process reads the wishes every few seconds, carries them out
and deletes them. While Synapse does not run, they wait for its next start.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.accounts.watch import Endings, EndReason
from synapse_login_module.errors import ProviderUnavailable, StoreUnavailable
from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import WatchedLink
from synapse_login_module.synapse import link_rows
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.link_rows import Wish
from synapse_login_module.synapse.rounds import Rounds
from synapse_login_module.synapse.tables import TokenRows

_EVERY = 5.0
_MANY = 100

_AFTER_TROUBLE = 60.0
"""Seconds until the next round after one in which a wish could not be carried out."""

T = TypeVar("T")


class WishService(MultiService):
    """A service that carries out wishes while it runs.

    :param homeserver: the way into Synapse's main process.
    :param watch: the links.
    :param questions: asks about a held account once more.
    :param judge: acts on the answer, without the brake.
    :param endings: ends sessions, and unlocks users.
    :param clock: runs the rounds.
    """

    log = Logger()

    def __init__(
        self,
        homeserver: Homeserver,
        watch: ILinkWatch,
        questions: Questions,
        judge: Judge,
        endings: Endings,
        clock: IReactorTime,
    ) -> None:
        super().__init__()
        self._homeserver = homeserver
        self._watch = watch
        self._questions = questions
        self._judge = judge
        self._endings = endings
        # In separate rounds, so that a slow provider does not delay the wishes for changed links.
        for what, work in (
            ("for links that were changed", self._end_changed),
            ("for accounts that have vanished", self._end_gone),
        ):
            Rounds(what, work, _EVERY, clock).setServiceParent(self)

    async def _end_changed(self) -> float:
        """End the sessions of users whose link was changed; return the seconds until the next
        round.
        """
        for wish in await self._transaction(link_rows.wishes):
            await self._carry_out(wish, self._end)
        return _EVERY

    async def _end_gone(self) -> float:
        """Let held accounts go, after asking their providers again; return the seconds until the
        next round.

        A provider that is unavailable is asked once a round, and the next round is later.
        """
        away: set[str] = set()
        after, delay = "", _EVERY
        while self.running:
            found = await self._transaction(
                partial(link_rows.wishes_of_gone, after=after, limit=_MANY)
            )
            if not found:
                break
            after = found[-1].user_id
            held = {
                row.user_id: row
                for row in await self._watch.find([wish.user_id for wish in found])
                if row.held
            }
            for wish in found:
                row = held.get(wish.user_id)
                if row is not None and row.link.provider in away:
                    continue
                try:
                    done = await self._carry_out(wish, partial(self._let_go, row))
                except ProviderUnavailable:
                    assert row is not None
                    away.add(row.link.provider)
                    done = False
                if not done:
                    delay = _AFTER_TROUBLE
        return delay

    async def _carry_out(
        self, wish: Wish, work: Callable[[Wish], Coroutine[Deferred[Any], Any, None]]
    ) -> bool:
        """Carry out a wish and delete it; return whether that succeeded.

        An error is logged and does not stop the other wishes.

        :raise ProviderUnavailable: as the work does.
        """
        try:
            await work(wish)
            await self._delete(wish)
        except ProviderUnavailable:
            raise
        except StoreUnavailable:
            return False
        except Exception:
            self.log.failure(
                "cannot end the sessions of {user_id} for a command; trying again",
                user_id=wish.user_id,
            )
            return False
        return True

    async def _end(self, wish: Wish) -> None:
        ended = await self._endings.end(wish.user_id, EndReason(wish.reason))
        if wish.locked:  # last, so that the user cannot log in before the old sessions have ended
            await self._endings.lock(wish.user_id, False)
        self.log.info(
            "{count} sessions of {user_id} ended: its link was changed by a command",
            count=ended,
            user_id=wish.user_id,
        )

    async def _let_go(self, row: WatchedLink | None, _: Wish) -> None:
        if row is not None:
            await self._judge.end_held(row, await self._questions.ask(row.link))

    def _delete(self, wish: Wish) -> Deferred[None]:
        """Delete a wish, unless a newer one has replaced it."""
        return self._transaction(
            lambda rows: link_rows.delete_wish(rows, wish.user_id, wish.wished_at)
        )

    def _transaction(self, work: Callable[[TokenRows], T]) -> Deferred[T]:
        return self._homeserver.call_in_background(
            self._homeserver.transaction, "synapse_login_wishes", work
        )
