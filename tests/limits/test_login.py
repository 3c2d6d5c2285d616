"""Tests for the limits of login attempts."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from synapse_login_module import testing
from synapse_login_module.config.settings import RateLimits
from synapse_login_module.errors import InvalidCredentials, RateLimited, StoreUnavailable
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.limits.login import Attempt, LoginLimits
from synapse_login_module.limits.token_bucket import LocalBuckets, LocalRateLimits
from synapse_login_module.model import Bucket, Client, Rate

ALICE, BOB = "@alice:example.com", "@bob:example.com"
HOME = Client("192.0.2.1", "192.0.2.1")
AWAY = Client("198.51.100.7", "198.51.100.7")


T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that does not wait; return its result."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return cast(T, result)


class LoginLimitsTestCase(SynchronousTestCase):
    """A case with a clock, and helpers that make attempts."""

    def limits(
        self, address: int | None = None, account: int | None = None, failures: int | None = None
    ) -> LoginLimits:
        """Make limits with these bursts, which refill by one in a thousand seconds."""
        self.clock = Clock()

        def rate(burst: int | None) -> Rate | None:
            return None if burst is None else Rate(0.001, burst)

        return LoginLimits(rate(address), rate(account), rate(failures), self.clock.seconds)

    def allowed(
        self, limits: LoginLimits, client: Client = HOME, subject: str | None = ALICE
    ) -> Attempt | None:
        """Begin an attempt; return None if it is refused."""
        try:
            return run(limits.attempt(client, subject))
        except RateLimited as refusal:
            self.assertGreater(refusal.retry_after, 0)
            return None

    def count(self, limits: LoginLimits, client: Client = HOME, subject: str | None = ALICE) -> int:
        """Count how many attempts fail before one is refused, up to 50."""
        return next(
            (count for count in range(50) if self.allowed(limits, client, subject) is None), 50
        )

    def attempt(
        self, limits: LoginLimits, client: Client = HOME, subject: str | None = ALICE
    ) -> Attempt:
        """Begin an attempt that is allowed."""
        attempt = self.allowed(limits, client, subject)
        assert attempt is not None
        return attempt


class FailureTests(LoginLimitsTestCase):
    """Failed attempts."""

    def test_by_account_and_network(self) -> None:
        """Failures are limited by account and network together."""
        limits = self.limits(failures=3)
        self.assertEqual(self.count(limits), 3)
        self.assertEqual(self.count(limits, client=AWAY), 3)
        self.assertEqual(self.count(limits, subject=BOB), 3)

    def test_spellings(self) -> None:
        """Names that a backend may take for one, since it ignores accents, share their failures."""
        limits = self.limits(failures=4)
        for name in ("alice", "\u00e0lice", "ali\u00e7e\u0301", "\uff21lice"):
            self.attempt(limits, subject=f"@{name}:example.com")
        self.assertIsNone(self.allowed(limits))
        self.attempt(limits, subject="@bl\u00fcmchen:example.com")

    def test_spelling_is_not_known(self) -> None:
        """A login by one spelling does not make another a known one."""
        limits = self.limits(failures=2)
        limits.remember_network("@other:example.com", "@\u00e0lice:example.com", HOME)
        self.assertFalse(limits.is_known(ALICE, HOME))
        self.assertGreater(len(limits.failures_of_name(ALICE, HOME)), 1)

    def test_stranger_elsewhere(self) -> None:
        """A stranger who fails elsewhere without pause does not lock the user out."""
        limits = self.limits(address=5, account=5, failures=3)
        for _ in range(100):
            self.allowed(limits, client=AWAY)
        self.attempt(limits)

    def test_neighbours(self) -> None:
        """One network is limited as a whole, whatever the addresses in it."""
        limits = self.limits(failures=2)
        for host in (1, 2):
            self.attempt(limits, Client(f"2001:db8::{host}", "2001:db8::/64"))
        self.assertIsNone(self.allowed(limits, Client("2001:db8::3", "2001:db8::/64")))
        self.attempt(limits, Client("2001:db8:0:1::1", "2001:db8:0:1::/64"))

    def test_from_everywhere(self) -> None:
        """Guessing from many networks ends too, after ten times as many attempts."""
        limits = self.limits(failures=3)
        networks = [Client(f"10.0.{host}.1", f"10.0.{host}.1") for host in range(100)]
        allowed = [self.allowed(limits, network) is not None for network in networks]
        self.assertEqual(allowed, [True] * 30 + [False] * 70)
        self.attempt(limits, networks[99], BOB)

    def test_refill(self) -> None:
        """After a while there is another attempt."""
        limits = self.limits(failures=3)
        self.count(limits)
        self.clock.advance(1001)
        self.assertEqual(self.count(limits), 1)

    def test_no_name(self) -> None:
        """Attempts without a name are limited by network alone."""
        limits = self.limits(failures=1)
        networks = [Client(f"10.0.{host}.1", f"10.0.{host}.1") for host in range(30)]
        for network in networks:
            self.assertEqual(self.count(limits, network, None), 1)
        self.attempt(limits)

    def test_passed(self) -> None:
        """A right password is no failure, in the network or elsewhere."""
        limits = self.limits(failures=1)
        for _ in range(30):
            run(self.attempt(limits).succeeded(None))
        self.assertEqual(self.count(limits), 1)

    def test_in_flight(self) -> None:
        """No more attempts can be under way at once than may fail."""
        limits = self.limits(failures=3)
        under_way = [self.allowed(limits) for _ in range(10)]
        self.assertEqual([each is not None for each in under_way], [True] * 3 + [False] * 7)
        assert under_way[0] is not None
        run(under_way[0].succeeded(None))
        self.assertEqual(self.count(limits), 1)

    def test_given_back_once(self) -> None:
        """An attempt is refunded only once, however often it is said to have succeeded."""
        limits = self.limits(address=10, failures=3)
        attempt = self.attempt(limits)
        self.attempt(limits)
        for _ in range(5):
            run(attempt.succeeded(None))
            attempt.forgive(entirely=True)
        self.assertEqual(self.count(limits), 2)


class NamesTests(LoginLimitsTestCase):
    """Failures of an account that has many names."""

    NAMES = (ALICE, "alice@example.com", "447700900123", "@al\u00adice:example.com")

    def guess(
        self, limits: LoginLimits, name: str, user_id: str = ALICE, client: Client = HOME
    ) -> Attempt | None:
        """An attempt by that name that was tried on that account, or None if it told nothing."""
        attempt = self.attempt(limits, client, name)
        try:
            run(attempt.charge_account(user_id))
        except InvalidCredentials:
            return None
        return attempt

    def test_one_account(self) -> None:
        """All names of an account together have the failures of one."""
        limits = self.limits(failures=3)
        told = [self.guess(limits, name) is not None for name in self.NAMES * 2]
        self.assertEqual(told, [True] * 3 + [False] * 5)
        self.assertIsNotNone(self.guess(limits, "bob@example.com", BOB))
        self.assertIsNotNone(self.guess(limits, ALICE, client=AWAY))

    def test_from_everywhere(self) -> None:
        """From all networks, all names together have ten times the failures of one account."""
        limits = self.limits(failures=3)
        networks = [Client(f"10.0.{host}.1", f"10.0.{host}.1") for host in range(100)]
        told = [
            self.guess(limits, f"name{number}", client=network) is not None
            for number, network in enumerate(networks)
        ]
        self.assertEqual(told, [True] * 30 + [False] * 70)

    def test_names_are_not_told(self) -> None:
        """Failures by one name have no effect on another name before the password is checked: the
        attempt is allowed as it is for an unknown name.
        """
        limits = self.limits(failures=3)
        for _ in range(3):
            self.guess(limits, "alice@example.com")
        for name in (ALICE, "@nobody:example.com"):
            self.assertEqual(self.count(limits, subject=name), 3)

    def test_passed(self) -> None:
        """A right password is no failure by any name, and makes up for none."""
        limits = self.limits(failures=1)
        for name in self.NAMES * 3:
            run(self.attempt(limits, subject=name).succeeded(ALICE))
        self.guess(limits, ALICE)
        self.assertIsNone(self.guess(limits, "alice@example.com"))

    def test_spelling(self) -> None:
        """The account is one, however a provider spells it."""
        limits = self.limits(failures=1)
        self.guess(limits, ALICE, "@Alice:example.com")
        self.assertIsNone(self.guess(limits, "alice@example.com"))


class KnownNetworkTests(LoginLimitsTestCase):
    """Networks that a user logged in from, while a stranger has hundreds of others, each in a
    larger one of its own.
    """

    EMAIL = "alice@example.com"
    NETWORKS = tuple(Client(f"2001:db8:{n:x}::1", f"2001:db8:{n:x}::/64") for n in range(200))

    def log_in(self, limits: LoginLimits, name: str, client: Client = HOME) -> bool:
        """Log in with the right password; return whether that succeeds."""
        attempt = self.allowed(limits, client, name)
        if attempt is None:
            return False
        try:
            run(attempt.succeeded(ALICE, ALICE))
        except InvalidCredentials:
            return False
        return True

    def guess_everywhere(self, limits: LoginLimits) -> None:
        """Fail once from each network, by both names in turn."""
        for number, network in enumerate(self.NETWORKS):
            attempt = self.allowed(limits, network, (ALICE, self.EMAIL)[number % 2])
            if attempt is not None:
                with contextlib.suppress(InvalidCredentials):
                    run(attempt.charge_account(ALICE))

    def test_not_locked_out(self) -> None:
        """A stranger elsewhere cannot lock a user out of a known network, by any name."""
        for name in (ALICE, self.EMAIL):
            limits = self.limits(failures=3)
            self.assertTrue(self.log_in(limits, name))
            self.guess_everywhere(limits)
            self.assertFalse(self.log_in(limits, name, AWAY))
            self.assertTrue(self.log_in(limits, name))

    def test_failures_there(self) -> None:
        """Failures from there are limited as from any other network."""
        limits = self.limits(failures=3)
        self.log_in(limits, ALICE)
        for _ in range(3):
            run(self.attempt(limits).charge_account(ALICE))
        self.assertFalse(self.log_in(limits, ALICE))
        self.assertFalse(self.log_in(limits, self.EMAIL))

    def test_no_login(self) -> None:
        """A login that its account's limit refuses makes no network known, or a stranger with an
        account and many networks would have all those of others forgotten.
        """
        limits = self.limits(account=1, failures=3)
        self.log_in(limits, ALICE)
        self.assertRaises(RateLimited, self.log_in, limits, ALICE, AWAY)
        self.guess_everywhere(limits)
        self.assertIsNone(self.allowed(limits, AWAY))

    def test_known_for_others(self) -> None:
        """A network that is known for one account is not known for another."""
        limits = self.limits(failures=3)
        self.log_in(limits, ALICE)
        for network in self.NETWORKS:
            self.allowed(limits, network, BOB)
        self.assertIsNone(self.allowed(limits, HOME, BOB))


class LargerNetworkTests(LoginLimitsTestCase):
    """Networks that a stranger has many of, and many people share."""

    @staticmethod
    def of_a_48(number: int) -> Client:
        """A /64 of one /48."""
        network = f"2001:db8:0:{number:x}::"
        return Client(f"{network}1", f"{network}/64")

    @staticmethod
    def of_a_24(number: int) -> Client:
        """An address of one /24."""
        return Client(f"203.0.113.{number % 256}", f"203.0.113.{number % 256}")

    def fail_from_each(self, limits: LoginLimits, clients: Iterable[Client], subject: str) -> int:
        """How many attempts fail, one after another and each from another network."""
        return sum(self.allowed(limits, client, subject) is not None for client in clients)

    def test_address(self) -> None:
        """Failures by any name are limited for each larger network too, with a looser limit."""
        limits = self.limits(address=1)
        rotating = [self.of_a_48(number) for number in range(300)]
        self.assertEqual(
            sum(self.allowed(limits, each, str(each)) is not None for each in rotating[:256]), 4
        )
        limits = self.limits(address=1)
        spread = [self.of_a_48(256 * number) for number in range(200)]
        self.assertEqual(
            sum(self.allowed(limits, each, str(each)) is not None for each in spread), 16
        )
        limits = self.limits(address=1)
        all_of_it = [self.of_a_24(number) for number in range(256)]
        self.assertEqual(
            sum(self.allowed(limits, each, str(each)) is not None for each in all_of_it), 32
        )
        self.attempt(limits, AWAY)

    def test_failures(self) -> None:
        """Failures of one account are limited for each larger network too."""
        for factor, clients in (
            (2, [self.of_a_48(number) for number in range(256)]),
            (4, [self.of_a_48(256 * number) for number in range(256)]),
            (6, [self.of_a_24(number) for number in range(256)]),
        ):
            limits = self.limits(failures=3)
            self.assertEqual(self.fail_from_each(limits, clients, ALICE), 3 * factor)
            self.assertEqual(self.fail_from_each(limits, clients, BOB), 3 * factor)
            self.attempt(limits, AWAY)

    def test_failures_by_account(self) -> None:
        """Failures of an account with many names are limited for each larger network too."""
        limits = self.limits(failures=3)
        told = 0
        for number in range(100):
            attempt = self.attempt(limits, self.of_a_48(256 * number), f"name{number}")
            with contextlib.suppress(InvalidCredentials):
                run(attempt.charge_account(ALICE))
                told += 1
        self.assertEqual(told, 12)

    def test_right_passwords(self) -> None:
        """People who share a larger network log in as often as they like: right passwords do not
        count there.
        """
        limits = self.limits(address=1, account=1, failures=1)
        for number in range(1000):
            user_id = f"@user{number}:example.com"
            attempt = self.attempt(limits, self.of_a_48(number), user_id)
            run(attempt.succeeded(user_id, user_id))
        for number in range(256):
            user_id = f"@other{number}:example.com"
            attempt = self.attempt(limits, self.of_a_24(number), user_id)
            run(attempt.succeeded(user_id, user_id))

    def test_known_network(self) -> None:
        """Failures elsewhere in the larger network do not lock a user out of a known network."""
        for home, neighbour in (
            (self.of_a_48(0), self.of_a_48),
            (self.of_a_24(0), self.of_a_24),
        ):
            limits = self.limits(address=3, failures=3)
            run(self.attempt(limits, home).succeeded(ALICE, ALICE))
            neighbours = [neighbour(number) for number in range(1, 256)]
            for number, client in enumerate(neighbours):
                self.allowed(limits, client, f"@stranger{number}:example.com")
                self.allowed(limits, client, ALICE)
            self.assertIsNone(self.allowed(limits, neighbours[-1], "@another:example.com"))
            run(self.attempt(limits, home).succeeded(ALICE, ALICE))
            self.assertIsNone(self.allowed(limits, home, BOB))

    def passwords_a_day(self, clients: Sequence[Client]) -> int:
        """How many passwords of one account are looked at in a day, of a stranger who tries all the
        time from each of these networks, with the default limits.
        """
        clock = Clock()
        limits = LoginLimits(*RateLimits().rates(), clock.seconds)
        tried = 0
        for number in range(86_400 // 5):
            with contextlib.suppress(RateLimited):
                run(limits.attempt(clients[number % len(clients)], ALICE))
                tried += 1
            clock.advance(5)
        return tried

    def test_passwords_a_day(self) -> None:
        """One /48 tries a few thousand passwords of an account a day, and one /24 some more."""
        of_a_48 = [self.of_a_48(number) for number in range(0, 65_536, 256)]
        self.assertEqual(self.passwords_a_day(of_a_48), 4_226)
        of_a_24 = [self.of_a_24(number) for number in range(256)]
        self.assertEqual(self.passwords_a_day(of_a_24), 8_453)

    def test_switched_off(self) -> None:
        """A limit that is switched off is so for larger networks too."""
        clients = [self.of_a_48(number) for number in range(200)]
        self.assertEqual(self.fail_from_each(self.limits(), clients, ALICE), 200)
        self.assertEqual(self.fail_from_each(self.limits(account=1), clients, ALICE), 200)
        limits = self.limits(address=1)
        self.assertEqual(self.fail_from_each(limits, clients, ALICE), 4)
        limits = self.limits(failures=1)
        names = [f"@user{number}:example.com" for number in range(200)]
        attempts = [self.allowed(limits, *each) for each in zip(clients, names, strict=True)]
        self.assertNotIn(None, attempts)

    def test_no_name(self) -> None:
        """Attempts without a name count by network, and by larger networks as all attempts do."""
        limits = self.limits(address=2, failures=1)
        clients = [self.of_a_48(256 * number) for number in range(100)]
        allowed = [self.allowed(limits, each, None) is not None for each in clients]
        self.assertEqual(allowed, [True] * 32 + [False] * 68)


class AddressTests(LoginLimitsTestCase):
    """Attempts of one network."""

    def test_all_attempts_count(self) -> None:
        """Every attempt from a network counts, for any name, whether it succeeds or fails."""
        limits = self.limits(address=4)
        for subject in (ALICE, BOB, None):
            run(self.attempt(limits, subject=subject).succeeded(None))
        attempt = self.attempt(limits)
        run(attempt.succeeded(ALICE, ALICE))
        self.assertIsNone(self.allowed(limits))
        self.attempt(limits, client=AWAY)

    def test_refused_attempts_take_nothing(self) -> None:
        """An attempt that one limit refuses counts at no other."""
        limits = self.limits(address=3, failures=1)
        self.attempt(limits)
        for _ in range(10):
            self.assertIsNone(self.allowed(limits))
        self.assertEqual(self.count(limits, subject=BOB), 1)
        self.assertIsNotNone(self.allowed(limits, subject="@carol:example.com"))
        self.assertIsNone(self.allowed(limits, subject="@dora:example.com"))
        self.attempt(limits, AWAY, "@dora:example.com")

    def test_refused_by_address_takes_no_failure(self) -> None:
        """A network that had too many attempts does not use up its user's failures elsewhere."""
        limits = self.limits(address=1, failures=1)
        self.attempt(limits, subject=BOB)
        for _ in range(100):
            self.assertIsNone(self.allowed(limits))
        self.attempt(limits, client=AWAY)

    def test_forgiven(self) -> None:
        """An attempt that failed for no fault of the client's counts nowhere."""
        limits = self.limits(address=1, account=1, failures=1)
        for _ in range(30):
            self.attempt(limits).forgive(entirely=True)
        for _ in range(30):
            attempt = self.attempt(limits)
            run(attempt.succeeded(ALICE, ALICE))
            attempt.forgive(entirely=True)
        self.assertEqual(self.count(limits), 1)


class AccountTests(LoginLimitsTestCase):
    """Logins of one account."""

    def log_in(self, limits: LoginLimits, user_id: str, client: Client = HOME) -> None:
        """Log in."""
        attempt = self.attempt(limits, client, user_id.lower())
        run(attempt.succeeded(user_id, user_id))

    def test_successes_alone(self) -> None:
        """Only logins that succeed count against the account."""
        limits = self.limits(account=2)
        self.assertEqual(self.count(limits), 50)
        for client in (HOME, AWAY):
            self.log_in(limits, ALICE, client)
        for client in (HOME, AWAY):
            self.assertRaises(RateLimited, self.log_in, limits, ALICE, client)
        self.log_in(limits, BOB)

    def test_of_no_concern_to_strangers(self) -> None:
        """Before the password is right, the limit of an account's logins is not revealed."""
        limits = self.limits(account=1)
        self.log_in(limits, ALICE)
        self.assertEqual(self.count(limits, AWAY), 50)

    def test_spelling(self) -> None:
        """One account has one limit, however it is spelled."""
        limits = self.limits(account=2)
        self.log_in(limits, "@Alice:example.com")
        self.log_in(limits, ALICE)
        self.assertRaises(RateLimited, self.log_in, limits, ALICE)

    def test_in_flight(self) -> None:
        """Of the logins under way at once, no more succeed than are allowed."""
        limits = self.limits(account=2)
        under_way = [self.attempt(limits) for _ in range(5)]
        run(under_way[0].succeeded(None, ALICE))
        run(under_way[1].succeeded(None, ALICE))
        for attempt in under_way[2:]:
            self.assertRaises(RateLimited, run, attempt.succeeded(None, ALICE))
            attempt.forgive(entirely=True)
        self.assertRaises(RateLimited, self.log_in, limits, ALICE)

    def test_by_another_name(self) -> None:
        """A login by e-mail address counts against the account that it is of."""
        limits = self.limits(account=1)
        attempt = self.attempt(limits, subject="alice@example.com")
        run(attempt.succeeded(None, "@Alice:example.com"))
        self.assertRaises(RateLimited, self.log_in, limits, ALICE)


class RefreshTests(LoginLimitsTestCase):
    """Refreshes that failed."""

    def test_by_network(self) -> None:
        """They are limited by network with the rate ``address``, and counted apart from logins."""
        limits = self.limits(address=2, account=1, failures=1)
        limits.refresh_failed(HOME)
        limits.refresh_failed(HOME)
        self.assertRaises(RateLimited, limits.refresh_failed, HOME)
        limits.refresh_failed(AWAY)
        self.attempt(limits)


class NoLimitTests(LoginLimitsTestCase):
    """A limit that is switched off."""

    def test_no_limits(self) -> None:
        """Without any limit nothing is refused."""
        limits = self.limits()
        self.assertEqual(self.count(limits), 50)
        for _ in range(50):
            run(self.attempt(limits).succeeded(None, ALICE))
            limits.refresh_failed(HOME)

    def test_each_alone(self) -> None:
        """Each limit works without the others."""
        self.assertEqual(self.count(self.limits(address=2)), 2)
        self.assertEqual(self.count(self.limits(failures=2)), 2)
        limits = self.limits(account=2)
        for _ in range(2):
            run(self.attempt(limits).succeeded(None, ALICE))
        self.assertRaises(RateLimited, run, self.attempt(limits).succeeded(None, ALICE))


class SharedTests(SynchronousTestCase):
    """Limits of two processes over the same buckets."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.tables: defaultdict[str, LocalBuckets] = defaultdict(LocalBuckets)

    def pair(
        self,
        address: Rate | None = None,
        account: Rate | None = None,
        failures: Rate | None = None,
    ) -> tuple[LoginLimits, LoginLimits]:
        """Make two limits that share their buckets, with these rates alone."""
        one, other = (
            LoginLimits(address, account, failures, self.clock.seconds, self.tables.__getitem__)
            for _ in range(2)
        )
        return one, other

    def test_every_limit(self) -> None:
        """What one process consumes is consumed for the other, in each of the limits."""
        rate = Rate(0.001, 1)
        one, other = self.pair(address=rate)
        run(one.attempt(HOME, None))
        self.assertRaises(RateLimited, run, other.attempt(HOME, ALICE))
        one.refresh_failed(HOME)
        self.assertRaises(RateLimited, other.refresh_failed, HOME)

        one, other = self.pair(account=rate)
        attempts = [run(each.attempt(HOME, ALICE)) for each in (one, other)]
        run(attempts[0].succeeded(None, ALICE))
        self.assertRaises(RateLimited, run, attempts[1].succeeded(None, ALICE))

        one, other = self.pair(failures=rate)
        attempts = [run(each.attempt(AWAY, name)) for each, name in ((one, ALICE), (other, BOB))]
        self.assertRaises(RateLimited, run, other.attempt(AWAY, ALICE))
        run(attempts[0].charge_account(BOB))
        self.assertRaises(InvalidCredentials, run, attempts[1].charge_account(BOB))

    def test_everywhere(self) -> None:
        """Failures from all networks are counted together by both processes."""
        one, other = self.pair(failures=Rate(0.001, 1))
        networks = [Client(f"10.0.{host}.1", f"10.0.{host}.1") for host in range(20)]
        for network in networks[:10]:
            run(run(one.attempt(network, ALICE)).charge_account(BOB))
        self.assertRaises(RateLimited, run, other.attempt(networks[10], ALICE))
        attempt = run(other.attempt(networks[11], "bob@example.com"))
        self.assertRaises(InvalidCredentials, run, attempt.charge_account(BOB))

    def test_known_networks(self) -> None:
        """A network that became known at one process is known at the other."""
        one, other = self.pair(failures=Rate(0.001, 1))
        attempt = run(one.attempt(HOME, ALICE))
        run(attempt.succeeded(ALICE, ALICE))
        for host in range(20):
            with contextlib.suppress(RateLimited):
                run(other.attempt(Client("", f"10.0.{host}.1"), ALICE))
        self.assertRaises(RateLimited, run, other.attempt(AWAY, ALICE))
        run(other.attempt(HOME, ALICE))


@implementer(IRateLimits)
class AwayCounts:
    """Counts that a test can make unreachable."""

    def __init__(self) -> None:
        self.reachable = True

    def consume(self, *buckets: Sequence[Bucket]) -> Deferred[None]:
        """Consume nothing."""
        return succeed(None) if self.reachable else fail(StoreUnavailable("gone"))

    refund = consume

    def waits(self, buckets: Sequence[Bucket]) -> Deferred[list[float]]:
        """Tell that no bucket refuses."""
        return succeed([0.0 for _ in buckets])


class AwayTests(SynchronousTestCase):
    """Limits whose counts cannot be reached."""

    def setUp(self) -> None:
        self.counts = AwayCounts()
        rate = Rate(0.001, 1)
        self.limits = LoginLimits(rate, rate, rate, Clock().seconds, shared=self.counts)

    def test_no_attempts(self) -> None:
        """Without the counts no attempt is allowed."""
        self.counts.reachable = False
        self.assertRaises(StoreUnavailable, run, self.limits.attempt(HOME, ALICE))
        with self.assertRaises(RateLimited):
            self.limits.refresh_failed(HOME)
            self.limits.refresh_failed(HOME)

    def test_under_way(self) -> None:
        """An attempt under way fails with the outage, and its refund fails silently."""
        attempt = run(self.limits.attempt(HOME, ALICE))
        self.counts.reachable = False
        self.assertRaises(StoreUnavailable, run, attempt.charge_account(ALICE))
        attempt.forgive(entirely=True)


class LocalRateLimitsTests(testing.RateLimitsContract, TestCase):
    """The contract, for counts in the memory of this process."""

    def make_limits(self) -> IRateLimits:
        tables: defaultdict[str, LocalBuckets] = defaultdict(LocalBuckets)
        return LocalRateLimits(Clock().seconds, tables.__getitem__)
