"""Tests for making the page of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.interfaces import IDelegatedStore, ITokenKeys
from synapse_login_module.metrics.page import Reading
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.model import OwedDeletions, TokenKey
from synapse_login_module.standalone.scrape import LIFETIME, STORE_TIMEOUT, Sampling, Scrape
from synapse_login_module.tokens.format import KEY_SIZE, KeyRing, fingerprint

_KEY, _OTHER_KEY = bytes(KEY_SIZE), b"x" * KEY_SIZE


class FakeStore:
    """The part of a store that a scrape asks.

    :ivar keys: its keys, or how it fails.
    """

    def __init__(self) -> None:
        self.keys: Any = succeed([TokenKey(1, fingerprint(1, _KEY))])
        self.owed = OwedDeletions(0, None)
        self.reached: Any = succeed(None)
        self.asked = 0
        directlyProvides(self, ITokenKeys, IDelegatedStore)

    def ping(self) -> Any:
        return self.reached

    def token_keys(self) -> Any:
        self.asked += 1
        return self.keys

    def owed_deletions(self) -> Deferred[OwedDeletions]:
        return succeed(self.owed)


class ScrapeTests(SynchronousTestCase):
    """Making the page."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FakeStore()
        self.metrics = Metrics()
        self.threads: list[Deferred[None]] = []
        self.readings: dict[str, list[tuple[tuple[str, ...], float]]] = {}
        self.scrape = Scrape(
            self.metrics,
            self.make,
            maybeDeferred,
            self.store,
            KeyRing({1: _KEY}),
            True,
            self.clock,
            lambda: 1000.0,
        )

    def make(self, readings: Sequence[Reading]) -> bytes:
        self.readings.clear()
        for each in readings:
            known = self.readings.setdefault(each.definition.name, [])
            known.append((each.labels, each.value))
        return b"page"

    def read(self, name: str) -> list[tuple[tuple[str, ...], float]]:
        """Return what the next page has of a metric."""
        self.clock.advance(LIFETIME)
        self.assertEqual(self.successResultOf(self.scrape.page()), b"page")
        return self.readings[f"synapse_login_{name}"]

    def test_shared_key(self) -> None:
        """A key that server and store share is on the page with its fingerprint."""
        labels = ("1", fingerprint(1, _KEY), "shared", "yes")
        self.assertEqual(self.read("token_key_info"), [(labels, 1.0)])
        self.assertEqual(self.read("store_up"), [((), 1.0)])

    def test_bad_keys(self) -> None:
        """So is a key that is another one here, or that only the store has."""
        theirs = fingerprint(1, _OTHER_KEY)
        self.store.keys = succeed([TokenKey(1, theirs), TokenKey(2, "f" * 32)])
        expected = [
            (("1", fingerprint(1, _KEY), "different", "yes"), 1.0),
            (("2", "f" * 32, "lacking", "no"), 1.0),
        ]
        self.assertEqual(self.read("token_key_info"), expected)

    def test_outbox(self) -> None:
        """The page says how many devices wait, and for how long the oldest does."""
        self.assertEqual(self.read("outbox_oldest_age_seconds"), [((), 0.0)])
        self.store.owed = OwedDeletions(7, 880_000)
        self.assertEqual(self.read("outbox_notes"), [((), 7)])
        self.assertEqual(self.read("outbox_oldest_age_seconds"), [((), 120.0)])

    def test_store_down(self) -> None:
        """A store that fails is down, and the page is there all the same."""
        self.store.keys = fail(StoreUnavailable("away"))
        self.assertEqual(self.read("store_up"), [((), 0.0)])
        self.assertNotIn("synapse_login_token_key_info", self.readings)

    def test_takes_no_writes(self) -> None:
        """A store that can only be read is down: each login gets 503. The rest is on the page."""
        self.store.reached = fail(StoreUnavailable("database or disk is full"))
        self.assertEqual(self.read("store_up"), [((), 0.0)])
        self.assertEqual(len(self.readings["synapse_login_token_key_info"]), 1)
        self.assertEqual(self.readings["synapse_login_outbox_notes"], [((), 0)])

    def test_broken_store(self) -> None:
        """So is a third party's store that raises; the log has the error."""
        self.store.keys = fail(ZeroDivisionError())
        self.assertEqual(self.read("store_up"), [((), 0.0)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_store_hangs(self) -> None:
        """A store that does not answer is down after a timeout; its late answer harms nothing."""
        self.store.keys = hanging = Deferred[Any]()
        page = self.scrape.page()
        self.clock.advance(STORE_TIMEOUT - 0.1)
        self.assertNoResult(page)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(page), b"page")
        self.assertEqual(self.readings["synapse_login_store_up"], [((), 0.0)])
        hanging.callback([])

    def test_hammered(self) -> None:
        """Many requests within a second have one page made."""
        for _ in range(50):
            self.assertEqual(self.successResultOf(self.scrape.page()), b"page")
        self.assertEqual(self.store.asked, 1)
        self.read("store_up")
        self.assertEqual(self.store.asked, 2)

    def test_concurrent(self) -> None:
        """Requests that come while it is made get the same page."""
        self.store.keys = hanging = Deferred[Any]()
        pages = [self.scrape.page() for _ in range(5)]
        hanging.callback([])
        self.assertEqual([self.successResultOf(each) for each in pages], [b"page"] * 5)
        self.assertEqual(self.store.asked, 1)


class SamplingTests(SynchronousTestCase):
    """The samples of a worker."""

    def test_samples(self) -> None:
        """Gauges are sampled at the start, each second, and when it stops."""
        clock, metrics, seen = Clock(), Metrics(), list[float]()

        def read() -> float:
            seen.append(clock.seconds())
            return 0.0

        metrics.watch(metrics.hashing_queue, read)
        sampling = Sampling(metrics, clock)
        sampling.startService()
        clock.pump([1.0, 1.0])
        self.assertEqual(seen, [0.0, 1.0, 2.0])
        sampling.stopService()
        clock.advance(5.0)
        self.assertEqual(len(seen), 4)

    def test_goes_on(self) -> None:
        """A sample that fails, for whatever reason, does not end them; the log has one of them."""
        clock, metrics, seen = Clock(), Metrics(), list[float]()

        def read() -> float:
            seen.append(clock.seconds())
            raise ZeroDivisionError

        metrics.watch(metrics.hashing_queue, read)
        sampling = Sampling(metrics, clock)
        sampling.startService()
        clock.pump([1.0, 1.0])
        sampling.stopService()
        self.assertEqual(seen, [0.0, 1.0, 2.0, 2.0])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(clock.getDelayedCalls(), [])
