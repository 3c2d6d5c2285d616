"""Token buckets in PostgreSQL: one count of the attempts at all servers.

A bucket is one number, when it will be full, by the database's clock; so each is changed by one
statement on one row, by its primary key, and nothing is read first. A full bucket has no row.
Source of the arithmetic: ITU-T I.371, the generic cell rate algorithm in its virtual scheduling
form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from synapse_login_module.errors import RateLimited, StoreUnavailable
from synapse_login_module.lru import Recent
from synapse_login_module.model import Bucket
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.database import PostgreSQLDatabase

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_NOW = b"EXTRACT(EPOCH FROM now())::DOUBLE PRECISION"

# $2 is what an attempt puts the moment off by, $3 how far ahead it may be; both in seconds. $4 is
# how many this one comes after: where one of them was refused, this one is left alone.
_TAKE = b"""
INSERT INTO synapse_login_limits AS held (bucket, full_at)
SELECT $1::BYTEA, %(now)b + $2::DOUBLE PRECISION
WHERE current_setting('synapse_login.taken') = $4::TEXT
ON CONFLICT (bucket) DO UPDATE
SET full_at = GREATEST(held.full_at, %(now)b) + $2::DOUBLE PRECISION
WHERE held.full_at + $2::DOUBLE PRECISION <= %(now)b + $3::DOUBLE PRECISION
RETURNING set_config('synapse_login.taken', ($4::TEXT::INTEGER + 1)::TEXT, true)
""" % {b"now": _NOW}

_GIVE_BACK = b"""
UPDATE synapse_login_limits SET full_at = full_at - $2::DOUBLE PRECISION
WHERE bucket = $1::BYTEA AND full_at > %(now)b
""" % {b"now": _NOW}

# A clock that stepped back would leave it emptier than empty.
_WAIT = b"""
UPDATE synapse_login_limits SET full_at = LEAST(full_at, %(now)b + $3::DOUBLE PRECISION)
WHERE bucket = $1::BYTEA
RETURNING (full_at + $2::DOUBLE PRECISION - %(now)b - $3::DOUBLE PRECISION)::TEXT
""" % {b"now": _NOW}

# An attempt need not be durable: a crash of the database may cost what was counted just before.
_FIRST = Statement(
    b"SELECT set_config('synchronous_commit', 'off', true),"
    b" set_config('synapse_login.taken', '0', true)",
    [],
)

_DROP_FULL = b"DELETE FROM synapse_login_limits WHERE full_at <= %(now)b" % {b"now": _NOW}

_SWEEP_EVERY = 1000
"""Attempts, from the first on: so the table is swept as often as it grows, however many servers
there are, and however often they are started anew.
"""

_REFUSED_FOR = 1.0
"""Seconds: whoever keeps asking costs the database one question in that time."""

_MOST_REFUSED = 10_000
_TOLERANCE = 1e-3
"""Of an attempt: what may be lost in rounding."""


class PostgreSQLRateLimits:
    """A :class:`~synapse_login_module.interfaces.IRateLimits`.

    :param database: whose table it is; nobody else's, so that a flood of attempts does not stand
        between the refreshes.
    :param seconds: a clock that never steps.
    """

    def __init__(self, database: PostgreSQLDatabase, seconds: Callable[[], float]) -> None:
        self._database = database
        self._seconds = seconds
        self._refused: Recent[Bucket, tuple[float, float]] = Recent(_MOST_REFUSED)
        self._taken = 0

    def take(self, wanted: Sequence[Bucket]) -> Deferred[None]:
        """Take one from each bucket, or from none."""
        return _to_its_end(self._take(wanted))

    def give_back(self, taken: Sequence[Bucket]) -> Deferred[None]:
        """Give back what was taken."""
        return _to_its_end(self._give_back(taken))

    def stop(self) -> Deferred[None]:
        """Finish what is under way, and close the connection."""
        return self._database.stop()

    async def _take(self, wanted: Sequence[Bucket]) -> None:
        if not wanted:
            return
        self._require_not_refused(wanted)
        buckets = _in_order(wanted)
        results = await self._run(
            [_change(_TAKE, each, str(before)) for before, each in enumerate(buckets)]
        )
        taken = sum(result.ntuples for result in results)
        if taken < len(buckets):
            raise RateLimited(await self._undo(buckets[:taken], buckets[taken]))
        self._taken += 1
        if self._taken % _SWEEP_EVERY == 1:
            self._database.execute([Statement(_DROP_FULL, [])]).addErrback(_not_now)

    async def _give_back(self, taken: Sequence[Bucket]) -> None:
        for bucket in taken:
            self._refused.pop(bucket, None)
        if taken:
            await self._run([_change(_GIVE_BACK, each) for each in _in_order(taken)])

    async def _undo(self, taken: Sequence[Bucket], refused: Bucket) -> float:
        """Give back what was taken; how many seconds until the one that refused holds enough."""
        changes = [_change(_GIVE_BACK, each) for each in taken]
        *_, result = await self._run([*changes, _change(_WAIT, refused)])
        wait = float(result.get_value(0, 0) or b"0") if result.ntuples else 0.0
        self._refused.remember(refused, (self._seconds(), wait))
        return math.ceil(max(wait, 0.001) * 1000) / 1000

    async def _run(self, statements: Sequence[Statement]) -> Sequence[PGresult]:
        _, *results = await self._database.execute([_FIRST, *statements])
        return results

    def _require_not_refused(self, wanted: Sequence[Bucket]) -> None:
        for bucket in wanted:
            since, wait = self._refused.get(bucket, (-math.inf, 0.0))
            elapsed = self._seconds() - since
            if elapsed < min(wait, _REFUSED_FOR):
                raise RateLimited(math.ceil((wait - elapsed) * 1000) / 1000)


def _not_now(failure: Failure) -> None:
    """The table is swept another time."""
    failure.trap(StoreUnavailable)


def _to_its_end(work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
    """Do what is done in steps to its end, though whoever waits for it goes away between two.

    What an attempt took that is refused would else be lost, and by going away early a stranger
    would use up what others may do.
    """
    waiting: Deferred[None] = Deferred()

    def done(result: Failure | None) -> Failure | None:
        if not waiting.called:
            waiting.callback(result)
        elif isinstance(result, Failure) and not result.check(RateLimited, StoreUnavailable):
            return result
        return None

    Deferred.fromCoroutine(work).addBoth(done)
    return waiting


def _in_order(buckets: Iterable[Bucket]) -> list[Bucket]:
    """In one order everywhere, so that two servers never wait for one another.

    What an attempt shares with fewest others comes first, by the limits' names; so nobody whose own
    bucket is empty takes from another's, even for a moment.
    """
    return sorted(buckets, key=lambda bucket: (bucket.limit, _name(bucket)))


def _change(sql: bytes, bucket: Bucket, *more: str) -> Statement:
    interval = 1 / bucket.rate.per_second
    values: list[str | bytes] = [_name(bucket), repr(interval)]
    if b"$3" in sql:
        values.append(repr(interval * (bucket.rate.burst_count + _TOLERANCE)))
    return Statement(sql, [*values, *more])


def _name(bucket: Bucket) -> bytes:
    """What the bucket is found by: of one size, and no list of addresses and users."""
    whose = json.dumps([bucket.limit, *bucket.key]).encode()
    return blake2b(whose, digest_size=16).digest()
