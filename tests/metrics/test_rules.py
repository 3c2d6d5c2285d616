"""Tests for the alert rules and the dashboard."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.metrics.definitions import ALL, Kind
from tests.support import REPOSITORY
from tests.support.folders import temporary_folder
from tests.support.prometheus import DASHBOARD, RULES, families, promtool, sample_page

_NAME = re.compile(r"\b(?:synapse_login|process)_[a-z_]+\b")
_SUFFIXES = ("_bucket", "_sum", "_count")
_TESTS = REPOSITORY / "tests" / "metrics" / "alerts.test.yml"


def alerts() -> list[dict[str, Any]]:
    """Return the rules."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Return the expressions of the dashboard, with the titles of their panels."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def names_on_a_page() -> set[str]:
    """Return the names of all series that a page may have."""
    names = set(families(sample_page()))
    for each in ALL:
        assert each.name in names, each.name
        if each.kind is Kind.HISTOGRAM:
            names |= {each.name + suffix for suffix in _SUFFIXES}
    return names


class RulesTests(SynchronousTestCase):
    """The alert rules."""

    def test_valid(self) -> None:
        """Prometheus accepts them."""
        checked = promtool("check", "rules", str(RULES))
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_fire(self) -> None:
        """Each fires for its fault, after its time, and not without it."""
        folder = temporary_folder(self)
        rules = yaml.safe_load(RULES.read_text())
        for group in rules["groups"]:
            for rule in group["rules"]:
                del rule["annotations"]
        (folder / "alerts.rules.yml").write_text(yaml.safe_dump(rules))
        shutil.copy(_TESTS, folder)
        tested = promtool("test", "rules", str(folder / _TESTS.name))
        self.assertEqual(tested.returncode, 0, tested.stdout + tested.stderr)

    def test_all_tested(self) -> None:
        """Of each alert the tests show that it fires, and that it does not."""
        shown: dict[str, set[bool]] = {}
        for case in yaml.safe_load(_TESTS.read_text())["tests"]:
            for each in case["alert_rule_test"]:
                shown.setdefault(each["alertname"], set()).add(bool(each["exp_alerts"]))
        self.assertEqual(shown, {rule["alert"]: {True, False} for rule in alerts()})

    def test_annotations(self) -> None:
        """Each says what is wrong, what to do, and how bad it is."""
        for rule in alerts():
            self.assertEqual(sorted(rule["annotations"]), ["description", "summary"])
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))

    def test_documented(self) -> None:
        """The documentation lists each."""
        text = (REPOSITORY / "docs" / "metrics.rst").read_text("utf-8")
        listed = re.findall(r"^``(SynapseLogin\w+)``", text, re.MULTILINE)
        self.assertEqual(listed, [rule["alert"] for rule in alerts()])

    def test_names(self) -> None:
        """They go by metrics that a server has."""
        names = names_on_a_page()
        for rule in alerts():
            self.assertLessEqual(set(_NAME.findall(rule["expr"])), names, rule["alert"])


class DashboardTests(SynchronousTestCase):
    """The dashboard for Grafana."""

    def test_valid(self) -> None:
        """Prometheus accepts each of its expressions."""
        rules = [
            {
                "record": f"panel:{number}",
                "expr": expression.replace("$__rate_interval", "5m").replace("$", "all_of_"),
            }
            for number, (_, expression) in enumerate(expressions())
        ]
        self.assertGreater(len(rules), 30)
        path = temporary_folder(self) / "dashboard.rules.yml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
        checked = promtool("check", "rules", str(path))
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_names(self) -> None:
        """They go by metrics that a server has."""
        names = names_on_a_page()
        for title, expression in expressions():
            self.assertLessEqual(set(_NAME.findall(expression)), names, title)

    def test_complete(self) -> None:
        """Every metric is on it."""
        shown = " ".join(expression for _, expression in expressions())
        missing = [each.name for each in ALL if each.name not in shown]
        self.assertEqual(missing, [])

    def test_panels(self) -> None:
        """Its panels have different ids and places, and say what they show."""
        panels = json.loads(DASHBOARD.read_text())["panels"]
        self.assertEqual(len({each["id"] for each in panels}), len(panels))
        places = {(each["gridPos"]["x"], each["gridPos"]["y"]) for each in panels}
        self.assertEqual(len(places), len(panels))
        for each in panels:
            self.assertTrue(each["type"] == "row" or each["description"], each["title"])
