"""What commands leave to the running Synapse, which alone can end sessions: its caches know tokens.

A command writes down whom it is about, and why; the main process reads that every few seconds, does
it, and strikes it out. While no Synapse runs, the wishes wait for the next start.
"""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.accounts.watch import Endings, EndReason, ILinkWatch
from synapse_login_module.errors import ProviderUnavailable, StoreUnavailable
from synapse_login_module.synapse import link_rows
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.link_rows import Wish
from synapse_login_module.synapse.tables import TokenRows

_EVERY = 5.0
_MANY = 100


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
        self._next: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._look()

    def stopService(self) -> None:
        """Begin nothing new."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _look(self) -> None:
        def failed(failure: Failure) -> None:
            if not failure.check(StoreUnavailable):
                self.log.failure("cannot carry out what a command wished; trying again", failure)

        def again(_: object) -> None:
            if self.running:
                self._next = self._clock.callLater(_EVERY, self._look)

        Deferred.fromCoroutine(self._carry_out()).addErrback(failed).addCallback(again)

    async def _carry_out(self) -> None:
        def work(rows: TokenRows) -> list[Wish]:
            return link_rows.wishes(rows, _MANY)

        for wish in await self._homeserver.call_in_background(
            self._homeserver.transaction, "synapse_login_wishes", work
        ):
            if await self._fulfil(wish):
                await self._strike_out(wish)

    async def _fulfil(self, wish: Wish) -> bool:
        """Do what a wish says; say whether that is done."""
        if wish.reason != EndReason.GONE.value:
            ended = await self._endings.end(wish.user_id, EndReason(wish.reason))
            if wish.locked:  # last, so that nobody gets in before their sessions have ended
                await self._endings.lock(wish.user_id, False)
            self.log.info(
                "{count} sessions of {user_id} ended: its link was changed by a command",
                count=ended,
                user_id=wish.user_id,
            )
            return True
        for row in await self._watch.find([wish.user_id]):
            if row.held:
                try:
                    status = await self._questions.ask(row.link)
                except ProviderUnavailable:
                    return False
                await self._judge.end_held(row, status)
        return True

    def _strike_out(self, wish: Wish) -> Deferred[None]:
        """Strike a wish out, unless there is a newer one."""

        def work(rows: TokenRows) -> None:
            link_rows.fulfilled(rows, wish.user_id, wish.wished_at)

        return self._homeserver.call_in_background(
            self._homeserver.transaction, "synapse_login_wish", work
        )
