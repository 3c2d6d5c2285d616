"""The server hangs in the middle of a storm, and then goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from synapse_login_module.stores.sqlite_connection import BUSY_TIMEOUT
from tests.chaos.case import ROUNDS, health
from tests.chaos.cutting import CuttingProxy
from tests.chaos.history import Outcome
from tests.chaos.sqlite import SQLiteChaosCase

reactor = cast(Any, global_reactor)

_LONGEST_HOLD = 0.8
_WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("writing", flush=True)
sys.stdin.read()
"""


class HoldTests(SQLiteChaosCase):
    """``SIGSTOP`` and ``SIGCONT``."""

    async def test_clients_wait(self) -> None:
        """Clients that wait get their responses: none is lost, and none is a 503."""
        server = await self.serve()
        storm = self.storm([server])

        async def strike() -> None:
            server.hold()
            await deferLater(reactor, storm.random.uniform(0.0, _LONGEST_HOLD))
            server.release()

        counts = await self.survives(storm, strike)
        self.assertEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())

    async def test_clients_give_up(self) -> None:
        """Clients that hang up may find that their request was carried out, and do no harm."""
        server = await self.serve()
        proxy = CuttingProxy(server.port)
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.close()))
        storm = self.storm([server], ports=[proxy.port], outages=True)

        async def strike() -> None:
            server.hold()
            await deferLater(reactor, storm.random.uniform(0.0, _LONGEST_HOLD))
            proxy.hang_up()
            server.release()

        counts = await self.survives(storm, strike)
        self.assertNotEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())
        self.assertNotIn("outcome=unavailable", server.log())

    async def test_one_of_two(self) -> None:
        """While one of two servers on one file hangs, even in a write, the other's clients wait.

        They wait, and get their responses.
        """
        servers = await self.serve_two()
        storm = self.storm(servers, racing=0.8)

        async def strike() -> None:
            held = storm.random.choice(servers)
            held.hold()
            await deferLater(reactor, storm.random.uniform(0.0, _LONGEST_HOLD))
            held.release()

        counts = await self.survives(storm, strike)
        self.assertEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())


class LongHoldTests(SQLiteChaosCase):
    """For longer than SQLite waits for a lock."""

    rounds = max(1, ROUNDS // 5)

    async def test_lock(self) -> None:
        """While another process hangs in a write, requests that wait too long get a 503."""
        server = await self.serve()
        storm = self.storm([server], outages=True)

        async def strike() -> None:
            writer = subprocess.Popen(
                [sys.executable, "-c", _WRITER, str(server.database)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.addCleanup(writer.kill)
            assert writer.stdout is not None
            await deferToThread(writer.stdout.readline)
            writer.send_signal(signal.SIGSTOP)
            self.assertEqual(await health(server), 503)
            writer.send_signal(signal.SIGCONT)
            await deferToThread(writer.communicate)

        counts = await self.survives(storm, strike)
        self.assertNotEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())
        self.assertIn("database is locked", server.log())

    async def test_server(self) -> None:
        """A server that hangs for that long answers the waiting requests afterwards."""
        server = await self.serve()
        storm = self.storm([server])

        async def strike() -> None:
            server.hold()
            await deferLater(reactor, BUSY_TIMEOUT + 1)
            server.release()

        counts = await self.survives(storm, strike)
        self.assertEqual({use for use, outcome in counts if outcome is Outcome.UNKNOWN}, set())
