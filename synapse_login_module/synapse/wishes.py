"""What commands leave to the running Synapse, which alone can end sessions: its caches know tokens.

A command writes down whom it is about, and why; the main process reads that every few seconds, does
it, and strikes it out. While no Synapse runs, the wishes wait for the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.accounts.watch import Endings, EndReason, ILinkWatch
from synapse_login_module.errors import ProviderUnavailable, StoreUnavailable
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.tables import TokenRows

CREATE = (
    "CREATE TABLE IF NOT EXISTS synapse_login_wishes (user_id TEXT PRIMARY KEY,"
    " reason TEXT NOT NULL, wished_at BIGINT NOT NULL, locked SMALLINT NOT NULL DEFAULT 0)",
)

_EVERY = 5.0
_MANY = 100


class Wish(NamedTuple):
    """Whose sessions are to end.

    :param reason: ``GONE`` for somebody whom the brake holds; ``UNLINKED`` or ``RELINKED`` for
        whom a command has unlinked or linked anew, in the same transaction.
    :param locked: whether Synapse was told of a lock of the link that was there before.
    """

    user_id: str
    reason: EndReason
    locked: bool = False


class Database(Protocol):
    """What wishes are written with: inside Synapse its transaction, in a command one of its own."""

    def fetch(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Run a query, written with ``?`` for its values."""

    def write(self, sql: str, *values: object) -> int:
        """Run a statement; say how many rows it touched."""


def put_wish(rows: Database, wish: Wish, now: int) -> None:
    """Write a wish down; a later one for the same user takes its place, and a lock stays told."""
    rows.write(
        "INSERT INTO synapse_login_wishes (user_id, reason, wished_at, locked) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (user_id) DO UPDATE SET reason = excluded.reason,"
        " wished_at = excluded.wished_at,"
        " locked = CASE WHEN excluded.locked <> 0 THEN 1 ELSE synapse_login_wishes.locked END",
        wish.user_id,
        wish.reason.value,
        now,
        int(wish.locked),
    )


def wishes(rows: TokenRows) -> list[tuple[Wish, int]]:
    """Some of the wishes, oldest first, and when each was written down."""
    found = rows.fetch(
        "SELECT user_id, reason, locked, wished_at FROM synapse_login_wishes"
        " ORDER BY wished_at, user_id LIMIT ?",
        _MANY,
    )
    return [(Wish(row[0], EndReason(row[1]), bool(row[2])), row[3]) for row in found]


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
        for wish, wished_at in await self._homeserver.call_in_background(
            self._homeserver.transaction, "synapse_login_wishes", wishes
        ):
            if await self._fulfil(wish):
                await self._strike_out(wish.user_id, wished_at)

    async def _fulfil(self, wish: Wish) -> bool:
        """Do what a wish says; say whether that is done."""
        if wish.reason is not EndReason.GONE:
            ended = await self._endings.end(wish.user_id, wish.reason)
            if wish.locked:  # last, so that nobody gets in before their sessions have ended
                await self._endings.lock(wish.user_id, False)
            self.log.info(
                "{user_id} is {reason}: {count} access tokens ended",
                user_id=wish.user_id,
                reason=wish.reason.value,
                count=ended,
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

    def _strike_out(self, user_id: str, wished_at: int) -> Deferred[int]:
        """Strike a wish out, unless there is a newer one."""

        def work(rows: TokenRows) -> int:
            return rows.write(
                "DELETE FROM synapse_login_wishes WHERE user_id = ? AND wished_at = ?",
                user_id,
                wished_at,
            )

        return self._homeserver.call_in_background(
            self._homeserver.transaction, "synapse_login_wish_done", work
        )


def wish_for_held(rows: Database, held: Sequence[str], now: int) -> None:
    """Wish that those whom the brake holds go."""
    for user_id in held:
        put_wish(rows, Wish(user_id, EndReason.GONE), now)
