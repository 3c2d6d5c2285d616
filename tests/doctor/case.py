"""The base class of tests of ``doctor``, which looks at real servers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import yaml
from twisted.application.service import IService
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import TestCase

from synapse_login_module.compose import build_plugin, hashing_pool
from synapse_login_module.doctor import standalone
from synapse_login_module.doctor.configuration import read_given
from synapse_login_module.model import Finding, Level
from synapse_login_module.standalone.plan import load_config
from synapse_login_module.standalone.server import environment_of
from tests.support.accounts import ALICE
from tests.support.configuration import good_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port

reactor = cast(Any, global_reactor)

SECONDS = 15.0
"""The deadline of each check in tests: longer than any timeout of a provider."""

POSTGRESQL_STORE = "synapse_login_module.stores.PostgreSQLTokenStore"


class DoctorCase(TestCase):
    """A test with a configuration, on which nothing listens unless the test has it so.

    :ivar folder: the folder of the configuration.
    """

    timeout = 180

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def write(self, **changes: Any) -> Path:
        """Write a configuration that is right but for these keys; return its path."""
        changes.setdefault("hashing", {"rounds": 10})
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(good_config(free_port(), **changes)), "utf-8")
        path.chmod(0o600)
        return path

    async def use(self, path: Path, device: str = "PHONE") -> None:
        """Have a store and a key file as after the first start, with one session of a device."""
        loaded = load_config(path, reactor)
        hashing = hashing_pool(loaded.config, reactor)
        store = build_plugin(loaded.store, environment_of(loaded, hashing, reactor))
        IService(store).startService()
        try:
            await store.issue(ALICE, device, None, True, True)
        finally:
            await maybeDeferred(IService(store).stopService)

    async def diagnose(self, path: Path, seconds: float = SECONDS) -> list[Finding]:
        """Run ``doctor`` on a configuration."""
        document, given = read_given(path)
        return await standalone.diagnose(document, given, path, reactor, seconds)

    def assert_well(self, findings: list[Finding], area: str) -> list[Finding]:
        """All findings in an area are ok; return them."""
        found = [each for each in findings if each.area == area]
        self.assertTrue(found, findings)
        self.assertEqual([each for each in found if each.level is not Level.OK], [])
        return found

    def assert_line(
        self, findings: list[Finding], level: Level, area: str, found: str, advice: str
    ) -> Finding:
        """One line of that level, and nothing worse in its area, says what is wrong and what to do.

        Of failures there is no other in the whole report.

        :param found: a part of what was found; ``advice`` of what to do.
        """
        bad = [
            each
            for each in findings
            if each.level is level and (level is Level.FAILED or each.area == area)
        ]
        matching = [each for each in bad if found in each.found]
        self.assertEqual(len(matching), 1, findings)
        (one,) = matching
        self.assertEqual(one.area, area)
        self.assertIn(advice, one.advice)
        if level is Level.FAILED:
            self.assertEqual(bad, matching)
        for text in (one.what, one.found, one.advice):
            self.assertNotIn("\n", text)
        return one

    def contents(self) -> dict[str, bytes]:
        """Read all files of the folder, by name."""
        return {each: (self.folder / each).read_bytes() for each in os.listdir(self.folder)}
