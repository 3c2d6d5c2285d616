"""Token buckets in PostgreSQL: one count of the attempts at all servers.

A bucket is one number, the moment when it will be full by the database's clock; so each is changed
by one statement on one row, by its primary key, and nothing is read first. A full bucket needs no
row. The rules are those of ``limits/gcra.py``, by the same names.
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

# All of these stand in one transaction, one after another. A counter of this transaction says how
# many buckets have let the attempt pass. $2 is the interval and $3 the capacity, both in seconds.
_PASSED = b"current_setting('synapse_login.passed')::INTEGER"

# Of the buckets that have to hold one; $4 is how many they are.
_REQUIRE = b"""
SELECT set_config('synapse_login.passed', $4::TEXT, true)
WHERE NOT EXISTS (
    SELECT 1 FROM unnest($1::BYTEA[], $2::DOUBLE PRECISION[], $3::DOUBLE PRECISION[])
        AS step (bucket, interval, capacity)
    JOIN synapse_login_limits AS held ON held.bucket = step.bucket
    WHERE held.full_at + step.interval > %(now)b + step.capacity
)
""" % {b"now": _NOW}

# $4 is how many this one comes after: where one of them refused, this one is left alone.
_CONSUME = b"""
INSERT INTO synapse_login_limits AS held (bucket, full_at)
SELECT $1::BYTEA, %(now)b + $2::DOUBLE PRECISION
WHERE %(passed)b = $4::TEXT::INTEGER
ON CONFLICT (bucket) DO UPDATE
SET full_at = GREATEST(held.full_at, %(now)b) + $2::DOUBLE PRECISION
WHERE held.full_at + $2::DOUBLE PRECISION <= %(now)b + $3::DOUBLE PRECISION
RETURNING set_config('synapse_login.passed', ($4::TEXT::INTEGER + 1)::TEXT, true)
""" % {b"now": _NOW, b"passed": _PASSED}

# $3 is how many have to have passed.
_REFUND = b"""
UPDATE synapse_login_limits SET full_at = full_at - $2::DOUBLE PRECISION
WHERE bucket = $1::BYTEA AND full_at > %(now)b AND %(passed)b = $3::TEXT::INTEGER
""" % {b"now": _NOW, b"passed": _PASSED}

# Where not all have passed: refund what was consumed, and say which refused, and for how many
# seconds. $4 is how many are only required, $5 how many there are. What refuses is set to empty if
# it is emptier, as after a step back of the clock.
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

# An attempt need not be durable: a crash of the database may cost what was counted just before.
_FIRST = Statement(
    b"SELECT set_config('synchronous_commit', 'off', true),"
    b" set_config('synapse_login.passed', '0', true)",
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
"""Of an attempt: what rounding may lose, more than in ``gcra.py``, as seconds since the epoch are
large numbers.
"""


class PostgreSQLRateLimits:
    """A :class:`~synapse_login_module.interfaces.IRateLimits`.

    :param database: whose table it is; nobody else's, so that a flood of attempts does not stand
        between the refreshes.
    :param clock: a clock that never steps.
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
        """Consume one from each bucket, or change nothing."""
        return _to_its_end(self._consume(wanted, required, refunded))

    def refund(self, consumed: Sequence[Bucket]) -> Deferred[None]:
        """Refund what was consumed."""
        return _to_its_end(self._refund(consumed))

    def stop(self) -> Deferred[None]:
        """Finish what is under way, and close the connection."""
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
        # What is refunded comes last, and no attempt consumes one of those and then one of its own:
        # so this order is the same everywhere too.
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

    def _refusal(self, steps: Sequence[Bucket], undone: PGresult) -> RateLimited:
        """What an attempt fails with, and is remembered: the row of the bucket that refused comes
        behind those of the buckets that it consumed from, by its place.
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
    """The table is swept another time."""
    failure.trap(StoreUnavailable)


def _to_its_end(work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
    """Finish work though its caller goes away.

    What it would refund is lost otherwise, and by going away early a stranger would use up what
    others may do.
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

    What an attempt shares with fewest others comes first; so one whose own bucket is empty consumes
    nothing of others', even for a moment.
    """
    return sorted(buckets, key=lambda bucket: (bucket.shared, bucket.limit, _name(bucket)))


def _change(sql: bytes, bucket: Bucket, passed: str) -> Statement:
    """A statement on one bucket.

    :param passed: how many have to have let the attempt pass.
    """
    values: list[str | bytes] = [_name(bucket), repr(_interval(bucket))]
    if sql is _CONSUME:
        values.append(repr(_capacity(bucket)))
    return Statement(sql, [*values, passed])


def _arrays(buckets: Sequence[Bucket]) -> list[str | bytes]:
    """The names of buckets, their intervals and their capacities."""
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
    """What the bucket is found by: of one size, and no list of addresses and users."""
    whose = json.dumps([bucket.limit, *bucket.key]).encode()
    return blake2b(whose, digest_size=16).digest()
