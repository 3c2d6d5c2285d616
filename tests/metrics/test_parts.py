"""Tests for what the parts of the service count and measure."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module import compose
from synapse_login_module.accounts.metering import CountedEndings, sweep_meters
from synapse_login_module.accounts.watch import EndReason
from synapse_login_module.config.settings import ProviderPlugin
from synapse_login_module.errors import (
    HomeserverUnavailable,
    Overloaded,
    ProviderUnavailable,
    RateLimited,
)
from synapse_login_module.metrics.page import page_of
from synapse_login_module.metrics.prometheus import metrics_in, own_registry
from synapse_login_module.model import Client, Pruned
from synapse_login_module.plugin import Environment
from synapse_login_module.standalone.pruning import SCAN_PAUSE, Pruner
from synapse_login_module.stores.group_commit import GroupCommitThread
from synapse_login_module.testing import FakeProvider
from tests.homeservers.case import HomeserverCase
from tests.providers.case import PASSWORD, user
from tests.support.prometheus import sample_values

_CLIENT = Client("192.0.2.1", "192.0.2.1")


class Measured(SynchronousTestCase):
    """A test with metrics of its own."""

    def setUp(self) -> None:
        self.registry = own_registry()
        self.metrics = metrics_in(self.registry)
        self.clock = Clock()

    def value(self, name: str) -> float:
        """Return the value of a series; 0 where there is none."""
        self.metrics.sample()
        page = page_of(self.registry)([]).decode("utf-8")
        return sample_values(page).get(f"synapse_login_{name}", 0)


class ProviderTests(Measured):
    """Password providers."""

    def setUp(self) -> None:
        super().setUp()
        self.backend = FakeProvider({"@alice:example.com": PASSWORD})
        plugin = ProviderPlugin.model_validate(
            {"module": "x.Y", "name": "people", "circuit_breaker": {"failures": 1}}
        )
        meter = compose.meter(Counter(), self.metrics)
        self.provider = compose.wrap(plugin, self.backend, self.clock, meter)

    def count(self, outcome: str) -> float:
        labels = f'operation="authenticate",outcome="{outcome}",provider="people"'
        return self.value(f"provider_outcomes_total{{{labels}}}")

    def test_outcomes(self) -> None:
        """Each outcome is counted, also the first of its kind from 0 on."""
        self.metrics.sample()
        page = page_of(self.registry)([]).decode("utf-8")
        first = 'operation="authenticate",outcome="unavailable",provider="people"} 0.0'
        self.assertIn(first, page)
        self.backend.failure = ProviderUnavailable("away")
        self.failureResultOf(self.provider.authenticate(user("alice"), PASSWORD))
        self.assertEqual(self.count("unavailable"), 1)

    def test_circuit(self) -> None:
        """The circuit is closed at first, and open after an outage."""
        name = 'provider_circuit_open{operation="authenticate",provider="people"}'
        page = page_of(self.registry)([]).decode("utf-8")
        self.assertIn(f"synapse_login_{name} 0.0", page)
        self.backend.failure = ProviderUnavailable("away")
        self.failureResultOf(self.provider.authenticate(user("alice"), PASSWORD))
        self.assertEqual(self.value(name), 1)

    def test_duration(self) -> None:
        """An answer that took time is measured, and one that was there at once is not."""
        labels = 'operation="authenticate",provider="people"'
        self.failureResultOf(self.provider.authenticate(user("alice"), "wrong"))
        self.assertEqual(self.value(f"provider_duration_seconds_count{{{labels}}}"), 0)
        waiting: Deferred[None] = Deferred()
        self.backend.authenticate = lambda *_: waiting  # type: ignore[assignment,method-assign]
        asked = self.provider.authenticate(user("alice"), PASSWORD)
        self.clock.advance(0.2)
        waiting.callback(None)
        self.assertIsNone(self.successResultOf(asked))
        self.assertEqual(self.value(f"provider_duration_seconds_count{{{labels}}}"), 1)
        self.assertAlmostEqual(self.value(f"provider_duration_seconds_sum{{{labels}}}"), 0.2)


class AuditTests(Measured):
    """The outcomes of attempts."""

    def test_limits(self) -> None:
        """What a limit rejects is counted by the limit, a full hashing queue too."""
        audit = compose.audit_log(self.metrics, self.clock)
        audit.failed("login", RateLimited(1.0, "address", ("x",)), _CLIENT, user="alice")
        audit.failed("login", Overloaded(1.0), _CLIENT, user="alice")
        self.assertEqual(self.value('limits_hit_total{limit="address"}'), 1)
        self.assertEqual(self.value('limits_hit_total{limit="hashing_queue"}'), 1)
        labels = 'event="login",outcome="limited",reason="overloaded"'
        self.assertEqual(self.value(f"outcomes_total{{{labels}}}"), 1)


def _with_table(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE word (word TEXT)")
    return connection


class StoreTests(Measured):
    """The commits of the store."""

    def commit(self, connect: str, sql: str = "PRAGMA user_version = 1") -> None:
        """Run two pieces of work in one commit."""
        thread = GroupCommitThread(lambda: _with_table(connect), _ignored, _ignored, self.metrics)
        thread.start()
        ran = [thread.run(lambda connection: connection.execute(sql).fetchone()) for _ in range(2)]
        thread.stop()
        self.assertEqual(len(ran), 2)

    def test_commit(self) -> None:
        """A commit is measured, with the number of pieces of work in it."""
        self.commit(":memory:", "INSERT INTO word VALUES ('x')")
        self.assertEqual(self.value("store_commit_operations_count"), 1)
        self.assertEqual(self.value("store_commit_operations_sum"), 2)
        self.assertEqual(self.value("store_commit_duration_seconds_count"), 1)
        self.assertEqual(self.value("store_failures_total"), 0)

    def test_read(self) -> None:
        """A transaction that has written nothing is not measured."""
        self.commit(":memory:", "SELECT * FROM word")
        self.assertEqual(self.value("store_commit_operations_count"), 0)
        self.assertEqual(self.value("store_failures_total"), 0)

    def test_failure(self) -> None:
        """A commit that fails is counted as a failure."""
        self.commit(str(Path(self.mktemp()) / "no" / "such" / "folder"))
        self.assertEqual(self.value("store_commit_operations_count"), 0)
        self.assertEqual(self.value("store_failures_total"), 1)

    def test_pruned(self) -> None:
        """Rows that are removed are counted by their kind."""
        store = _Pruned()
        pruned = self.metrics.pruned
        pruner = Pruner(store, 60.0, self.clock, lambda kind, n: pruned.of(kind).inc(n))
        pruner.startService()
        self.clock.advance(SCAN_PAUSE)
        pruner.stopService()
        found = [
            self.value(f'pruned_rows_total{{kind="{kind}"}}')
            for kind in ("session", "login_token", "imported_token")
        ]
        self.assertEqual(found, [3, 2, 1])


class SweepTests(Measured):
    """The sweep over linked accounts."""

    def test_meters(self) -> None:
        """Its questions, lag, links and held accounts are shown."""
        looked, meter = sweep_meters(self.metrics)
        looked("people", "unknown")
        meter.lag(12.0)
        meter.held(3)
        meter.links("people", 40)
        self.assertEqual(self.value('sweep_looks_total{outcome="unknown",provider="people"}'), 1)
        self.assertEqual(self.value("sweep_lag_seconds"), 12)
        self.assertEqual(self.value("brake_held_accounts"), 3)
        self.assertEqual(self.value('linked_accounts{provider="people"}'), 40)

    def test_ended(self) -> None:
        """The sessions that end are counted by the reason."""
        endings = CountedEndings(_Endings(), self.metrics)
        self.assertEqual(self.successResultOf(endings.end("@a:b", EndReason.GONE)), 4)
        self.successResultOf(endings.lock("@a:b", True))
        self.assertEqual(self.value('sessions_ended_total{reason="gone"}'), 4)


def _ignored(function: object, *arguments: object) -> None:
    """Call nothing back."""


class _Pruned:
    def prune(self, after: int | None, scan: int, most: int) -> Deferred[Pruned]:
        return succeed(Pruned(3, 2, None, 1))


class _Endings:
    def end(self, user_id: str, reason: EndReason) -> Deferred[int]:
        return succeed(4)

    def lock(self, user_id: str, locked: bool) -> Deferred[None]:
        return succeed(None)


class HomeserverTests(HomeserverCase):
    """Calls to the homeserver."""

    def setUp(self) -> None:
        super().setUp()
        self.registry = own_registry()
        self.metrics = metrics_in(self.registry)

    def environment(self) -> Environment:
        return replace(super().environment(), metrics=self.metrics)

    async def test_calls(self) -> None:
        """Each call is measured by its name and outcome."""
        homeserver = self.homeserver()
        await homeserver.find_account(f"@alice:{self.server_name}")
        self.synapse.answer = 500, b"{}"
        with self.assertRaises(HomeserverUnavailable):
            await homeserver.find_account(f"@alice:{self.server_name}")
        found = sample_values(page_of(self.registry)([]).decode("utf-8"))
        for outcome in ("refused", "failed"):
            labels = f'method="query_user",outcome="{outcome}"'
            name = f"synapse_login_homeserver_call_duration_seconds_count{{{labels}}}"
            self.assertEqual(found[name], 1)
