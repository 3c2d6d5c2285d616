"""What ``doctor`` says about a real Synapse that delegates to the server, or should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from synapse_login_module.model import Finding, Level
from tests.doctor.case import DoctorCase
from tests.support.delegated_server import DelegatedServer
from tests.support.ports import free_port
from tests.support.process import cli
from tests.support.synapse.delegating import SECRET, SECRET_FILE, delegating
from tests.support.synapse.profile import Profile
from tests.support.synapse.server import shared

ENDPOINT_PORT = free_port()
PROFILE = delegating("doctor", ENDPOINT_PORT)
ALONE = Profile("doctor-alone", module=None, files={SECRET_FILE: f"{SECRET}\n"})


class DelegationDoctorTests(DoctorCase):
    """The Synapse is called with the secret, and calls back."""

    timeout = 300

    async def server(self, profile: Profile = PROFILE, **homeserver: Any) -> DelegatedServer:
        """Return a server for a Synapse; it does not run yet."""
        self.synapse = await shared(profile)
        return DelegatedServer(self, self.synapse, ENDPOINT_PORT, homeserver)

    async def examine(self, server: DelegatedServer) -> list[Finding]:
        """Run ``doctor`` on the server's configuration."""
        path: Path = server.process.config
        path.chmod(0o600)
        findings = await self.diagnose(path)
        self.assertNotIn(SECRET, str(findings))
        return findings

    async def test_well(self) -> None:
        """Delegation, secret, version and the way back are looked at, and no session is made."""
        server = await self.server()
        await server.process.start()
        await server.login()
        sessions = server.folder / "sessions.db"
        findings = await self.examine(server)
        lines = str(self.assert_well(findings, "homeserver"))
        for each in ("with the same secret", "Synapse 1.", "Synapse has reached this server"):
            self.assertIn(each, lines)
        self.assertIn("the server runs", str(self.assert_well(findings, "server")))
        self.assertTrue(sessions.exists())
        log = server.process.log()
        self.assertEqual(log.count("outcome="), 1, log)

    async def test_wrong_secret(self) -> None:
        """Another secret than Synapse's is one failure."""
        server = await self.server(secret_file="my.secret")
        secret = server.folder / "my.secret"
        secret.write_text("another-secret\n")
        secret.chmod(0o600)
        await server.process.start()
        findings = await self.examine(server)
        found = "in homeserver.yaml differ"
        self.assert_line(findings, Level.FAILED, "homeserver", found, "put the same secret into")
        self.assertNotIn("another-secret", str(findings))

    async def test_delegation_off(self) -> None:
        """A Synapse that does not delegate is one failure."""
        server = await self.server(ALONE)
        await server.process.start()
        findings = await self.examine(server)
        found = "it answered 404 M_UNRECOGNIZED"
        self.assert_line(findings, Level.FAILED, "homeserver", found, "enable matrix_auth")

    async def test_away(self) -> None:
        """A Synapse that is away is one failure."""
        server = await self.server(url=f"http://127.0.0.1:{free_port()}")
        await server.process.start()
        findings = await self.examine(server)
        found = "ConnectionRefusedError"
        self.assert_line(findings, Level.FAILED, "homeserver", found, "start Synapse")

    async def test_command(self) -> None:
        """The command prints each finding as a JSON object, and no secret."""
        server = await self.server(url=f"http://127.0.0.1:{free_port()}")
        server.process.config.chmod(0o600)
        done = await deferToThread(cli, "doctor", "--json", "--config", str(server.process.config))
        self.assertEqual(done.returncode, 1, done.stderr)
        areas = {json.loads(line)["area"] for line in done.stdout.splitlines()}
        self.assertLessEqual({"configuration", "homeserver", "hashing", "proxy"}, areas)
        self.assertNotIn(SECRET, done.stdout + done.stderr)

    async def test_server_down(self) -> None:
        """While the server is down, a Synapse that was just started does not reach it."""
        server = await self.server()
        await self.synapse.stop()
        await self.synapse.start()
        findings = await self.examine(server)
        (line,) = [each for each in findings if each.area == "homeserver" and each.advice]
        self.assertIs(line.level, Level.FAILED)
        self.assertIn("Synapse does not reach this server", line.found)
        self.assertIn("start this server", line.advice)
