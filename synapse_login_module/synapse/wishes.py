"""What commands leave to the running Synapse, which alone can end sessions: its caches know tokens.

A command writes down whom it is about, and why; the main process reads that every few seconds, does
it, and strikes it out. While no Synapse runs, the wishes wait for the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.accounts.watch import Endings, EndReason
from synapse_login_module.errors import ProviderUnavailable, StoreUnavailable
from synapse_login_module.linkwatch import ILinkWatch, WatchedLink
from synapse_login_module.synapse import link_rows
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.link_rows import Wish
from synapse_login_module.synapse.tables import TokenRows

_EVERY = 5.0
_MANY = 100

_AFTER_TROUBLE = 60.0
"""Seconds until those are tried again of whom a provider could not be asked."""

T = TypeVar("T")

Work = Coroutine[Deferred[Any], Any, float]


class WishService(Service):
    """Carries out what commands have written down, for as long as it runs.

    :param homeserver: the way into Synapse; the main process.
    :param watch: the links.
    :param questions: how an account is asked for once more.
    :param judge: what lets those go whom the brake holds.
    :param endings: what ends sessions.
    :param clock: wakes us.
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
        self._homeserver = homeserver
        self._watch = watch
        self._questions = questions
        self._judge = judge
        self._endings = endings
        self._clock = clock
        self._next: dict[str, IDelayedCall] = {}

    def startService(self) -> None:
        """Begin."""
        super().startService()
        # Apart, so that a provider that is slow to answer keeps no changed link waiting.
        self._repeat("links that were changed", self._end_changed)
        self._repeat("accounts that have vanished", self._end_gone)

    def stopService(self) -> None:
        """Begin nothing new."""
        super().stopService()
        for call in self._next.values():
            if call.active():
                call.cancel()

    def _repeat(self, what: str, work: Callable[[], Work]) -> None:
        def failed(failure: Failure) -> float:
            if not failure.check(StoreUnavailable):
                self.log.failure("cannot look for {what}; trying again", failure, what=what)
            return _EVERY

        def again(delay: float) -> None:
            if self.running:
                self._next[what] = self._clock.callLater(delay, self._repeat, what, work)

        Deferred.fromCoroutine(work()).addErrback(failed).addCallback(again)

    async def _end_changed(self) -> float:
        """End what was unlinked or relinked; say in how many seconds to look again."""
        for wish in await self._transaction(link_rows.wishes):
            await self._carry_out(wish, self._end)
        return _EVERY

    async def _end_gone(self) -> float:
        """Let those go whom the brake held, once their provider has been asked again.

        A provider that is away is asked once a round, and the rounds are then further apart.
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
        """Do what a wish says and strike it out; say whether that is done.

        What goes wrong with one is no matter of the others'.

        :raise ProviderUnavailable: as the work does.
        """
        try:
            await work(wish)
            await self._strike_out(wish)
        except ProviderUnavailable:
            raise
        except StoreUnavailable:
            return False
        except Exception:
            self.log.failure(
                "cannot end what a command wished of {user_id}; trying again", user_id=wish.user_id
            )
            return False
        return True

    async def _end(self, wish: Wish) -> None:
        ended = await self._endings.end(wish.user_id, EndReason(wish.reason))
        if wish.locked:  # last, so that nobody gets in before their sessions have ended
            await self._endings.lock(wish.user_id, False)
        self.log.info(
            "{count} sessions of {user_id} ended: its link was changed by a command",
            count=ended,
            user_id=wish.user_id,
        )

    async def _let_go(self, row: WatchedLink | None, _: Wish) -> None:
        if row is not None:
            await self._judge.end_held(row, await self._questions.ask(row.link))

    def _strike_out(self, wish: Wish) -> Deferred[None]:
        """Strike a wish out, unless there is a newer one."""
        return self._transaction(
            lambda rows: link_rows.fulfilled(rows, wish.user_id, wish.wished_at)
        )

    def _transaction(self, work: Callable[[TokenRows], T]) -> Deferred[T]:
        return self._homeserver.call_in_background(
            self._homeserver.transaction, "synapse_login_wishes", work
        )
