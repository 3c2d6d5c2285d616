"""Tests for the token buckets."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import RateLimited
from synapse_login_module.limits.token_bucket import LocalBuckets, RateLimiter
from synapse_login_module.model import Rate


class RateLimiterTestCase(SynchronousTestCase):
    """A case with a clock, and helpers that ask a bucket."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)

    def limiter(
        self, per_second: float = 0.5, burst_count: int = 3, max_keys: int = 100
    ) -> RateLimiter:
        """Make a limiter on the clock."""
        return RateLimiter(
            Rate(per_second, burst_count), self.clock.seconds, LocalBuckets(max_keys)
        )

    def taken(self, limiter: RateLimiter, key: str = "alice", at_most: int = 50) -> int:
        """Count how many attempts are allowed at once."""
        for count in range(at_most):
            try:
                limiter.consume(key)
            except RateLimited:
                return count
        return at_most

    def retry_after(self, limiter: RateLimiter, key: str = "alice") -> float:
        """Return how many seconds a refused attempt has to wait."""
        with self.assertRaises(RateLimited) as raised:
            limiter.consume(key)
        wait: float = raised.exception.retry_after
        return wait


class BucketTests(RateLimiterTestCase):
    """One bucket."""

    def test_burst(self) -> None:
        """A bucket that rested allows the burst and no more."""
        self.assertEqual(self.taken(self.limiter()), 3)

    def test_refill(self) -> None:
        """A bucket refills at its rate."""
        limiter = self.limiter()
        self.taken(limiter)
        self.clock.advance(1.9)
        self.assertEqual(self.taken(limiter), 0)
        self.clock.advance(0.1)
        self.assertEqual(self.taken(limiter), 1)
        self.clock.advance(4)
        self.assertEqual(self.taken(limiter), 2)

    def test_no_more_than_full(self) -> None:
        """A bucket never holds more than the burst, however long it rests."""
        limiter = self.limiter()
        limiter.consume("alice")
        self.clock.advance(10**9)
        self.assertEqual(self.taken(limiter), 3)

    def test_keys(self) -> None:
        """Each key has a bucket of its own."""
        limiter = self.limiter()
        self.taken(limiter, "alice")
        self.assertEqual(self.taken(limiter, "bob"), 3)

    def test_retry_after(self) -> None:
        """A refusal says when the next attempt can succeed."""
        limiter = self.limiter()
        self.taken(limiter)
        self.assertEqual(self.retry_after(limiter), 2)
        self.clock.advance(1.5)
        self.assertEqual(self.retry_after(limiter), 0.5)
        self.clock.advance(0.5)
        limiter.consume("alice")

    def test_refused_attempts_count_nothing(self) -> None:
        """Refused attempts do not delay the next one that is allowed."""
        limiter = self.limiter()
        self.taken(limiter)
        for _ in range(20):
            self.clock.advance(0.0625)
            self.retry_after(limiter)
        self.clock.advance(0.75)
        limiter.consume("alice")

    def test_refund(self) -> None:
        """A refund gives back one attempt."""
        limiter = self.limiter()
        self.taken(limiter)
        limiter.refund("alice")
        self.assertEqual(self.taken(limiter), 1)

    def test_refund_no_more_than_full(self) -> None:
        """Refunds never fill a bucket over its burst."""
        limiter = self.limiter()
        limiter.consume("alice")
        for _ in range(5):
            limiter.refund("alice")
        limiter.refund("nobody")
        self.assertEqual(self.taken(limiter), 3)
        self.assertEqual(self.taken(limiter, "nobody"), 3)

    def test_no_limit(self) -> None:
        """Without a rate everything is allowed."""
        limiter = RateLimiter(None, self.clock.seconds)
        self.assertEqual(self.taken(limiter), 50)
        limiter.refund("alice")

    def test_clock_stepping_back(self) -> None:
        """A clock that steps back neither fills a bucket nor empties it."""
        limiter = self.limiter()
        limiter.consume("alice")
        self.clock.advance(-1000)
        self.assertEqual(self.taken(limiter), 2)
        self.clock.advance(2)
        self.assertEqual(self.taken(limiter), 1)

    def test_looser(self) -> None:
        """A rate that is looser by a factor allows that many times more, at once and over time."""
        self.assertEqual(Rate(0.5, 3).looser(10), Rate(5.0, 30))

    def test_full_at_first(self) -> None:
        """A new bucket is full even when the clock begins at nothing."""
        limiter = RateLimiter(Rate(0.5, 3), Clock().seconds)
        self.assertEqual(self.taken(limiter), 3)


class MemoryTests(RateLimiterTestCase):
    """How many buckets are remembered."""

    def test_forgets_the_one_left_alone_longest(self) -> None:
        """Beyond the bound the bucket that was not used for longest is forgotten, and no other."""
        limiter = self.limiter(max_keys=2)
        self.taken(limiter, "alice")
        self.taken(limiter, "bob")
        limiter.refund("alice")
        self.taken(limiter, "carol")
        self.assertEqual(self.taken(limiter, "alice"), 1)
        self.assertEqual(self.taken(limiter, "carol"), 0)
        self.assertEqual(self.taken(limiter, "bob"), 3)

    def test_refunds_remember_nothing(self) -> None:
        """Refunds of unknown keys take no memory."""
        limiter = self.limiter(max_keys=2)
        self.taken(limiter, "alice")
        self.taken(limiter, "bob")
        for stranger in range(100):
            limiter.refund(stranger)
        self.assertEqual(self.taken(limiter, "alice"), 0)
        self.assertEqual(self.taken(limiter, "bob"), 0)

    def test_bound(self) -> None:
        """For any number of keys, no more than the bound are kept."""
        limiter = self.limiter(burst_count=1, max_keys=5)
        for stranger in range(1000):
            limiter.consume(stranger)
        remembered = []
        for stranger in reversed(range(1000)):
            try:
                limiter.consume(stranger)
            except RateLimited:
                remembered.append(stranger)
        self.assertEqual(remembered, [999, 998, 997, 996, 995])


class PropertyTests(RateLimiterTestCase):
    """What holds for every rate and every sequence of attempts."""

    @given(
        st.floats(0.001, 1000),
        st.integers(1, 50),
        st.lists(st.floats(0, 100), min_size=1, max_size=100),
    )
    def test_never_more_than_burst_and_rate(
        self, per_second: float, burst_count: int, pauses: list[float]
    ) -> None:
        """In any time no more is allowed than the burst and what the rate gives."""
        clock = Clock()
        limiter = RateLimiter(Rate(per_second, burst_count), clock.seconds)
        allowed = 0
        for pause in pauses:
            clock.advance(pause)
            try:
                limiter.consume("alice")
            except RateLimited:
                continue
            allowed += 1
        self.assertLessEqual(allowed, burst_count + clock.seconds() * per_second + 1e-6)

    def test_memory(self) -> None:
        """A bucket takes no more memory for a longer name."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        buckets = LocalBuckets(1000)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2000):
            buckets.set((f"{number}" + 500 * chr(0x1F600), "192.0.2.1"), 1.0 + number)
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess((after - before) / 1000, 500)
        self.assertIsNone(buckets.get(("0" + 500 * chr(0x1F600), "192.0.2.1")))

    @given(st.floats(0.001, 1000), st.integers(1, 20), st.floats(0, 10**6))
    def test_retry_after_is_enough(self, per_second: float, burst_count: int, start: float) -> None:
        """Rounding aside, an attempt after ``retry_after`` is allowed, and one that is earlier is
        refused.
        """
        clock = Clock()
        clock.advance(start)
        limiter = RateLimiter(Rate(per_second, burst_count), clock.seconds)
        self.assertEqual(self.taken(limiter), burst_count)
        wait = self.retry_after(limiter)
        self.assertGreater(wait, 0)
        if wait > 0.01:
            clock.advance(wait - 0.005)
            self.retry_after(limiter)
            clock.advance(0.005)
        else:
            clock.advance(wait)
        clock.advance(1e-6)
        limiter.consume("alice")
