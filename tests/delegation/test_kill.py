"""The server is killed again and again while clients log in, refresh and log out at it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from http.client import HTTPException
from pathlib import Path
from random import Random

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.chaos.history import check
from tests.chaos.server import PASSWORD, USER, ChaosServer
from tests.chaos.storm import SEED, Storm, report
from tests.support.delegated_server import CLIENT, Reply, asked
from tests.support.ports import free_port
from tests.support.synapse.delegating import SECRET_FILE, delegating
from tests.support.synapse.profile import SERVER_NAME
from tests.support.synapse.server import shared
from tests.support.waiting import reactor, until

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
ENDPOINT_PORT = free_port()
PROFILE = delegating("delegation-kill", ENDPOINT_PORT)
USER_ID = f"@{USER}:{SERVER_NAME}"

_LONGEST_CALM = 0.05

QUIET = 150.0
"""Seconds after which no note may be left: a reservation lasts a minute, and so does the longest
pause of the outbox; a claim lasts half a minute."""


class KillTests(TestCase):
    """Sessions here and devices at the Synapse agree, whenever the server is killed."""

    timeout = 300 + 15 * KILLS

    async def setUp(self) -> None:  # type: ignore[override]
        self.synapse = await shared(PROFILE)
        self.server = ChaosServer(
            Path(self.mktemp()),
            changes={
                "server_name": SERVER_NAME,
                "internal_listen": [f"tcp:{ENDPOINT_PORT}:interface=127.0.0.1"],
                "public_baseurl": "https://matrix.example.com",
                "homeserver": {
                    "module": "synapse_login_module.homeservers.SynapseHomeserver",
                    "config": {
                        "url": self.synapse.client_url,
                        "secret_file": str(self.synapse.folder / SECRET_FILE),
                    },
                },
            },
        )
        self.addCleanup(self.server.kill)
        await self.server.start()
        self.random = Random(SEED)
        self.storm = Storm([self.server], self.random)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.storm.close()))

    def sessions(self) -> set[str]:
        """The devices that have a session here."""
        return self._rows("SELECT device_id FROM sessions")

    def notes(self) -> set[str]:
        """The devices that are to be deleted, or are reserved."""
        return self._rows("SELECT device_id FROM device_notes")

    def devices(self) -> set[str]:
        """The devices at the Synapse."""
        rows = self.synapse.query(
            "SELECT device_id FROM devices WHERE user_id = ? AND NOT hidden", USER_ID
        )
        return {row[0] for row in rows}

    async def strike(self) -> None:
        """Kill the server among logins and logouts, and start it again."""
        visits = [Deferred.fromCoroutine(self.visit(stays)) for stays in (True, False, False)]
        await deferLater(reactor, self.random.uniform(0.0, _LONGEST_CALM))
        self.server.kill()
        await gatherResults(visits)
        await self.server.start()

    async def visit(self, stays: bool) -> None:
        """Log in on a new device, and out again unless the client stays.

        Each response may be lost.
        """
        with contextlib.suppress(OSError, HTTPException):
            login = await self.log_in()
            if not stays:
                token = login.content["access_token"]
                await asked(self.server.port, "POST", f"{CLIENT}/logout", {}, token)

    async def log_in(self, **more: str) -> Reply:
        """Log in."""
        body = {"type": "m.login.password", "user": USER, "password": PASSWORD, **more}
        return await asked(self.server.port, "POST", f"{CLIENT}/login", body)

    async def test_sessions_and_devices_agree(self) -> None:
        """No session is ever without a device, and no device is without a session for long."""
        for _ in range(KILLS):
            await self.storm.round(self.strike)
            self.assertLessEqual(self.sessions() - self.devices(), set())
        self.assertEqual(report(check(self.storm.history)), "")
        await until(lambda: not self.notes(), "an empty outbox", timeout=QUIET)
        self.assertLessEqual(self.devices() - self.sessions(), self.unanswered())
        for device in self.unanswered():
            await self.log_in(device_id=device)
        self.assertEqual(self.devices(), self.sessions())

    def unanswered(self) -> set[str]:
        """The device IDs that a client chose for a login whose response was lost.

        Such a device may have been there before, with keys that nothing brings back. So it is kept
        for the client, which knows its device ID and logs in again.
        """
        chosen = {f"device {number + 1}" for number in range(self.storm.logins)}
        return chosen - {session.name for session in self.storm.sessions}

    def _rows(self, sql: str) -> set[str]:
        with contextlib.closing(
            sqlite3.connect(f"{self.server.database.as_uri()}?mode=ro", uri=True)
        ) as connection:
            return {row[0] for row in connection.execute(sql)}
