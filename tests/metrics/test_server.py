"""Tests for the metrics of a real server."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from synapse_login_module.metrics.definitions import ALL
from synapse_login_module.standalone.scrape import LIFETIME
from tests.metrics.case import MeasuredServer
from tests.support.accounts import ALICE_PASSWORD
from tests.support.prometheus import families, promtool, sample_values
from tests.support.waiting import reactor, until

_OK = 'synapse_login_outcomes_total{event="login",outcome="ok",reason="password"}'
_WITHOUT = (
    "import sys; sys.modules['prometheus_client'] = None;"
    " from twisted.scripts.twistd import run; run()"
)


def _holds(log: Callable[[], str], line: str, times: int) -> bool:
    return log().count(line) == times


def workers_of(page: str, name: str) -> set[str]:
    """Return the numbers of the workers that a metric has."""
    prefix = f'{name}{{worker="'
    return {
        each.removeprefix(prefix).partition('"')[0]
        for each in sample_values(page)
        if each.startswith(prefix)
    }


class OneProcessTests(TestCase):
    """A server of one process."""

    timeout = 120

    async def test_page(self) -> None:
        """The page has every metric, counts what was done, and promtool finds nothing wrong."""
        # The environment of another program changes nothing.
        server = MeasuredServer(self, launch={"env": {"PROMETHEUS_MULTIPROC_DIR": "/nowhere"}})
        await server.start()
        await server.login("alice", ALICE_PASSWORD)
        await server.login("alice", "wrong")
        page = await server.page()
        found, kinds = sample_values(page), families(page)
        self.assertEqual(found[_OK], 1)
        asked = 'synapse_login_provider_duration_seconds_count{operation="authenticate",'
        self.assertEqual(found[f'{asked}provider="bcrypt"}}'], 2)
        self.assertEqual(found["synapse_login_hashing_wait_seconds_count"], 2)
        self.assertGreater(found["synapse_login_store_commit_operations_count"], 0)
        self.assertEqual(found['synapse_login_responses_total{code="403",site="public"}'], 1)
        self.assertEqual(found['synapse_login_connections{site="internal"}'], 1)
        self.assertEqual(found['synapse_login_requests_in_flight{site="internal"}'], 1)
        self.assertEqual(found["synapse_login_store_up"], 1)
        self.assertGreater(found["process_resident_memory_bytes"], 1 << 20)
        delegated = {"synapse_login_outbox_notes", "synapse_login_outbox_oldest_age_seconds"}
        for each in ALL:
            if each.name not in delegated:
                self.assertEqual(kinds.get(each.name), each.kind.value, each.name)
        checked = promtool("check", "metrics", given=page)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))

    async def test_not_installed(self) -> None:
        """Without prometheus_client the server works, and says what to install."""
        server = MeasuredServer(self, launch={"program": ["-c", _WITHOUT]})
        await server.start()
        self.assertEqual((await server.login("alice", ALICE_PASSWORD))[0], 200)
        status, said = await server.scrape()
        self.assertEqual(status, 404)
        self.assertEqual(json.loads(said)["errcode"], "M_UNRECOGNIZED")
        self.assertIn("synapse-login-module[metrics]", said)


class WorkersTests(TestCase):
    """A server of two workers."""

    timeout = 180

    async def test_life(self) -> None:
        """The page is of all workers, whichever answers and whatever becomes of them."""
        server = MeasuredServer(self, ["--workers", "2"])
        await server.start()
        for _ in range(10):
            await server.login("alice", ALICE_PASSWORD)
        await server.until_value(_OK, 10)
        # Each request comes by a new connection, and so to either of them. Pages of before are old.
        await deferLater(reactor, 1.5 * LIFETIME)
        for _ in range(6):
            self.assertEqual(sample_values(await server.page())[_OK], 10)
        page = await server.page()
        self.assertEqual(workers_of(page, "process_open_fds"), {"0", "1", "2"})
        build = [name for name in sample_values(page) if "build_info" in name]
        self.assertEqual([sample_values(page)[each] for each in build], [1])
        checked = promtool("check", "metrics", given=page)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))
        folder = self.folder_of(server)
        before = len(list(folder.glob("*.db")))

        # Killed: what it counted stays.
        victim = server.process.workers[0]
        os.kill(victim, signal.SIGKILL)
        await until(lambda: victim not in server.process.workers, "its end")
        await until(lambda: len(server.process.workers) == 2, "another one")
        await server.until_value(_OK, 10)
        await server.login("alice", ALICE_PASSWORD)
        await server.until_value(_OK, 11)

        # Replaced: so does what the old ones counted, and the number of files is bounded.
        log = server.process.log
        for number in range(1, 5):
            server.process.hang_up()
            await until(partial(_holds, log, "new workers serve", number), "a reload")
            await until(lambda: len(server.process.workers) == 2, "the end of the old ones")
            await server.login("alice", ALICE_PASSWORD)
            await server.until_value(_OK, 11 + number)
        self.assertLessEqual(len(list(folder.glob("*.db"))), 2 * before)
        self.assertEqual(len(list(folder.glob("gauge_livesum_*.db"))), 2)

        await server.process.terminate()
        self.assertFalse(folder.exists())

    async def test_folder_removed(self) -> None:
        """Without the folder workers are replaced all the same, and a reload makes it anew."""
        server = MeasuredServer(self, ["--workers", "2"])
        await server.start()
        log = server.process.log
        shutil.rmtree(self.folder_of(server))
        for victim in server.process.workers:
            os.kill(victim, signal.SIGKILL)
            await until(partial(lambda one: one not in server.process.workers, victim), "its end")
            await until(lambda: len(server.process.workers) == 2, "another one")
        await until(lambda: "keeps no metrics: [Errno 2]" in log(), "the warning")
        status, _ = await server.login("alice", ALICE_PASSWORD)
        self.assertEqual(status, 200)
        server.process.hang_up()
        await until(partial(_holds, log, "new workers serve", 1), "a reload")
        await until(lambda: len(server.process.workers) == 2, "the end of the old ones")
        await server.login("alice", ALICE_PASSWORD)
        await server.until_value(_OK, 1)
        folder = self.folder_of(server)
        await server.process.terminate()
        self.assertFalse(folder.exists())

    def folder_of(self, server: MeasuredServer) -> Path:
        """Return the folder of its metrics, as a worker was told."""
        environment = Path(f"/proc/{server.process.workers[0]}/environ").read_text()
        (found,) = [
            each for each in environment.split("\0") if each.startswith("PROMETHEUS_MULTIPROC_DIR=")
        ]
        return Path(found.partition("=")[2])
