"""Runs a Prometheus for tests, and ``promtool``."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import yaml
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from synapse_login_module.metrics.definitions import ALL, Place
from synapse_login_module.metrics.page import Reading, page_of
from synapse_login_module.metrics.prometheus import metrics_in, own_registry
from tests.support import REPOSITORY
from tests.support.folders import temporary_folder
from tests.support.http import ask, healthy_at
from tests.support.ports import free_port
from tests.support.process import Process

RULES = REPOSITORY / "contrib" / "prometheus" / "synapse-login.rules.yml"
DASHBOARD = REPOSITORY / "contrib" / "grafana" / "synapse-login-dashboard.json"


def require(program: str) -> str:
    """Return the path of a program of Prometheus; skip the test without it."""
    found = shutil.which(program)
    if found is None:
        raise SkipTest(f"{program} is not installed")
    return found


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``promtool`` to its end."""
    command = [require("promtool"), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)


class Prometheus:
    """A Prometheus that scrapes servers on loopback ports once a second, until the test ends.

    :param ports: the ports of the servers, by the name that their ``instance`` gets.
    :param rules: the rules, as a file of rules has them.
    """

    def __init__(self, case: TestCase, ports: Mapping[str, int], rules: str) -> None:
        program = require("prometheus")
        folder = temporary_folder(case)
        (folder / "alerts.rules.yml").write_text(rules)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(_configuration(ports)))
        self.port = free_port()
        self._process = Process(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            folder / "output",
            folder=folder,
        )
        case.addCleanup(self._process.stop)

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        await self._process.start(lambda: healthy_at(self.port, "/-/ready"))

    async def query(self, expression: str) -> Sequence[Any]:
        """Return the series of an instant query."""
        found = await self._get(f"/api/v1/query?query={quote(expression)}")
        return list(found["result"])

    async def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        alerts = (await self._get("/api/v1/alerts"))["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    async def _get(self, path: str) -> Any:
        status, content = await deferToThread(ask, self.port, "GET", path)
        assert status == 200, content
        return json.loads(content)["data"]


def _configuration(ports: Mapping[str, int]) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.rules.yml"],
        "scrape_configs": [
            {
                "job_name": "synapse-login",
                "static_configs": [
                    {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
                    for name, port in ports.items()
                ],
            }
        ],
    }


def sample_values(page: str) -> dict[str, float]:
    """Return the values of a page, by name and labels as they are there."""
    lines = [line for line in page.splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def families(page: str) -> dict[str, str]:
    """Return the kinds of the metrics of a page, by name."""
    lines = [line.split() for line in page.splitlines() if line.startswith("# TYPE ")]
    return {name: kind for _, _, name, kind in lines}


def sample_page() -> str:
    """Return a page with every metric and a series of each."""
    registry = own_registry()
    metrics = metrics_in(registry)
    metrics.tell_build("0")
    for metric in (
        metrics.provider_outcomes,
        metrics.provider_duration,
        metrics.circuit_open,
        metrics.sweep_looks,
        metrics.linked_accounts,
        metrics.homeserver_calls,
        metrics.connections,
        metrics.in_flight,
    ):
        metric.of(*metric.other)
    readings = [
        Reading(each, tuple(each.labels), 1.0) for each in ALL if each.place is Place.AT_SCRAPE
    ]
    return page_of(registry)(readings).decode("utf-8")
