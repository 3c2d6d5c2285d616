"""Tests for limits that are read and not consumed."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from synapse_login_module.errors import RateLimited
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.limits.token_bucket import LocalRateLimits, local_buckets
from synapse_login_module.model import Bucket, Rate
from synapse_login_module.rehearsal.limits import ReadLimits
from synapse_login_module.rehearsal.steps import Trace


class ReadLimitsTests(SynchronousTestCase):
    """Limits that other servers count in."""

    def setUp(self) -> None:
        self.counts = LocalRateLimits(Clock().seconds, local_buckets)
        self.trace = Trace()
        self.limits = ReadLimits(self.counts, self.trace, lambda: 1_800_000_000.0)

    def bucket(self, limit: str, *key: str, shared: int = 0) -> Bucket:
        """Make a bucket that allows one attempt in a thousand seconds."""
        return Bucket(limit, key, Rate(0.001, 1), shared)

    def refused(self, done: Deferred[None]) -> RateLimited:
        """Return the error of an attempt."""
        error = self.failureResultOf(done, RateLimited).value
        assert isinstance(error, RateLimited)
        return error

    def test_interface(self) -> None:
        """It provides the interface."""
        verifyObject(IRateLimits, self.limits)

    def test_nothing_counted(self) -> None:
        """However often it is asked, the bucket stays full."""
        bucket = self.bucket("account", "@alice:example.com")
        for _ in range(5):
            self.successResultOf(self.limits.consume([bucket], [bucket], [bucket]))
            self.successResultOf(self.limits.refund([bucket]))
        self.assertEqual(self.trace.steps[0].text, "not reached: account")
        self.successResultOf(self.counts.consume([bucket]))

    def test_refused(self) -> None:
        """Each empty bucket is told with its time, and the first one is the error."""
        empty = [self.bucket("tried", "alice"), self.bucket("failures_anywhere", "bob", shared=3)]
        self.successResultOf(self.counts.consume(empty))
        error = self.refused(self.limits.consume([empty[1], self.bucket("full", "x")], [empty[0]]))
        self.assertEqual((error.limit, error.key), ("tried", ("alice",)))
        self.assertAlmostEqual(error.retry_after, 1000)
        until = "2027-01-15T08:16:40+00:00"
        self.assertEqual(
            [step.text for step in self.trace.steps],
            [
                f"tried of alice is reached until {until}",
                f"failures_anywhere of bob is reached until {until}; it does not apply in a network"
                " that the user has logged in from before",
            ],
        )

    def test_unknown_network(self) -> None:
        """Buckets of a client whose address is not known are left out."""
        self.successResultOf(self.limits.consume([self.bucket("address", "-")]))
        self.assertEqual(self.trace.steps, [])
