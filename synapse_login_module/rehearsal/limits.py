"""Rate limits that are read, and that no attempt is counted in."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from synapse_login_module.common.console import moment
from synapse_login_module.errors import RateLimited
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.model import Bucket
from synapse_login_module.rehearsal.steps import Trace

UNKNOWN_NETWORK = "-"
"""The network of a client whose address is not known."""


@implementer(IRateLimits)
class ReadLimits:
    """Refuses what the counts would refuse, and counts nothing.

    Buckets of a network that is not known are left out.

    :param counts: the counts that all servers share.
    :param trace: receives the steps.
    :param clock: the wall clock, in seconds.
    """

    def __init__(
        self, counts: IRateLimits, trace: Trace, clock: Callable[[], float] = time.time
    ) -> None:
        self._counts = counts
        self._trace = trace
        self._clock = clock

    def consume(
        self,
        wanted: Sequence[Bucket],
        required: Sequence[Bucket] = (),
        refunded: Sequence[Bucket] = (),
    ) -> Deferred[None]:
        """Fail like an attempt would; nothing is changed."""
        return Deferred.fromCoroutine(self._require([*required, *wanted]))

    def refund(self, consumed: Sequence[Bucket]) -> Deferred[None]:
        """Do nothing, since nothing was consumed."""
        return succeed(None)

    def waits(self, buckets: Sequence[Bucket]) -> Deferred[list[float]]:
        """Read the limits; see :class:`~synapse_login_module.interfaces.IRateLimits`."""
        return self._counts.waits(buckets)

    async def _require(self, given: Sequence[Bucket]) -> None:
        buckets = [bucket for bucket in given if UNKNOWN_NETWORK not in bucket.key]
        if not buckets:
            return
        waits = await self._counts.waits(buckets)
        refused = [(bucket, wait) for bucket, wait in zip(buckets, waits, strict=True) if wait > 0]
        for bucket, wait in refused:
            until = moment(math.ceil(self._clock() + wait) * 1000)
            self._trace.add(
                "limit",
                f"{bucket.limit} of {' '.join(bucket.key)} is reached until {until}"
                f"{_unless_known(bucket)}",
                limit=bucket.limit,
                whose=" ".join(bucket.key),
                reached=True,
                until=until,
            )
        if refused:
            bucket, wait = refused[0]
            raise RateLimited(wait, bucket.limit, bucket.key)
        names = list(dict.fromkeys(bucket.limit for bucket in buckets))
        self._trace.add("limit", f"not reached: {', '.join(names)}", reached=False)


def _unless_known(bucket: Bucket) -> str:
    """Say of a looser limit whom it does not apply to. That is in the memory of each server."""
    if not bucket.shared:
        return ""
    return "; it does not apply in a network that the user has logged in from before"
