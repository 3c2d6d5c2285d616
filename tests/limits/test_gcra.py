"""Tests that all counts of attempts follow one arithmetic: in memory, shared, and in PostgreSQL."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.errors import RateLimited
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.limits import gcra
from synapse_login_module.limits.shared_memory import SharedBuckets, make_table
from synapse_login_module.limits.token_bucket import LocalBuckets, LocalRateLimits
from synapse_login_module.model import Bucket, Rate
from synapse_login_module.stores.postgresql.connection import Statement
from synapse_login_module.stores.postgresql.limits import PostgreSQLRateLimits
from synapse_login_module.stores.postgresql.schema import migrate
from tests.stores.test_postgresql import OneByOneRows
from tests.support.postgresql import shared_postgresql

RATES = (Rate(1, 1), Rate(1, 3), Rate(0.5, 2), Rate(4, 5))
# In the order in which PostgreSQL changes them.
BUCKETS = tuple(
    Bucket(f"limit{number}", ("alice",), rate, number) for number, rate in enumerate(RATES)
)
WARM_UP = Bucket("another", (), RATES[0])

_START = 1_700_000_000.0
_EXAMPLES = 100


class Step(NamedTuple):
    """A step of a test.

    :param seconds: the time before it, negative for a step back of the clock.
    """

    seconds: float
    wanted: Sequence[Bucket] = ()
    required: Sequence[Bucket] = ()
    refunded: Sequence[Bucket] = ()


def a_step(seconds: float, parts: Sequence[str], refunded: Sequence[Bucket]) -> Step:
    """A step in which each bucket is wanted, or is the one that is required, or neither."""
    roles = list(zip(BUCKETS, parts, strict=True))
    return Step(
        seconds,
        [bucket for bucket, part in roles if part == "wanted"],
        [bucket for bucket, part in roles if part == "required"][:1],
        refunded,
    )


def steps() -> st.SearchStrategy[list[Step]]:
    """Many steps. All times are quarters of a second, so that no outcome hangs on rounding."""
    return st.lists(
        st.builds(
            a_step,
            st.one_of(st.just(0), st.integers(0, 8), st.integers(-60, 60)).map(
                lambda quarters: quarters / 4
            ),
            st.tuples(*[st.sampled_from(("wanted", "wanted", "required", ""))] * len(BUCKETS)),
            st.lists(st.sampled_from(BUCKETS), max_size=2, unique=True),
        ),
        max_size=40,
    ).map(lambda some: [*some, *_until_empty()])


def _until_empty() -> list[Step]:
    """Steps that show what is left in each bucket."""
    return [Step(0.0, [bucket]) for bucket in BUCKETS for _ in range(bucket.rate.burst_count + 1)]


class Model:
    """The pure arithmetic, over a dictionary."""

    def __init__(self) -> None:
        self._full_at: dict[Bucket, float] = {}

    def do(self, step: Step, now: float) -> tuple[Bucket, float] | None:
        """Do a step; return which bucket refuses, and for how many seconds."""
        for bucket in step.required:
            full_at, wait = self._consume(bucket, now)
            if wait:
                self._full_at[bucket] = full_at
                return bucket, wait
        for number, bucket in enumerate(step.wanted):
            self._full_at[bucket], wait = self._consume(bucket, now)
            if wait:
                self._refund(step.wanted[:number], now)
                return bucket, wait
        self._refund(step.refunded, now)
        return None

    def _consume(self, bucket: Bucket, now: float) -> tuple[float, float]:
        return gcra.consume(bucket.rate, self._full_at.get(bucket, now), now)

    def _refund(self, buckets: Sequence[Bucket], now: float) -> None:
        for bucket in buckets:
            full_at = self._full_at.get(bucket, now)
            if full_at > now:
                self._full_at[bucket] = gcra.refund(bucket.rate, full_at)


class ModelTestCase(SynchronousTestCase):
    """A case that compares counts with the model."""

    def refusal(self, limits: IRateLimits, step: Step) -> RateLimited | None:
        """Return the error that a step is refused with."""
        done: list[Any] = []
        limits.consume(step.wanted, step.required, step.refunded).addBoth(done.append)
        (result,) = done
        if result is None:
            return None
        result.trap(RateLimited)
        return cast(RateLimited, result.value)

    def assert_alike(
        self, refusal: RateLimited | None, expected: tuple[Bucket, float] | None, tolerance: float
    ) -> None:
        """Assert that an outcome is that of the model.

        :param tolerance: how much of an attempt rounding may lose or win.
        """
        if expected is None or refusal is None:
            self.assertEqual(refusal, expected)
            return
        bucket, wait = expected
        self.assertEqual((refusal.limit, refusal.key), (bucket.limit, bucket.key))
        rounded = tolerance / bucket.rate.per_second
        self.assertLessEqual(refusal.retry_after, math.ceil((wait + rounded) * 1000) / 1000)
        self.assertGreaterEqual(refusal.retry_after, wait - rounded)


class MemoryTests(ModelTestCase):
    """Counts in the memory of a process, and in a table that processes share."""

    def setUp(self) -> None:
        self.file = make_table()
        self.addCleanup(self.file.close)
        self.examples = itertools.count()

    def check(self, done: list[Step], *processes: Any) -> None:
        """Do all steps, each in another process; no time passes where the clock steps back.

        :param processes: make the buckets of a process, by the name of a limit.
        """
        clock = Clock()
        clock.advance(_START)
        steady = gcra.SteadyClock(clock.seconds)
        limits = itertools.cycle([LocalRateLimits(steady, buckets) for buckets in processes])
        model = Model()
        for step in done:
            clock.advance(step.seconds)
            expected = model.do(step, steady())
            self.assert_alike(self.refusal(next(limits), step), expected, 0.0)

    @settings(max_examples=_EXAMPLES)
    @given(steps())
    def test_local(self, done: list[Step]) -> None:
        """The memory of one process."""
        tables: defaultdict[str, LocalBuckets] = defaultdict(LocalBuckets)
        self.check(done, tables.__getitem__)

    @settings(max_examples=_EXAMPLES)
    @given(steps())
    def test_shared(self, done: list[Step]) -> None:
        """Two tables mapped from one file, as two processes have them."""
        example = next(self.examples)

        def buckets(name: str) -> SharedBuckets:
            return SharedBuckets(self.file.fileno(), f"{name} of example {example}")

        self.check(done, buckets, buckets)

    @settings(max_examples=_EXAMPLES)
    @given(
        st.lists(
            st.tuples(st.integers(-60, 60), st.sampled_from(("wanted", "required", "refunded"))),
            max_size=40,
        )
    )
    def test_clock_steps_back(self, done: list[tuple[int, str]]) -> None:
        """One bucket by a clock that is not made steady beforehand."""
        clock = Clock()
        clock.advance(_START)
        limits = LocalRateLimits(clock.seconds, lambda _: LocalBuckets())
        model, now, bucket = Model(), _START, BUCKETS[1]
        for quarters, part in [*done, *[(0, "wanted")] * 4]:
            wanted, required, refunded = (
                [bucket] if part == each else [] for each in ("wanted", "required", "refunded")
            )
            step = Step(quarters / 4, wanted, required, refunded)
            clock.advance(step.seconds)
            now += max(0.0, step.seconds)
            self.assert_alike(self.refusal(limits, step), model.do(step, now), 0.0)


class SteppingDatabase:
    """A database that runs one transaction at a time, and whose clock a test sets."""

    def __init__(self) -> None:
        shared_postgresql().new_database("limits")
        self.connection = shared_postgresql().connect("limits")
        migrate(self.connection)
        self.connection.execute("CREATE SCHEMA stepping")
        self.connection.execute(
            "CREATE FUNCTION stepping.now() RETURNS TIMESTAMPTZ LANGUAGE SQL AS"
            " $$SELECT to_timestamp(current_setting('stepping.now')::DOUBLE PRECISION)$$"
        )
        self.connection.execute("SET search_path = stepping, pg_catalog, public")

    def set_clock(self, now: float) -> None:
        """Set the clock."""
        self.connection.execute("SELECT set_config('stepping.now', %s, false)", [repr(now)])

    def execute(self, statements: Sequence[Statement]) -> Deferred[list[Any]]:
        """Run statements in one transaction."""
        return execute(self._execute, statements)

    def _execute(self, statements: Sequence[Statement]) -> list[Any]:
        with self.connection.transaction():
            return OneByOneRows(self.connection)._run(statements)


class PostgreSQLTests(ModelTestCase):
    """Counts in PostgreSQL, whose clock may step back too."""

    def setUp(self) -> None:
        self.database = SteppingDatabase()
        self.addCleanup(self.database.connection.close)

    @settings(max_examples=_EXAMPLES // 2)
    @given(steps())
    def test_postgresql(self, done: list[Step]) -> None:
        """The database."""
        self.database.connection.execute("DELETE FROM synapse_login_limits")
        # So much time goes by between two questions that no refusal is remembered.
        clock = itertools.count(step=10).__next__
        limits = cast(IRateLimits, PostgreSQLRateLimits(cast(Any, self.database), clock))
        model, now = Model(), _START
        self.database.set_clock(now)
        # What comes first has the table swept.
        self.assertIsNone(self.refusal(limits, Step(0.0, [WARM_UP])))
        for step in done:
            now += step.seconds
            self.database.set_clock(now)
            self.assert_alike(self.refusal(limits, step), model.do(step, now), 2e-3)
