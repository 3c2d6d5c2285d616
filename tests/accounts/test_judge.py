"""What becomes of accounts, and what the brake makes of many that vanish."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from synapse_login_module.accounts.brake import BrakeLimit
from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.interfaces import ILinkWatch
from synapse_login_module.model import AccountStatus, Link, WatchedLink
from tests.accounts.fakes import ACTIVE, DEACTIVATED, LOCKED, UNVERIFIABLE, Accounts, FakeWatch


class JudgeTests(SynchronousTestCase):
    """One account."""

    def setUp(self) -> None:
        self.accounts = Accounts()
        self.watch = self.accounts.watch
        self.users = self.watch.add(40)
        self.user = self.users[0]
        self.successResultOf(Deferred.fromCoroutine(self.accounts.judge.start()))

    def ask(self, answer: AccountStatus | None, user_id: str = "") -> AccountStatus | None:
        """Pass a provider's answer about a user, by default the first, to the judge."""
        self.accounts.lose([user_id or self.user], answer)
        result: AccountStatus | None = self.successResultOf(self.accounts.ask(user_id or self.user))
        return result

    def test_fake(self) -> None:
        """The fake provides the interface."""
        verifyObject(ILinkWatch, FakeWatch())

    def test_active(self) -> None:
        """An active account costs no look at the links."""
        self.assertIs(self.ask(ACTIVE), ACTIVE)
        self.assertEqual((self.watch.finds, self.watch.done), (0, []))

    def test_unchecked(self) -> None:
        """A provider that cannot say ends nothing."""
        self.assertIs(self.ask(UNVERIFIABLE), UNVERIFIABLE)
        self.assertEqual(self.watch.done, [])
        self.assertIsNone(self.watch.rows[self.user].gone_since)

    def test_gone(self) -> None:
        """An account that is gone loses its sessions, and is marked."""
        self.assertIsNone(self.ask(None))
        self.assertEqual(self.watch.done, [("gone", self.user)])
        row = self.watch.rows[self.user]
        self.assertEqual((row.gone_since, row.held), (self.accounts.now, False))

    def test_gone_twice(self) -> None:
        """Once there is nothing left to end, nothing ends; a login that was on its way does."""
        self.ask(None)
        self.assertIsNone(self.ask(None))
        self.assertEqual(len(self.watch.done), 1)
        self.watch.change(self.user, alive=True)
        self.assertIsNone(self.ask(None))
        self.assertEqual(len(self.watch.done), 2)

    def test_back(self) -> None:
        """An account that came back counts as before, and counts again when it vanishes again."""
        self.ask(None)
        self.assertIs(self.ask(ACTIVE), ACTIVE)
        self.assertIsNone(self.watch.rows[self.user].gone_since)
        self.assertIs(self.ask(ACTIVE), ACTIVE)
        finds = self.watch.finds
        self.ask(ACTIVE)
        self.assertEqual(self.watch.finds, finds)

    def test_deactivated(self) -> None:
        """A deactivated account loses its sessions, and does not count as vanished."""
        for user_id in self.users:
            self.assertIs(self.ask(DEACTIVATED, user_id), DEACTIVATED)
        self.assertEqual(self.watch.ended(), self.users)

    def test_locked(self) -> None:
        """The homeserver is told of a lock, once, and of its end; sessions stay."""
        self.assertIs(self.ask(LOCKED), LOCKED)
        self.assertIs(self.ask(LOCKED), LOCKED)
        self.assertIs(self.ask(ACTIVE), ACTIVE)
        self.assertEqual(self.watch.done, [("lock", self.user), ("unlock", self.user)])
        self.assertFalse(self.watch.rows[self.user].locked)

    def test_lock_of_an_administrator(self) -> None:
        """A lock that was there before stays when the provider's ends."""
        self.watch.change(self.user, is_locked=True)
        self.assertIs(self.ask(LOCKED), LOCKED)
        self.assertIs(self.ask(ACTIVE), ACTIVE)
        self.assertEqual(self.watch.done, [])
        self.assertTrue(self.watch.rows[self.user].is_locked)

    def test_lock_ends_without_a_link_at_hand(self) -> None:
        """An answer that comes without the link ends our lock as well."""
        self.ask(LOCKED)
        self.assertIs(
            self.successResultOf(self.accounts.judge.judge(self.user, None, ACTIVE)), ACTIVE
        )
        self.assertEqual(self.watch.done, [("lock", self.user), ("unlock", self.user)])

    def test_relinked(self) -> None:
        """An answer for a link that is no longer the user's ends nothing."""
        judging = self.accounts.judge.judge(self.user, Link(self.user, "ldap", "former"), None)
        self.assertIs(self.successResultOf(judging), UNVERIFIABLE)
        self.assertEqual(self.watch.done, [])

    def test_without_a_start(self) -> None:
        """Until the marks have been read, each link is looked up."""
        accounts = Accounts()
        (user,) = accounts.watch.add(1)
        accounts.watch.change(user, locked=True, is_locked=True)
        self.assertIs(self.successResultOf(accounts.ask(user)), ACTIVE)
        self.assertEqual(accounts.watch.done, [("unlock", user)])


class StaleAnswerTests(SynchronousTestCase):
    """A link changes while the provider of the account before is being asked."""

    def setUp(self) -> None:
        self.accounts = Accounts()
        self.watch = self.accounts.watch
        self.user = self.watch.add(40)[0]
        self.successResultOf(Deferred.fromCoroutine(self.accounts.judge.start()))

    def changes(self) -> list[tuple[str, Link | None]]:
        """What may have become of the link, by what that is called."""
        return [("relinked", Link(self.user, "ldap", "another")), ("unlinked", None)]

    def change(self, link: Link | None) -> None:
        if link is None:
            del self.watch.rows[self.user]
        else:
            self.watch.change(self.user, link=link, gone_since=None, held=False, locked=False)

    def assert_untouched(self, link: Link | None, case: str) -> None:
        """Nothing was done to the user, and the link has no mark."""
        self.assertEqual(self.watch.done, [], case)
        row = self.watch.rows.get(self.user)
        self.assertEqual(None if row is None else row.link, link, case)
        self.assertFalse(row is not None and (row.is_marked or row.is_locked), case)

    def test_settled(self) -> None:
        """An answer about an account whose link has changed since changes nothing."""
        for status in (DEACTIVATED, LOCKED, None):
            for case, link in self.changes():
                self.setUp()
                row = self.watch.rows[self.user]
                self.change(link)
                settling = self.accounts.judge.settle([(row, status)], all_asked=False)
                verdicts = self.successResultOf(Deferred.fromCoroutine(settling))
                self.assertEqual(verdicts, {self.user: UNVERIFIABLE}, f"{case} {status}")
                self.assert_untouched(link, f"{case} {status}")

    def test_refreshed(self) -> None:
        """The same holds for an answer to the question of a refresh."""
        for status in (DEACTIVATED, LOCKED, None):
            for case, link in self.changes():
                self.setUp()
                before = self.watch.rows[self.user].link
                self.change(link)
                judging = self.accounts.judge.judge(self.user, before, status)
                self.assertIs(self.successResultOf(judging), UNVERIFIABLE, f"{case} {status}")
                self.assert_untouched(link, f"{case} {status}")

    def test_held(self) -> None:
        """A held account that an operator lets go stays as it is if its link has changed."""
        for status in (DEACTIVATED, LOCKED, None):
            for case, link in self.changes():
                self.setUp()
                self.watch.change(self.user, gone_since=1, held=True)
                row = self.watch.rows[self.user]
                self.change(link)
                ending = self.accounts.judge.end_held(row, status)
                self.successResultOf(Deferred.fromCoroutine(ending))
                self.assert_untouched(link, f"{case} {status}")

    def test_unlocked(self) -> None:
        """An account before that is active does not end the lock of the one that is linked now."""
        self.watch.change(self.user, locked=True, is_locked=True)
        row = self.watch.rows[self.user]
        self.watch.change(self.user, link=Link(self.user, "ldap", "another"))
        settling = self.accounts.judge.settle([(row, ACTIVE)], all_asked=False)
        self.successResultOf(Deferred.fromCoroutine(settling))
        self.assertEqual(self.watch.done, [])
        self.assertTrue(self.watch.rows[self.user].locked)

    def test_unlinked_at_the_last_moment(self) -> None:
        """A user whose link goes just before the lock is stored is not locked."""
        row = self.watch.rows[self.user]
        find = self.watch.find

        def find_and_unlink(user_ids: Sequence[str]) -> Deferred[list[WatchedLink]]:
            found = find(user_ids)
            self.watch.rows.pop(self.user, None)
            return found

        self.patch(self.watch, "find", find_and_unlink)
        settling = self.accounts.judge.settle([(row, LOCKED)], all_asked=False)
        self.successResultOf(Deferred.fromCoroutine(settling))
        self.assertEqual(self.watch.done, [])


class BrakeTests(SynchronousTestCase):
    """Many accounts vanish."""

    def setUp(self) -> None:
        self.accounts = Accounts()
        self.watch = self.accounts.watch
        self.users = self.watch.add(40)

    def ask_all(self) -> list[AccountStatus | None]:
        """All refresh at once."""
        asking = [self.accounts.ask(user_id) for user_id in self.users]
        return [self.successResultOf(each) for each in asking]

    def test_limit(self) -> None:
        """The limit is the larger of a number of accounts and a percentage."""
        limit = BrakeLimit(10, 10)
        self.assertEqual(
            [limit.of(number) for number in (1, 100, 109, 110, 250)], [10, 10, 10, 11, 25]
        )
        self.assertEqual(BrakeLimit(0, 0).of(1000), 0)

    def test_few(self) -> None:
        """As many accounts as the limit allows go."""
        self.accounts.lose(self.users[:10])
        self.assertEqual(self.ask_all(), [None] * 10 + [ACTIVE] * 30)
        self.assertEqual(self.watch.ended(), self.users[:10])

    def test_many(self) -> None:
        """When more vanish than that, none goes, not even the first."""
        self.accounts.lose(self.users[:11])
        self.assertEqual(self.ask_all(), [UNVERIFIABLE] * 11 + [ACTIVE] * 29)
        self.assertEqual(self.watch.done, [])

    def test_all_at_once(self) -> None:
        """None goes when all vanish."""
        self.accounts.lose(self.users)
        self.assertEqual(self.ask_all(), [UNVERIFIABLE] * 40)
        self.assertEqual(self.watch.done, [])

    def test_of_ten_thousand(self) -> None:
        """Of many accounts, a sample shows that all have vanished before a tenth has gone."""
        self.users = self.watch.add(10_000)
        self.accounts.lose(self.users)
        self.assertIs(self.successResultOf(self.accounts.ask(self.users[7])), UNVERIFIABLE)
        self.assertLess(len(self.accounts.providers.asked), 60)

    def test_near_the_limit(self) -> None:
        """Of some hundreds one more than may vanish is one too many, and as many as may are not."""
        for number, verdict in ((31, UNVERIFIABLE), (30, None)):
            self.accounts = Accounts()
            self.watch = self.accounts.watch
            self.users = self.watch.add(300)
            self.accounts.lose(self.users[:number])
            self.assertEqual(self.ask_all(), [verdict] * number + [ACTIVE] * (300 - number))

    def test_few_of_many(self) -> None:
        """Where a few of many thousand vanish a small sample is enough."""
        self.users = self.watch.add(10_000)
        self.accounts.lose(self.users[:5])
        self.assertIsNone(self.successResultOf(self.accounts.ask(self.users[0])))
        self.assertLessEqual(len(self.accounts.providers.asked), 1 + 150)

    def test_sample_is_remembered(self) -> None:
        """Several that go one after the other do not cost a sample each; later ones do again."""
        self.accounts.lose(self.users[:5])
        for user_id in self.users[:2]:
            self.assertIsNone(self.successResultOf(self.accounts.ask(user_id)))
        self.assertEqual(len(self.accounts.providers.asked), 2 + 39)
        self.accounts.clock.advance(6)
        self.assertIsNone(self.successResultOf(self.accounts.ask(self.users[2])))
        self.assertEqual(len(self.accounts.providers.asked), 3 + 39 + 37)

    def test_one_by_one_over_an_interval(self) -> None:
        """Those who have gone within an interval count, though the sample is good again."""
        for user_id in self.users[:10]:
            self.accounts.lose([user_id])
            self.assertIsNone(self.successResultOf(self.accounts.ask(user_id)))
            self.accounts.clock.advance(60)
        self.accounts.lose([self.users[10]])
        self.assertIs(self.successResultOf(self.accounts.ask(self.users[10])), UNVERIFIABLE)

    def test_over_intervals(self) -> None:
        """Accounts that vanished longer ago do not count."""
        for user_id in self.users[:30]:
            self.accounts.lose([user_id])
            self.assertIsNone(self.successResultOf(self.accounts.ask(user_id)))
            self.accounts.clock.advance(100)

    def test_outage_during_the_sample(self) -> None:
        """When most questions of a sample fail, no account is let go."""
        self.accounts.lose(self.users[1:], ProviderUnavailable("gone away"))
        self.accounts.lose(self.users[:1])
        self.assertIs(self.successResultOf(self.accounts.ask(self.users[0])), UNVERIFIABLE)

    def test_hanging_sample(self) -> None:
        """A provider that hangs is not waited for any longer than ten seconds an answer."""
        self.accounts.lose(self.users[:1])
        link = self.watch.rows[self.users[0]].link
        self.accounts.providers.slow.add("ldap")
        judging = self.accounts.judge.judge(self.users[0], link, None)
        self.assertNoResult(judging)
        self.accounts.pass_time(11, 1)
        self.assertIs(self.successResultOf(judging), UNVERIFIABLE)

    def test_without_a_brake(self) -> None:
        """``brake: null`` lets all accounts go."""
        self.accounts = Accounts(limit=None)
        self.watch = self.accounts.watch
        self.users = self.watch.add(40)
        self.accounts.lose(self.users)
        self.assertEqual(self.ask_all(), [None] * 40)
        self.assertEqual(self.watch.ended(), self.users)

    def test_back_again(self) -> None:
        """Accounts that come back are no longer held."""
        self.accounts.lose(self.users)
        self.ask_all()
        self.assertTrue(self.watch.rows[self.users[0]].held)
        self.accounts.regain(self.users)
        self.assertEqual(self.ask_all(), [ACTIVE] * 40)
        self.assertFalse(any(row.is_marked for row in self.watch.rows.values()))

    def test_other_providers_are_not_asked(self) -> None:
        """Only accounts of the provider that an account vanished from are sampled."""
        other = self.watch.add(10, "sql")
        self.accounts.lose(other[:1])
        self.assertIsNone(self.successResultOf(self.accounts.ask(other[0])))
        self.assertEqual(len(self.accounts.providers.asked), 1 + 9)

    def test_unlinked(self) -> None:
        """Accounts from before there were links are held back too."""
        self.watch.unlinked = [f"@old{number}:x" for number in range(40)]
        for number in (11, 10):
            accounts = Accounts()
            accounts.watch.unlinked = self.watch.unlinked
            gone = self.watch.unlinked[:number]
            accounts.providers.unlinked = dict.fromkeys(gone, None)
            verdicts = {
                self.successResultOf(accounts.judge.judge(user_id, None, None)) for user_id in gone
            }
            self.assertEqual(verdicts, {UNVERIFIABLE if number == 11 else None})

    def test_many_unlinked(self) -> None:
        """Of many of these a sample tells."""
        self.watch.unlinked = [f"@old{number}:x" for number in range(1000)]
        self.accounts.providers.unlinked = dict.fromkeys(self.watch.unlinked, None)
        judging = self.accounts.judge.judge("@old3:x", None, None)
        self.assertIs(self.successResultOf(judging), UNVERIFIABLE)
