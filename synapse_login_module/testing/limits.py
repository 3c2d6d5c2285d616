"""The contract test of rate limits."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredList
from zope.interface.verify import verifyObject

from synapse_login_module.errors import RateLimited
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.model import Bucket, Rate


class RateLimitsContract:
    """The tests that every :class:`~synapse_login_module.interfaces.IRateLimits` passes.

    Override :meth:`make_limits`. The buckets of these tests refill so slowly that the time they
    take has no influence.
    """

    def make_limits(self) -> IRateLimits:
        """Make rate limits in which all buckets are full."""
        raise NotImplementedError

    def bucket(self, key: str = "alice", limit: str = "failures", burst: int = 3) -> Bucket:
        """Make a bucket that refills by one in a thousand seconds."""
        return Bucket(limit, (key, "192.0.2.1"), Rate(0.001, burst))

    async def refused(
        self: Any, limits: IRateLimits, *arguments: Any
    ) -> tuple[str, tuple[str, ...]]:
        """Return the limit and the key of the bucket that refuses an attempt."""
        with self.assertRaises(RateLimited) as raised:
            await limits.consume(*arguments)
        return raised.exception.limit, raised.exception.key

    async def taken(self: Any, limits: IRateLimits, *buckets: Bucket) -> int:
        """Make up to 20 attempts at once; return how many were allowed."""
        for count in range(20):
            try:
                await limits.consume(buckets)
            except RateLimited as refusal:
                self.assertGreater(refusal.retry_after, 900)
                self.assertLessEqual(refusal.retry_after, 1000)
                return count
        return 20

    def test_interface(self: Any) -> None:
        """It provides the interface."""
        verifyObject(IRateLimits, self.make_limits())

    async def test_burst(self: Any) -> None:
        """A bucket allows its burst and no more, and shares it with no other bucket."""
        limits = self.make_limits()
        for bucket in (self.bucket(), self.bucket("bob"), self.bucket(limit="address")):
            self.assertEqual(await self.taken(limits, bucket), 3)
        self.assertEqual(await self.taken(limits, self.bucket()), 0)

    async def test_all_or_none(self: Any) -> None:
        """An attempt that one bucket refuses consumes from none."""
        limits = self.make_limits()
        rare, often = self.bucket("rare", burst=1), self.bucket("often")
        self.assertEqual(await self.taken(limits, often, rare), 1)
        self.assertEqual(await self.taken(limits, often, rare), 0)
        self.assertEqual(await self.taken(limits, often), 2)

    async def test_refund(self: Any) -> None:
        """A refund can be consumed again, and refunds never exceed the burst."""
        limits = self.make_limits()
        used, full = self.bucket(), self.bucket("full")
        await limits.consume([used])
        await limits.consume([used])
        await limits.refund([used, full])
        self.assertEqual(await self.taken(limits, used), 2)
        for _ in range(5):
            await limits.refund([used])
        self.assertEqual(await self.taken(limits, used), 3)
        self.assertEqual(await self.taken(limits, full), 3)

    async def test_waits(self: Any) -> None:
        """It tells how long each bucket would refuse, and consumes nothing."""
        limits = self.make_limits()
        empty, half, full = self.bucket("empty"), self.bucket("half"), self.bucket("full")
        await self.taken(limits, empty)
        await limits.consume([half])
        self.assertEqual(await limits.waits([]), [])
        for _ in range(5):
            waits = await limits.waits([full, empty, half, empty])
            self.assertEqual([wait > 0 for wait in waits], [False, True, False, True])
            self.assertGreater(waits[1], 900)
            self.assertLessEqual(waits[1], 1000)
        self.assertEqual(await self.taken(limits, half), 2)
        self.assertEqual(await self.taken(limits, full), 3)

    async def test_required(self: Any) -> None:
        """A required bucket has to hold one, and keeps it; if it is empty, nothing changes."""
        limits = self.make_limits()
        required, own = self.bucket("required", burst=2), self.bucket("own")
        for _ in range(3):
            await limits.consume([], [required])
        await limits.consume([own], [required])
        self.assertEqual(await self.taken(limits, required), 2)
        for wanted in ([], [own]):
            refused = await self.refused(limits, wanted, [required])
            self.assertEqual(refused, (required.limit, required.key))
        self.assertEqual(await self.taken(limits, own), 2)

    async def test_refunded_with_it(self: Any) -> None:
        """Refunds of an attempt are made only if the attempt is allowed."""
        limits = self.make_limits()
        earlier, full = self.bucket("earlier"), self.bucket("full")
        wanted, required = self.bucket("wanted", burst=1), self.bucket("required", burst=1)
        self.assertEqual(await self.taken(limits, earlier), 3)
        await limits.consume([wanted], [required], [earlier, full])
        self.assertEqual(await self.taken(limits, earlier), 1)
        await self.refused(limits, [wanted], [required], [earlier])
        self.assertEqual(await self.taken(limits, earlier), 0)
        await limits.consume([required])
        await self.refused(limits, [], [required], [earlier])
        self.assertEqual(await self.taken(limits, earlier), 0)
        await limits.consume([], [], [earlier])
        self.assertEqual(await self.taken(limits, earlier), 1)
        self.assertEqual(await self.taken(limits, full), 3)

    async def test_named(self: Any) -> None:
        """A refusal names the bucket that is empty, at any place among others."""
        limits = self.make_limits()
        empty = self.bucket("empty", limit="address", burst=1)
        await limits.consume([empty])
        others = [self.bucket(limit=limit) for limit in ("account", "failures", "tried")]
        for place in range(len(others) + 1):
            wanted = [*others[:place], empty, *others[place:]]
            self.assertEqual(await self.refused(limits, wanted), (empty.limit, empty.key))
        self.assertEqual(await self.taken(limits, *others), 3)

    async def test_nothing(self: Any) -> None:
        """Without buckets nothing is refused."""
        limits = self.make_limits()
        await limits.consume([])
        await limits.refund([])

    async def test_race(self: Any) -> None:
        """Of many attempts at once, no more than the burst are allowed."""
        limits = self.make_limits()
        bucket = self.bucket()
        outcomes = await DeferredList(
            [limits.consume([bucket]) for _ in range(20)], consumeErrors=True
        )
        self.assertEqual(sum(allowed for allowed, _ in outcomes), 3)
        for allowed, result in outcomes:
            if not allowed:
                result.trap(RateLimited)
