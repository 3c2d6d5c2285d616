"""What every store of rate limits does."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredList
from zope.interface.verify import verifyObject

from synapse_login_module.errors import RateLimited
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.model import Bucket, Rate


class RateLimitsContract:
    """What every :class:`~synapse_login_module.interfaces.IRateLimits` does. Override
    :meth:`make_limits`; the buckets of these tests refill so slowly that no time matters.
    """

    def make_limits(self) -> IRateLimits:
        """Make one in which all buckets are full."""
        raise NotImplementedError

    def bucket(self, key: str = "alice", limit: str = "failures", burst: int = 3) -> Bucket:
        """A bucket that refills once in a thousand seconds."""
        return Bucket(limit, (key, "192.0.2.1"), Rate(0.001, burst))

    async def taken(self: Any, limits: IRateLimits, *buckets: Bucket) -> int:
        """How many attempts at once are allowed, up to 20."""
        for count in range(20):
            try:
                await limits.take(buckets)
            except RateLimited as refusal:
                self.assertGreater(refusal.retry_after, 900)
                self.assertLessEqual(refusal.retry_after, 1000)
                return count
        return 20

    def test_interface(self: Any) -> None:
        """It provides what it promises."""
        verifyObject(IRateLimits, self.make_limits())

    async def test_burst(self: Any) -> None:
        """A bucket allows its burst and no more, and is nobody else's."""
        limits = self.make_limits()
        for bucket in (self.bucket(), self.bucket("bob"), self.bucket(limit="address")):
            self.assertEqual(await self.taken(limits, bucket), 3)
        self.assertEqual(await self.taken(limits, self.bucket()), 0)

    async def test_all_or_none(self: Any) -> None:
        """What one bucket refuses is taken from none."""
        limits = self.make_limits()
        rare, often = self.bucket("rare", burst=1), self.bucket("often")
        self.assertEqual(await self.taken(limits, often, rare), 1)
        self.assertEqual(await self.taken(limits, often, rare), 0)
        self.assertEqual(await self.taken(limits, often), 2)

    async def test_give_back(self: Any) -> None:
        """What is given back can be taken again, and nothing is given back beyond the burst."""
        limits = self.make_limits()
        used, full = self.bucket(), self.bucket("full")
        await limits.take([used])
        await limits.take([used])
        await limits.give_back([used, full])
        self.assertEqual(await self.taken(limits, used), 2)
        for _ in range(5):
            await limits.give_back([used])
        self.assertEqual(await self.taken(limits, used), 3)
        self.assertEqual(await self.taken(limits, full), 3)

    async def test_nothing(self: Any) -> None:
        """Where nothing is limited nothing is refused."""
        limits = self.make_limits()
        await limits.take([])
        await limits.give_back([])

    async def test_race(self: Any) -> None:
        """Of many attempts at once no more are allowed than the burst."""
        limits = self.make_limits()
        bucket = self.bucket()
        outcomes = await DeferredList(
            [limits.take([bucket]) for _ in range(20)], consumeErrors=True
        )
        self.assertEqual(sum(allowed for allowed, _ in outcomes), 3)
        for allowed, result in outcomes:
            if not allowed:
                result.trap(RateLimited)
