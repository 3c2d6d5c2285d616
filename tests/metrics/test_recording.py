"""Tests for counting and measuring."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.metrics import definitions
from synapse_login_module.metrics.definitions import ALL, Place
from synapse_login_module.metrics.page import Reading, page_of
from synapse_login_module.metrics.prometheus import metrics_in, own_registry
from synapse_login_module.metrics.recording import MAX_SERIES, Gathered, Metrics
from tests.support import REPOSITORY
from tests.support.prometheus import families, sample_values

_ROW = re.compile(r"^``(synapse_login_\w+)``(?: \(([^)]*)\))?$", re.MULTILINE)


class _Failing:
    """A counter that cannot be added to at first."""

    def __init__(self) -> None:
        self.is_full = True
        self.added: list[float] = []

    def inc(self, amount: float = 1) -> None:
        if self.is_full:
            raise OSError("no space")
        self.added.append(amount)

    def set(self, value: float) -> None:
        """Do nothing."""

    def observe(self, value: float) -> None:
        """Do nothing."""


class MetricTests(SynchronousTestCase):
    """The labels of a metric."""

    def setUp(self) -> None:
        self.registry = own_registry()
        self.metrics = metrics_in(self.registry)

    def page(self) -> str:
        self.metrics.sample()
        return page_of(self.registry)([]).decode("utf-8")

    def test_same_series(self) -> None:
        """The same labels are the same series."""
        one = self.metrics.limits_hit.of("address")
        self.assertIs(self.metrics.limits_hit.of("address"), one)
        self.assertIsNot(self.metrics.limits_hit.of("account"), one)

    def test_bounded(self) -> None:
        """Whatever a third party's provider says, a metric has a bounded number of series."""
        for number in range(3 * MAX_SERIES):
            self.metrics.outcomes.of("login", "refused", f"because of {number}").inc()
        found = sample_values(self.page())
        mine = [name for name in found if name.startswith("synapse_login_outcomes_total{")]
        self.assertEqual(len(mine), MAX_SERIES + 1)
        kept = MAX_SERIES - len(definitions.OUTCOMES.first)
        rest = found['synapse_login_outcomes_total{event="other",outcome="other",reason="other"}']
        self.assertEqual(rest, 3 * MAX_SERIES - kept)

    def test_any_text(self) -> None:
        """A label may be any text: the page stays readable, and the text is cut."""
        self.metrics.limits_hit.of('\ud800\n"' + "x" * 1000).inc()
        (name,) = [each for each in sample_values(self.page()) if "xxx" in each]
        self.assertEqual(name.count("x"), 95)

    def test_failed_addition(self) -> None:
        """What could not be added to the shown counter is added the next time."""
        shown = _Failing()
        gathered = Gathered(shown)
        gathered.inc(3)
        self.assertRaises(OSError, gathered.flush)
        gathered.inc()
        shown.is_full = False
        gathered.flush()
        gathered.flush()
        self.assertEqual(shown.added, [4])

    def test_first(self) -> None:
        """Series that alerts go by are there from the start, so that the first increase counts."""
        found = sample_values(self.page())
        reused = 'event="refresh",outcome="refused",reason="reused_token"'
        self.assertEqual(found[f"synapse_login_outcomes_total{{{reused}}}"], 0)
        self.assertEqual(found['synapse_login_limits_hit_total{limit="hashing_queue"}'], 0)

    def test_watched(self) -> None:
        """A gauge that is watched has the value of the last sample."""
        values = iter([3, 5])
        self.metrics.watch(self.metrics.connections.of("public"), lambda: next(values))
        for expected in (3, 5):
            found = sample_values(self.page())
            self.assertEqual(found['synapse_login_connections{site="public"}'], expected)

    def test_readings(self) -> None:
        """The page has what was read for it too."""
        page = page_of(self.registry)([Reading(definitions.STORE_UP, (), 1.0)]).decode("utf-8")
        self.assertEqual(sample_values(page)["synapse_login_store_up"], 1)
        self.assertEqual(families(page)["synapse_login_store_up"], "gauge")

    def test_nothing_kept(self) -> None:
        """Without prometheus_client, counting does nothing and watching calls nothing back."""
        metrics = Metrics()
        metrics.outcomes.of("login", "ok", "password").inc()
        metrics.committed(0.1, 2)
        metrics.tell_build("1.0")
        metrics.watch(metrics.hashing_queue, lambda: 1)
        metrics.sample()
        metrics.hashing_wait.observe(1.0)


class DocumentTests(SynchronousTestCase):
    """``docs/metrics.rst``."""

    def test_table(self) -> None:
        """It describes every metric, with its labels, and no other one."""
        found = _ROW.findall((REPOSITORY / "docs" / "metrics.rst").read_text("utf-8"))
        expected = [(each.name, ", ".join(each.labels)) for each in ALL]
        self.assertEqual(sorted(found), sorted(expected))

    def test_places(self) -> None:
        """Of the metrics, just those that are read at each scrape are not in the registry."""
        registry = own_registry()
        metrics_in(registry)
        names = set(families(page_of(registry)([]).decode("utf-8")))
        mine = {name for name in names if name.startswith("synapse_login_")}
        self.assertEqual(mine, {each.name for each in ALL if each.place is not Place.AT_SCRAPE})
