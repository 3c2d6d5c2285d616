"""A homeserver's links in memory, and providers that answer as they are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from synapse_login_module.accounts.brake import Brake, BrakeLimit
from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.accounts.sweep import AccountSweep, Versions
from synapse_login_module.accounts.watch import EndReason, SweepMeter
from synapse_login_module.errors import ProviderUnavailable, StoreUnavailable
from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import AccountStatus, Link, LinkCounts, WatchedLink

ACTIVE, LOCKED = AccountStatus.ACTIVE, AccountStatus.LOCKED
DEACTIVATED, UNVERIFIABLE = AccountStatus.DEACTIVATED, AccountStatus.UNVERIFIABLE

LIMIT = BrakeLimit(10, 10)


@implementer(ILinkWatch)
class FakeWatch:
    """Links and users in memory, and all that is done to users; ``down`` fails everything."""

    def __init__(self) -> None:
        self.rows: dict[str, WatchedLink] = {}
        self.unlinked: list[str] = []
        self.done: list[tuple[str, str]] = []
        self.finds = 0
        self._random = Random(1)
        self.down = False

    def add(self, number: int, provider: str = "ldap", looked_at: int = 0) -> list[str]:
        """Link a number of users, each with a session."""
        added = []
        for index in range(number):
            user_id = f"@{provider}{len(self.rows):05}:x"
            link = Link(user_id, provider, f"id{len(self.rows)}")
            at = looked_at + index
            self.rows[user_id] = WatchedLink(
                link, at, None, False, False, False, True, False, False
            )
            added.append(user_id)
        return added

    def change(self, user_id: str, **changes: object) -> None:
        """Change the row of a user."""
        self.rows[user_id] = self.rows[user_id]._replace(**changes)  # type: ignore[arg-type]

    def ended(self) -> list[str]:
        """Whose sessions have ended."""
        return sorted({user for what, user in self.done if what in ("gone", "deactivated")})

    # Endings.

    def end(self, user_id: str, reason: EndReason) -> Deferred[int]:
        self.done.append((reason.value, user_id))
        if user_id in self.rows:
            self.change(user_id, alive=False)
        return succeed(1)

    def lock(self, user_id: str, locked: bool) -> Deferred[None]:
        self.done.append(("lock" if locked else "unlock", user_id))
        if user_id in self.rows:
            self.change(user_id, is_locked=locked)
        return succeed(None)

    # ILinkWatch.

    def counts(self, since: int) -> Deferred[LinkCounts]:
        if self.down:
            return fail(StoreUnavailable("told to be"))
        rows = list(self.rows.values())
        providers = {row.link.provider for row in rows}
        lately = [row for row in rows if row.held or (row.gone_since or 0) > since]
        return succeed(
            LinkCounts(
                {p: sum(row.link.provider == p for row in rows) for p in providers},
                {
                    p: sum(row.link.provider == p and row.gone_since is None for row in rows)
                    for p in providers
                },
                sum(row.gone_since is None for row in rows) + len(lately),
                len(lately),
                sum(row.held for row in rows),
                max((row.gone_since or 0 for row in rows if row.held), default=None),
                min((row.looked_at for row in rows), default=None),
            )
        )

    def due(self, provider: str, limit: int, now: int) -> Deferred[list[WatchedLink]]:
        if self.down:
            return fail(StoreUnavailable("told to be"))
        found = [row for row in self.rows.values() if row.link.provider == provider]
        found.sort(key=lambda row: (row.looked_at <= now, row.looked_at, row.user_id))
        found = found[:limit]
        for row in found:
            self.change(row.user_id, looked_at=now)
        return succeed(found)

    def page(
        self, providers: Sequence[str], after: str, limit: int, held: bool = False
    ) -> Deferred[list[WatchedLink]]:
        return succeed(
            [
                row
                for user_id, row in sorted(self.rows.items())
                if user_id > after
                and (not providers or row.link.provider in providers)
                and (row.held or not held)
            ][:limit]
        )

    def marked(self) -> Deferred[list[str]]:
        return succeed([row.user_id for row in self.rows.values() if row.is_marked])

    def find(self, user_ids: Sequence[str]) -> Deferred[list[WatchedLink]]:
        self.finds += 1
        return succeed([self.rows[user] for user in user_ids if user in self.rows])

    def sample(self, provider: str, limit: int) -> Deferred[list[Link]]:
        rows = [row for row in self.rows.values() if row.link.provider == provider]
        living = [row.link for row in rows if row.gone_since is None]
        return succeed(self._random.sample(living, min(limit, len(living))))

    def sample_unlinked(self, limit: int) -> Deferred[list[str]]:
        return succeed(self.unlinked[:limit])

    def mark(self, user_ids: Sequence[str], gone_since: int | None, held: bool) -> Deferred[None]:
        for user_id in user_ids:
            self.change(user_id, gone_since=gone_since, held=held)
        return succeed(None)

    def mark_locked(self, link: Link, locked: bool) -> Deferred[bool]:
        row = self.rows.get(link.user_id)
        if row is None or row.link != link:
            return succeed(False)
        self.change(link.user_id, locked=locked)
        return succeed(True)

    def mark_admin(self, user_id: str, admin: bool) -> Deferred[None]:
        self.change(user_id, admin=admin)
        return succeed(None)


class FakeProviders:
    """A provider whose accounts are active unless ``answers`` or ``unlinked`` says otherwise.

    :ivar everybody: the answer about all subjects that ``answers`` does not have.
    :ivar asked: when it was asked, and about which subject or user ID.
    :ivar waiting: the unanswered questions to ``slow`` providers.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.answers: dict[str, AccountStatus | Exception | None] = {}
        self.everybody: AccountStatus | None = ACTIVE
        self.unlinked: dict[str, AccountStatus | None] = {}
        self.slow: set[str] = set()
        self.waiting: list[Deferred[AccountStatus | None]] = []
        self.asked: list[tuple[float, str]] = []

    def account_status(self, provider: str, subject: str) -> Deferred[AccountStatus | None]:
        self.asked.append((self._clock.seconds(), subject))
        if provider in self.slow:
            waiting: Deferred[AccountStatus | None] = Deferred()
            self.waiting.append(waiting)
            return waiting
        answer = self.answers.get(subject, self.everybody)
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def status_by_name(self, user_id: str) -> Deferred[AccountStatus | None]:
        self.asked.append((self._clock.seconds(), user_id))
        return succeed(self.unlinked.get(user_id, ACTIVE))


@dataclass
class Seen:
    """What a sweep has shown."""

    lag: float = -1.0
    brake: bool = False


class Accounts:
    """The whole, over fakes.

    :param limit: of the brake.
    :param interval: seconds.
    """

    def __init__(self, limit: BrakeLimit | None = LIMIT, interval: int = 900) -> None:
        self.interval = interval
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.watch = FakeWatch()
        self.providers = FakeProviders(self.clock)
        self.outcomes: list[tuple[str, str]] = []
        self.seen = Seen()
        self.links: dict[str, int] = {}
        self.versions: dict[tuple[str, ...], object] = {}
        self.processor_time = 0.0
        self.questions = Questions(
            self.providers, lambda *outcome: self.outcomes.append(outcome), at_once=4
        )
        self.brake = Brake(self.watch, self.questions, limit, interval, self.clock)
        self.judge = Judge(self.watch, self.brake, self.watch)
        self.sweep = AccountSweep(
            self.watch,
            self.questions,
            self.judge,
            self.brake,
            interval,
            self.clock,
            self._versions,
            SweepMeter(self._lag, self._held, self.links.__setitem__),
            lambda: self.processor_time,
            self.clock.seconds,
        )

    def _versions(self) -> Versions:
        return dict(self.versions)

    def _lag(self, lag: float) -> None:
        self.seen.lag = lag

    def _held(self, number: int) -> None:
        self.seen.brake = number > 0

    @property
    def now(self) -> int:
        """The time, as links keep it."""
        return int(self.clock.seconds() * 1000)

    def lose(self, user_ids: Sequence[str], answer: object = None) -> None:
        """Make the provider forget users, or give another answer about them."""
        for user_id in user_ids:
            subject = self.watch.rows[user_id].link.subject
            assert answer is None or isinstance(answer, (AccountStatus, ProviderUnavailable))
            self.providers.answers[subject] = answer

    def regain(self, user_ids: Sequence[str]) -> None:
        """Have the provider know these again."""
        for user_id in user_ids:
            del self.providers.answers[self.watch.rows[user_id].link.subject]

    def ask(self, user_id: str) -> Deferred[AccountStatus | None]:
        """What a refresh does: ask, and pass the answer through the judge."""
        link = self.watch.rows[user_id].link
        asked = self.providers.account_status(link.provider, link.subject)
        return asked.addCallback(lambda status: self.judge.judge(user_id, link, status))

    def pass_time(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
