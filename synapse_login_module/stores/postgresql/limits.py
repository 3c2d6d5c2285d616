"""Token buckets in PostgreSQL, which count the attempts at all servers together.

A bucket is one number, the moment when it will be full by the database's clock. So one statement
changes one row, by its primary key, and nothing is read first. A full bucket needs no row. The
rules are those of ``limits/gcra.py``, with the same names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from synapse_login_module.common.lru import Recent
from synapse_login_module.errors import RateLimited, StoreUnavailable
from synapse_login_module.model import Bucket
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.database import PostgreSQLDatabase

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_NOW = b"EXTRACT(EPOCH FROM now())::DOUBLE PRECISION"

# The statements below run one after another in one transaction. A setting of the transaction counts
# the buckets that have let the attempt pass. $2 is the interval and $3 the capacity, in seconds.
_PASSED = b"current_setting('synapse_login.passed')::INTEGER"

# Require one of each of $4 buckets.
_REQUIRE = b"""
SELECT set_config('synapse_login.passed', $4::TEXT, true)
WHERE NOT EXISTS (
    SELECT 1 FROM unnest($1::BYTEA[], $2::DOUBLE PRECISION[], $3::DOUBLE PRECISION[])
        AS step (bucket, interval, capacity)
    JOIN synapse_login_limits AS held ON held.bucket = step.bucket
    WHERE held.full_at + step.interval > %(now)b + step.capacity
)
""" % {b"now": _NOW}

# Consume one from a bucket, unless one of the $4 buckets before it refused.
_CONSUME = b"""
INSERT INTO synapse_login_limits AS held (bucket, full_at)
SELECT $1::BYTEA, %(now)b + $2::DOUBLE PRECISION
WHERE %(passed)b = $4::TEXT::INTEGER
ON CONFLICT (bucket) DO UPDATE
SET full_at = GREATEST(held.full_at, %(now)b) + $2::DOUBLE PRECISION
WHERE held.full_at + $2::DOUBLE PRECISION <= %(now)b + $3::DOUBLE PRECISION
RETURNING set_config('synapse_login.passed', ($4::TEXT::INTEGER + 1)::TEXT, true)
""" % {b"now": _NOW, b"passed": _PASSED}

# Refund one to a bucket, if $3 buckets have let the attempt pass.
_REFUND = b"""
UPDATE synapse_login_limits SET full_at = full_at - $2::DOUBLE PRECISION
WHERE bucket = $1::BYTEA AND full_at > %(now)b AND %(passed)b = $3::TEXT::INTEGER
""" % {b"now": _NOW, b"passed": _PASSED}

# If a bucket refused: refund what was consumed, and return which one refused, and for how many
# seconds. $4 is the number of buckets that are only required, $5 the number of all. A bucket that
# is emptier than empty, as after a step back of the clock, is set to empty.
_UNDO = b"""
UPDATE synapse_login_limits AS held
SET full_at = CASE
    WHEN step.place <= %(passed)b THEN held.full_at - step.interval
    ELSE LEAST(held.full_at, %(now)b + step.capacity)
END
FROM unnest($1::BYTEA[], $2::DOUBLE PRECISION[], $3::DOUBLE PRECISION[])
    WITH ORDINALITY AS step (bucket, interval, capacity, place)
WHERE held.bucket = step.bucket AND %(passed)b < $5::TEXT::INTEGER AND CASE
    WHEN %(passed)b < $4::TEXT::INTEGER THEN
        step.place <= $4::TEXT::INTEGER AND held.full_at + step.interval > %(now)b + step.capacity
    ELSE step.place > $4::TEXT::INTEGER AND step.place <= %(passed)b + 1
END
RETURNING step.place::TEXT, (held.full_at + step.interval - %(now)b - step.capacity)::TEXT
""" % {b"now": _NOW, b"passed": _PASSED}

# Return for how many seconds each bucket refuses, or less than 0.
_WAITS = b"""
SELECT (
    LEAST(COALESCE(held.full_at, 0), %(now)b + step.capacity) + step.interval
    - %(now)b - step.capacity
)::TEXT
FROM unnest($1::BYTEA[], $2::DOUBLE PRECISION[], $3::DOUBLE PRECISION[])
    WITH ORDINALITY AS step (bucket, interval, capacity, place)
LEFT JOIN synapse_login_limits AS held ON held.bucket = step.bucket
ORDER BY step.place
""" % {b"now": _NOW}

# The counts need not be durable: a crash of the database may lose the latest attempts.
_FIRST = Statement(
    b"SELECT set_config('synchronous_commit', 'off', true),"
    b" set_config('synapse_login.passed', '0', true)",
    [],
)

_DROP_FULL = b"DELETE FROM synapse_login_limits WHERE full_at <= %(now)b" % {b"now": _NOW}

_SWEEP_EVERY = 1000
"""Attempts between two sweeps; the first attempt sweeps too. So the table is swept in proportion to
its growth, whatever the number of servers, even if they restart often.
"""

_REFUSED_FOR = 1.0
"""Seconds for which a refusal is remembered here, so that a client that keeps trying costs the
database one query in that time.
"""

_MOST_REFUSED = 10_000
_TOLERANCE = 1e-3
"""What rounding may lose, as a part of one attempt. It is more than in ``gcra.py``, since seconds
since the epoch are large numbers.
"""


class PostgreSQLRateLimits:
    """Counts attempts in PostgreSQL; a :class:`~synapse_login_module.interfaces.IRateLimits`.

    :param database: the database of the table. Its connection serves nothing else, so that a flood
        of attempts does not delay refreshes.
    :param clock: returns the time in seconds, and never steps.
    """

    def __init__(self, database: PostgreSQLDatabase, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._refused: Recent[bytes, tuple[float, float]] = Recent(_MOST_REFUSED)
        self._consumed = 0

    def consume(
        self,
        wanted: Sequence[Bucket],
        required: Sequence[Bucket] = (),
        refunded: Sequence[Bucket] = (),
    ) -> Deferred[None]:
        """Consume one from each bucket, or change nothing. Cancelling it does not stop the work."""
        return _uncancelled(self._consume(wanted, required, refunded))

    def refund(self, consumed: Sequence[Bucket]) -> Deferred[None]:
        """Refund one to each bucket. Cancelling it does not stop the work."""
        return _uncancelled(self._refund(consumed))

    def waits(self, buckets: Sequence[Bucket]) -> Deferred[list[float]]:
        """Read how long each bucket refuses; nothing is written."""
        return Deferred.fromCoroutine(self._waits(buckets))

    def stop(self) -> Deferred[None]:
        """Finish the work that is under way, and close the connection."""
        return self._database.stop()

    async def _consume(
        self, wanted: Sequence[Bucket], required: Sequence[Bucket], refunded: Sequence[Bucket]
    ) -> None:
        if not wanted and not required:
            await self._refund(refunded)
            return
        self._require_not_refused([*required, *wanted])
        before, own = _in_order(required), _in_order(wanted)
        steps = [*before, *own]
        total = str(len(steps))
        # Refunds come last. No attempt consumes from one of these buckets and then from its own, so
        # all servers lock the rows in one order.
        changes = [_change(_CONSUME, each, str(len(before) + n)) for n, each in enumerate(own)]
        changes += [_change(_REFUND, each, total) for each in _in_order(refunded)]
        if before:
            changes.insert(0, Statement(_REQUIRE, [*_arrays(before), str(len(before))]))
        undo = Statement(_UNDO, [*_arrays(steps), str(len(before)), total])
        *results, undone = await self._run([*changes, undo])
        if not all(result.ntuples for result in results[: len(own) + bool(before)]):
            raise self._refusal(steps, undone)
        for bucket in refunded:
            self._refused.pop(_name(bucket), None)
        if not own:
            return
        self._consumed += 1
        if self._consumed % _SWEEP_EVERY == 1:
            self._database.execute([Statement(_DROP_FULL, [])]).addErrback(_not_now)

    async def _refund(self, consumed: Sequence[Bucket]) -> None:
        for bucket in consumed:
            self._refused.pop(_name(bucket), None)
        if consumed:
            await self._run([_change(_REFUND, each, "0") for each in _in_order(consumed)])

    async def _waits(self, buckets: Sequence[Bucket]) -> list[float]:
        (found,) = await self._database.execute([Statement(_WAITS, _arrays(buckets))], writes=False)
        waits = [found.get_value(row, 0) for row in range(found.ntuples)]
        return [max(float(each or 0), 0.0) for each in waits]

    def _refusal(self, steps: Sequence[Bucket], undone: PGresult) -> RateLimited:
        """Make the error of an attempt, and remember the refusal.

        Of the rows that were undone, the one with the highest place is the bucket that refused.
        """
        rows = [
            (int(_text(undone, row, 0)), float(_text(undone, row, 1)))
            for row in range(undone.ntuples)
        ]
        place, wait = max(rows, default=(len(steps), 0.0))
        refused = steps[place - 1]
        self._refused.remember(_name(refused), (self._clock(), wait))
        return _limited(refused, wait)

    async def _run(self, statements: Sequence[Statement]) -> Sequence[PGresult]:
        _, *results = await self._database.execute([_FIRST, *statements])
        return results

    def _require_not_refused(self, buckets: Sequence[Bucket]) -> None:
        for bucket in buckets:
            since, wait = self._refused.get(_name(bucket), (-math.inf, 0.0))
            elapsed = self._clock() - since
            if elapsed < min(wait, _REFUSED_FOR):
                raise _limited(bucket, wait - elapsed)


def _limited(bucket: Bucket, wait: float) -> RateLimited:
    return RateLimited(math.ceil(max(wait, 0.001) * 1000) / 1000, bucket.limit, bucket.key)


def _text(result: PGresult, row: int, column: int) -> str:
    value = result.get_value(row, column)
    assert value is not None
    return value.decode("ascii")


def _not_now(failure: Failure) -> None:
    """Skip a sweep that failed: a later one deletes the same rows."""
    failure.trap(StoreUnavailable)


def _uncancelled(work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
    """Finish work even if its caller cancels it.

    Otherwise its refunds would be lost, and a stranger who closes connections early could use up
    the limits of others.
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
    """Sort buckets into one order for all servers, so that transactions cannot deadlock.

    Buckets that fewest users share come first. So an attempt whose own bucket is empty consumes
    nothing from shared ones, not even for a moment.
    """
    return sorted(buckets, key=lambda bucket: (bucket.shared, bucket.limit, _name(bucket)))


def _change(sql: bytes, bucket: Bucket, passed: str) -> Statement:
    """Make a statement on one bucket.

    :param sql: :data:`_CONSUME` or :data:`_REFUND`.
    :param passed: how many buckets have to have let the attempt pass.
    """
    values: list[str | bytes] = [_name(bucket), repr(_interval(bucket))]
    if sql is _CONSUME:
        values.append(repr(_capacity(bucket)))
    return Statement(sql, [*values, passed])


def _arrays(buckets: Sequence[Bucket]) -> list[str | bytes]:
    """Return the names, intervals and capacities of buckets as PostgreSQL arrays."""
    return [
        "{" + ",".join(f'"\\\\x{_name(each).hex()}"' for each in buckets) + "}",
        "{" + ",".join(repr(_interval(each)) for each in buckets) + "}",
        "{" + ",".join(repr(_capacity(each)) for each in buckets) + "}",
    ]


def _interval(bucket: Bucket) -> float:
    return 1 / bucket.rate.per_second


def _capacity(bucket: Bucket) -> float:
    return _interval(bucket) * (bucket.rate.burst_count + _TOLERANCE)


def _name(bucket: Bucket) -> bytes:
    """Hash the bucket's limit and key into a primary key, which has a fixed size and reveals no
    address or user.
    """
    whose = json.dumps([bucket.limit, *bucket.key]).encode()
    return blake2b(whose, digest_size=16).digest()
