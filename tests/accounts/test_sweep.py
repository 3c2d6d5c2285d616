"""The sweep over linked accounts, by a clock that the tests turn."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.accounts.brake import BrakeLimit
from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.model import LinkCounts
from tests.accounts.fakes import ACTIVE, LOCKED, UNVERIFIABLE, Accounts

INTERVAL = 900


class SweepCase(SynchronousTestCase):
    """A sweep over fakes."""

    def setUp(self) -> None:
        self.use(Accounts(interval=INTERVAL))

    def use(self, accounts: Accounts) -> None:
        """Test these."""
        self.accounts = accounts
        self.watch = accounts.watch
        self.providers = accounts.providers
        self.addCleanup(self.stop)

    def start(self) -> None:
        """Begin."""
        self.successResultOf(Deferred.fromCoroutine(self.accounts.judge.start()))
        self.accounts.sweep.startService()
        self.accounts.clock.advance(0)

    def stop(self) -> None:
        """End, if it runs."""
        if self.accounts.sweep.running:
            self.accounts.sweep.stopService()

    def asked(self) -> list[tuple[float, str]]:
        """When who was asked for, since this was last called."""
        asked, self.providers.asked = self.providers.asked, []
        return asked

    def add(self, number: int, provider: str = "ldap") -> list[str]:
        """Link accounts that have been looked at in the course of the last interval."""
        users = self.watch.add(number, provider)
        for index, user in enumerate(users):
            ago = self.accounts.interval * 1000 * (number - index) // (number + 1)
            self.watch.change(user, looked_at=self.accounts.now - ago)
        return users


class EvennessTests(SweepCase):
    """How often accounts are asked for, and when."""

    def test_clock_set_back(self) -> None:
        """After the clock was set back, each account is still looked at within an interval, and a
        new one too.
        """
        self.add(100)
        self.start()
        self.accounts.pass_time(INTERVAL / 2)
        self.accounts.clock.rightNow -= 7 * INTERVAL
        for call in self.accounts.clock.calls:  # timers are steady
            call.time -= 7 * INTERVAL
        self.asked()
        self.watch.add(20, "sql")
        self.accounts.pass_time(INTERVAL)
        counts = Counter(subject for _, subject in self.asked())
        self.assertEqual(len(counts), 120)
        self.assertLessEqual(sum(counts.values()), 240)

    def test_started_again(self) -> None:
        """A beat that ends late, once it was stopped and started again, begins no second row."""
        late: Deferred[LinkCounts] = Deferred()
        whole = self.watch.counts
        self.patch(self.watch, "counts", lambda since: late)
        self.start()
        self.stop()
        self.patch(self.watch, "counts", whole)
        self.start()
        whole(0).chainDeferred(late)
        self.assertEqual(len(self.accounts.clock.getDelayedCalls()), 1)

    def sweep_all(self, number: int, interval: int = INTERVAL) -> Counter[str]:
        """Sweep over accounts for an interval; return how often each was looked at."""
        self.use(Accounts(interval=interval))
        self.add(number)
        self.start()
        self.accounts.pass_time(interval)
        counts = Counter(subject for _, subject in self.asked())
        self.assertEqual(len(counts), number)
        self.assertEqual(self.accounts.seen.lag, 0)
        return counts

    def test_each_once_an_interval(self) -> None:
        """Each account is looked at within its interval, and not much more often."""
        self.assertLessEqual(sum(self.sweep_all(1000).values()), 1250)

    def test_many_in_an_interval(self) -> None:
        """Of many accounts each is looked at in time too, 22 in a second."""
        self.sweep_all(4000, INTERVAL // 5)

    def test_evenly(self) -> None:
        """In no stretch of ten seconds more than a fifth above the even rate and one batch."""
        self.add(1000)
        self.start()
        self.accounts.pass_time(INTERVAL)
        tens = Counter(int(at) // 10 for at, _ in self.asked())
        self.assertLessEqual(max(tens.values()), 10 * 1000 / INTERVAL * 1.2 + 8)

    def test_far_behind(self) -> None:
        """After a long stop it is at most twice as fast, for half an interval, and logs that."""
        self.watch.add(1000)
        with capturedLogs() as events:
            self.start()
            self.accounts.pass_time(INTERVAL)
        asked = self.asked()
        seconds = Counter(int(at) for at, _ in asked)
        self.assertLessEqual(max(seconds.values()), 2 * 1000 / INTERVAL + 1)
        first = [at for at, _ in asked][:1000]
        self.assertLess(first[-1] - first[0], INTERVAL * 0.55)
        lines = _lines(events, "the sweep over linked accounts is behind")
        self.assertIn("one of ldap was looked at", lines[0])
        self.assertLessEqual(len(lines), INTERVAL / 60 / 2 + 2)
        self.assertEqual(self.accounts.seen.lag, 0)

    def answer(self, processor_time: float) -> None:
        """Answer the first question that waits, which uses the processor for some seconds."""
        self.accounts.processor_time += processor_time
        self.providers.waiting.pop(0).callback(ACTIVE)

    def test_rest(self) -> None:
        """However many accounts there are, each look is followed by a rest that is three times as
        long as it used the processor.
        """
        self.add(100_000)
        self.providers.slow.add("ldap")
        self.start()
        for expected in (4, 1):
            self.accounts.pass_time(0.1, 0.01)
            self.assertEqual(len(self.asked()), expected)
            self.answer(0.25)
            self.accounts.pass_time(0.7, 0.1)
            self.assertEqual(self.asked(), [])

    def test_far_provider(self) -> None:
        """A look that waits for its provider does not hold up the next, until four wait."""
        self.add(100_000)
        self.providers.slow.add("ldap")
        self.start()
        self.accounts.pass_time(0.04, 0.04)
        self.assertEqual(len(self.asked()), 1)
        self.accounts.pass_time(0.1, 0.01)
        self.assertEqual(len(self.asked()), 3)
        self.answer(0)
        self.accounts.pass_time(0.1, 0.01)
        self.assertEqual(len(self.asked()), 1)

    def test_stopped_between_looks(self) -> None:
        """A sweep that is stopped begins no look, and leaves no timer."""
        self.add(100_000)
        self.providers.slow.add("ldap")
        self.start()
        self.accounts.pass_time(0.04, 0.04)
        self.stop()
        self.assertEqual(self.accounts.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.asked()), 1)
        self.answer(0.25)
        self.assertEqual(self.accounts.clock.getDelayedCalls(), [])
        self.assertEqual(self.asked(), [])

    def test_slow_count(self) -> None:
        """Counting takes at most a twentieth of the time."""
        self.add(10)
        counts = self.watch.counts
        begun: list[float] = []

        def slowly(since: int) -> Deferred[LinkCounts]:
            begun.append(self.accounts.clock.seconds())
            return deferLater(self.accounts.clock, 2).addCallback(lambda _: counts(since))

        self.patch(self.watch, "counts", slowly)
        self.start()
        self.accounts.pass_time(100)
        self.assertEqual(len(begun), 3)
        for first, second in itertools.pairwise(begun):
            self.assertGreaterEqual(second - first, 40)

    def test_few_accounts(self) -> None:
        """One account alone is looked at in its interval as well."""
        self.add(1)
        self.start()
        self.accounts.pass_time(2 * INTERVAL, 1)
        self.assertIn(len(self.asked()), (2, 3))

    def test_short_interval(self) -> None:
        """So it is when the interval is short."""
        self.use(Accounts(interval=2))
        self.watch.add(3, looked_at=self.accounts.now - 1000)
        self.start()
        self.accounts.pass_time(1.9, 0.05)
        self.assertEqual({subject for _, subject in self.asked()}, {"id0", "id1", "id2"})

    def test_without_sessions(self) -> None:
        """Accounts without sessions are not asked about."""
        for user in self.watch.add(10):
            self.watch.change(user, alive=False)
        self.start()
        self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(self.asked(), [])

    def test_nobody(self) -> None:
        """Without links there is nothing to do, until there are some."""
        self.start()
        self.accounts.pass_time(60, 1)
        self.add(1)
        self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(len(self.asked()), 1)

    def test_stopped(self) -> None:
        """It ends when it is stopped."""
        self.watch.add(100)
        self.start()
        self.accounts.pass_time(60)
        self.accounts.sweep.stopService()
        self.asked()
        self.accounts.pass_time(60)
        self.assertEqual((self.asked(), self.accounts.clock.getDelayedCalls()), ([], []))


class TroubleTests(SweepCase):
    """What goes wrong, and that it goes on."""

    def test_failing_beat(self) -> None:
        """A beat and a tick that fail are followed by others."""
        users = self.add(100)
        self.start()
        self.accounts.pass_time(10)
        broken: Any = patch.object(self.watch, "due", side_effect=ZeroDivisionError)
        uncounted: Any = patch.object(self.watch, "counts", side_effect=ZeroDivisionError)
        with broken, uncounted:
            self.accounts.pass_time(30)
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 4)
        self.asked()
        self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(len({subject for _, subject in self.asked()}), len(users))

    def test_database_away(self) -> None:
        """While the database is away there is a line, no traceback, and nothing ends."""
        self.add(100)
        self.start()
        self.watch.down = True
        with capturedLogs() as events:
            self.accounts.pass_time(30, 1)
        self.assertTrue(_lines(events, "linked accounts are not looked at: told to be"))
        self.watch.down = False
        self.asked()
        self.accounts.pass_time(60, 1)
        self.assertTrue(self.asked())

    def test_broken_provider(self) -> None:
        """A provider with a bug does not stop the sweep, nor end anything."""
        users = self.add(50)
        error: Any = ZeroDivisionError("a bug")
        self.providers.answers["id0"] = error
        self.start()
        self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(len({subject for _, subject in self.asked()}), len(users))
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.assertEqual(self.watch.done, [])
        self.assertIn(("ldap", "failed"), self.accounts.outcomes)

    def test_outage(self) -> None:
        """An outage ends nothing."""
        self.accounts.lose(self.add(50), ProviderUnavailable("away"))
        self.start()
        self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(self.watch.done, [])
        self.assertEqual(Counter(self.accounts.outcomes).keys(), {("ldap", "unavailable")})

    def test_cannot_say(self) -> None:
        """Neither does a provider that can never say."""
        self.providers.everybody = UNVERIFIABLE
        self.add(50)
        self.start()
        self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(self.watch.done, [])

    def test_slow_provider(self) -> None:
        """At most four questions are under way, and one that hangs does not hold up others."""
        self.add(200, "ldap")
        others = self.add(200, "sql")
        self.providers.slow.add("ldap")
        self.start()
        self.accounts.pass_time(INTERVAL, 0.5)
        self.assertLessEqual(len(self.providers.waiting), 2)
        subjects = {subject for _, subject in self.asked()}
        self.assertLessEqual({self.watch.rows[user].link.subject for user in others}, subjects)
        self.accounts.pass_time(2 * INTERVAL, 1)
        self.assertGreater(self.accounts.seen.lag, INTERVAL)

    def test_no_burst_after_a_slow_answer(self) -> None:
        """What was not asked in the meantime is not asked at once afterwards."""
        self.add(1000)
        self.providers.slow.add("ldap")
        self.start()
        self.accounts.pass_time(300, 1)
        self.providers.slow.clear()
        self.asked()
        while self.providers.waiting:
            self.providers.waiting.pop().callback(ACTIVE)
        self.accounts.pass_time(1)
        self.assertLessEqual(len(self.asked()), 2 * 1000 / INTERVAL + 5)


class OutcomeTests(SweepCase):
    """What comes of it."""

    def test_gone(self) -> None:
        """Who is gone is out within an interval."""
        users = self.add(100)
        self.accounts.lose(users[7:9])
        self.start()
        self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(self.watch.ended(), users[7:9])
        self.accounts.pass_time(10, 1)
        self.assertEqual(self.accounts.links, {"ldap": 98})
        self.assertFalse(self.accounts.seen.brake)

    def test_lock_and_its_end(self) -> None:
        """The homeserver is told of a lock and of its end, without any refresh."""
        users = self.add(10)
        self.accounts.lose(users[:1], LOCKED)
        self.start()
        self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(self.watch.done, [("lock", users[0])])
        # Also where nothing is left that could end.
        self.watch.change(users[0], alive=False)
        self.accounts.regain(users[:1])
        self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(self.watch.done[1:], [("unlock", users[0])])

    def test_administrator(self) -> None:
        """A linked account that becomes an administrator is one line in the log."""
        (user,) = self.add(1)
        self.watch.change(user, is_admin=True)
        with capturedLogs() as events:
            self.start()
            self.accounts.pass_time(3 * INTERVAL, 1)
        lines = _lines(events, "is a server administrator now")
        self.assertEqual(lines, [f"{user}, linked to id0 of ldap, is a server administrator now"])

    def test_brake(self) -> None:
        """When all accounts vanish, no sessions end; a line a minute and the meter say so."""
        users = self.add(40)
        self.accounts.lose(users)
        with capturedLogs() as events:
            self.start()
            self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(self.watch.done, [])
        self.assertTrue(self.accounts.seen.brake)
        lines = _lines(events, "the brake is on")
        self.assertIn("of 40 linked accounts have vanished", lines[-1])
        self.assertIn(len(lines), range(10, INTERVAL // 60 + 2))
        self.accounts.pass_time(3 * INTERVAL, 1)
        self.assertEqual(self.watch.done, [])

    def test_brake_is_over(self) -> None:
        """When those who vanished are back the brake is off; those few who are not are gone."""
        users = self.add(40)
        self.accounts.lose(users)
        self.start()
        self.accounts.pass_time(INTERVAL, 1)
        self.accounts.regain(users[3:])
        self.accounts.pass_time(3 * INTERVAL, 1)
        self.assertFalse(self.accounts.seen.brake)
        self.assertEqual(self.watch.ended(), users[:3])

    def test_sessions_without_accounts_are_few(self) -> None:
        """The brake sees accounts that have no session too, before those few end that have."""
        users = self.add(200)
        for user in users[15:]:
            self.watch.change(user, alive=False)
        self.accounts.lose(users)
        self.start()
        self.accounts.pass_time(INTERVAL, 1)
        self.assertEqual(self.watch.done, [])


class FileTests(SweepCase):
    """A file of accounts that changes."""

    names = ("file", "former")

    def setUp(self) -> None:
        super().setUp()
        self.users = self.add(30, "file") + self.add(30, "former")
        self.others = self.add(30, "sql")
        self.accounts.versions = {self.names: 1}

    def test_at_once(self) -> None:
        """Its accounts are looked at at once, under all names of the provider; no others are."""
        self.start()
        self.accounts.pass_time(10, 1)
        gone = [self.users[3], self.users[40]]
        self.accounts.lose([*gone, self.others[3]])
        self.accounts.versions = {self.names: 2}
        self.accounts.pass_time(1.1)
        self.assertEqual(self.watch.ended(), gone)
        self.asked()
        self.accounts.pass_time(1)
        self.assertLess(len(self.asked()), 4)

    def test_broken_provider(self) -> None:
        """An error about one account stops nothing, and is not met again at each beat."""
        self.start()
        self.providers.answers[self.watch.rows[self.users[3]].link.subject] = ZeroDivisionError()
        self.accounts.lose([self.users[40]])
        self.accounts.versions = {self.names: 2}
        self.accounts.pass_time(10, 1)
        self.assertEqual(self.watch.ended(), [self.users[40]])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_half_of_it(self) -> None:
        """When half of it is gone, no sessions end."""
        self.start()
        self.accounts.lose(self.users[:30])
        self.accounts.versions = {self.names: 2}
        self.accounts.pass_time(60, 1)
        self.assertEqual(self.watch.done, [])
        self.assertEqual(sum(row.held for row in self.watch.rows.values()), 30)

    def test_as_many_as_may(self) -> None:
        """When as many are gone as may be, they go without a sample."""
        self.start()
        self.accounts.lose(self.users[:10])
        self.accounts.versions = {self.names: 2}
        self.accounts.pass_time(1.1)
        self.assertEqual(self.watch.ended(), self.users[:10])

    def test_without_a_session(self) -> None:
        """Those without a session count; nothing is to be ended of theirs."""
        for user in self.users:
            self.watch.change(user, alive=False)
        self.start()
        self.accounts.lose(self.users)
        self.accounts.versions = {self.names: 2}
        self.accounts.pass_time(1.1)
        self.assertEqual(self.watch.done, [])
        self.assertTrue(all(self.watch.rows[user].held for user in self.users))

    def test_tried_again(self) -> None:
        """What fails is tried again with the next beat."""
        self.start()
        self.accounts.lose(self.users[:1])
        self.accounts.versions = {self.names: 2}
        broken: Any = patch.object(self.watch, "page", side_effect=ZeroDivisionError)
        with broken:
            self.accounts.pass_time(2.1)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.accounts.pass_time(1.1)
        self.assertEqual(self.watch.ended(), self.users[:1])

    def test_many_accounts(self) -> None:
        """The reactor gets its turn while many are looked at."""
        self.use(Accounts(BrakeLimit(0, 0), INTERVAL))
        self.add(1000, "file")
        self.accounts.versions = {("file",): 1}
        self.start()
        self.accounts.versions = {("file",): 2}
        turns: list[int] = []

        def turn() -> None:
            turns.append(len(self.providers.asked))
            if len(turns) < 20:
                self.accounts.clock.callLater(0, turn)

        self.accounts.clock.callLater(1, turn)
        self.accounts.clock.advance(1)
        self.assertGreaterEqual(turns[-1], 1000)
        steps = [later - sooner for sooner, later in itertools.pairwise(turns)]
        self.assertLessEqual(max(steps), 110)


def _lines(events: Sequence[LogEvent], part: str) -> list[str]:
    """The lines of the log with this in them."""
    return [line for line in map(formatEvent, events) if part in line]
