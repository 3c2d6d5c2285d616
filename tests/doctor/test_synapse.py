"""What ``doctor`` says about a real Synapse with the module."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from typing import Any
from unittest import mock

from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from twisted.web.proxy import ReverseProxyResource
from twisted.web.resource import Resource
from twisted.web.server import Site

from synapse_login_module.model import Level
from synapse_login_module.synapse.diagnosis import examine_release
from tests.doctor.case import reactor
from tests.support.ports import free_port
from tests.support.synapse.config import write_yaml
from tests.support.synapse.profile import PASSWORD, Profile
from tests.support.synapse.server import shared

PROFILE = Profile("doctor-module", client_listener={"x_forwarded": True})


class ModuleDoctorTests(TestCase):
    """The command is run as an operator does, in Synapse's folder."""

    timeout = 300

    async def setUp(self) -> None:  # type: ignore[override]
        self.server = await shared(PROFILE)

    async def doctor(
        self, *files: str, option: str = "--homeserver-config", **changes: Any
    ) -> tuple[int, list[dict[str, str]]]:
        """Run it on a configuration with these changes; return its status and its findings."""
        write_yaml(self.server.folder / "doctor.yaml", {**self.server.homeserver_yaml(), **changes})
        given = [argument for file in (files or ("doctor.yaml",)) for argument in (option, file)]
        done = await self.server.run_command("doctor", "--json", *given)
        self.assertEqual(done.stderr, "")
        self.assertNotIn(PASSWORD, done.stdout)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def failures(self, findings: list[dict[str, str]]) -> list[dict[str, str]]:
        """Return those that failed."""
        return [each for each in findings if each["level"] == "failed"]

    def assert_failure(self, findings: list[dict[str, str]], area: str, found: str) -> None:
        """There is one failure, which says what is wrong and what to do."""
        (one,) = self.failures(findings)
        self.assertEqual(one["area"], area)
        self.assertIn(found, one["found"])
        self.assertTrue(one["advice"])

    def serve(self, root: Resource) -> str:
        """Serve a reverse proxy; return its URL."""
        port = reactor.listenTCP(0, Site(root), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    async def test_well(self) -> None:
        """Configuration, release, tables, listeners, providers and proxy are well."""
        proxy = self.serve(ReverseProxyResource("127.0.0.1", self.server.module_port, b""))
        status, findings = await self.doctor(public_baseurl=proxy)
        self.assertEqual((status, self.failures(findings)), (0, []))
        found = " ".join(each["found"] for each in findings)
        for each in (
            "no mistake in the module's part",
            "the module needs 1.154 or newer",
            "those of Synapse that the module uses are there",
            "those of the module are there",
            "the module answers, in",
            "the module answers through it",
            "4 accounts, of which 2 may log in",
            "logins a second",
        ):
            self.assertIn(each, found)

    async def test_config_option(self) -> None:
        """``--config`` takes Synapse's file too."""
        status, findings = await self.doctor(option="--config", public_baseurl=None)
        self.assertEqual((status, self.failures(findings)), (0, []))

    async def test_proxy_to_synapse(self) -> None:
        """A proxy that sends the module's paths to Synapse's own listener is a failure."""
        proxy = self.serve(ReverseProxyResource("127.0.0.1", self.server.client_port, b""))
        status, findings = await self.doctor(public_baseurl=proxy)
        self.assertEqual(status, 1)
        self.assert_failure(findings, "proxy", "does not reach the module's listener")

    async def test_no_listener(self) -> None:
        """Listeners that all have the client resource are a warning."""
        listeners = self.server.homeserver_yaml()["listeners"]
        listeners = [each for each in listeners if "client" in str(each)]
        _, findings = await self.doctor(listeners=listeners, public_baseurl=None)
        warned = [each for each in findings if each["area"] == "listeners"]
        self.assertIn("each of type http has the client resource", str(warned))
        self.assertIn("add one with resources: []", str(warned))

    async def test_not_running(self) -> None:
        """A Synapse that does not run is a warning."""
        listeners = [{"port": free_port(), "type": "http", "resources": []}]
        status, findings = await self.doctor(listeners=listeners)
        self.assertEqual(status, 0, findings)
        self.assertIn("Synapse does not answer", str(findings))

    async def test_missing_table(self) -> None:
        """A table of Synapse that is missing is named."""
        copy = self.server.folder / "copy.db"
        original = self.server.homeserver_yaml()["database"]["args"]["database"]
        with (
            closing(sqlite3.connect(self.server.folder / original)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            target.execute("DROP TABLE user_threepids")
            target.execute("DROP TABLE synapse_login_links")
        database = {"name": "sqlite3", "args": {"database": str(copy)}}
        status, findings = await self.doctor(database=database, public_baseurl=None)
        self.assertEqual(status, 1)
        self.assert_failure(findings, "database", "no such table: user_threepids")
        self.assertIn("synapse_login_links is not there", str(findings))

    async def test_no_database(self) -> None:
        """A database that is not there is a failure."""
        database = {"name": "sqlite3", "args": {"database": "nowhere.db"}}
        _, findings = await self.doctor(database=database, public_baseurl=None)
        self.assert_failure(findings, "database", "there is no nowhere.db")

    async def test_mistakes(self) -> None:
        """Every mistake in the module's block is a failure, and nothing is raised."""
        module = {"module": "synapse_login_module.SynapseLoginModule", "config": {"surprise": 1}}
        status, findings = await self.doctor(modules=[module], public_baseurl=None)
        self.assertEqual(status, 1)
        found = {each["looked_at"] for each in self.failures(findings)}
        self.assertEqual(
            found, {"modules.0.config.surprise", "modules.0.config.password_providers"}
        )

    async def test_several_files(self) -> None:
        """Several files are merged as Synapse merges them."""
        write_yaml(self.server.folder / "more.yaml", {"database": {"name": "nothing"}})
        status, findings = await self.doctor("doctor.yaml", "more.yaml", public_baseurl=None)
        self.assertEqual(status, 1)
        self.assert_failure(findings, "database", "neither sqlite3 nor psycopg2")

    async def test_delegating(self) -> None:
        """For a Synapse that delegates, there are no providers and no tables of the module."""
        module = {
            "module": "synapse_login_module.SynapseLoginModule",
            "config": {"delegated": True},
        }
        status, findings = await self.doctor(
            modules=[module], matrix_authentication_service={"enabled": True}, public_baseurl=None
        )
        self.assertEqual((status, self.failures(findings)), (0, []))
        areas = {each["area"] for each in findings}
        self.assertLessEqual({"configuration", "synapse", "database"}, areas)
        self.assertNotIn("hashing", areas)


class WithoutSynapseTests(SynchronousTestCase):
    """What is said of a Synapse that is not installed, or too old."""

    def test_not_installed(self) -> None:
        """Without Synapse, the line says where to run the command."""
        with mock.patch.dict(sys.modules, {"synapse.util": None}):
            one = examine_release()
        self.assertIs(one.level, Level.FAILED)
        self.assertIn("it cannot be imported", one.found)
        self.assertIn("environment that Synapse runs in", one.advice)

    def test_too_old(self) -> None:
        """A release that is too old is a failure."""
        try:
            import synapse.util
        except ImportError:
            raise SkipTest("matrix-synapse is not installed") from None
        with mock.patch.object(synapse.util, "SYNAPSE_VERSION", "1.153.0"):
            one = examine_release()
        self.assertIs(one.level, Level.FAILED)
        self.assertEqual(
            (one.found, one.advice), ("release 1.153.0", "upgrade it to 1.154 or newer")
        )
