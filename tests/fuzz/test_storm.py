"""A storm of random requests against the real server."""

from __future__ import annotations

import os
import time
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.storm import Storm
from tests.support.accounts import ALICE_PASSWORD
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder
from tests.support.ports import free_port
from tests.support.server import start_server

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "6000"))
SEED = int(os.environ.get("FUZZ_SEED", time.time_ns() % 1_000_000))

_GROWTH = 24 * 1024
"""The KiB by which the server may grow after it has warmed up, for its caches."""


class StormTests(SynchronousTestCase):
    """Rules that no request may break."""

    def test_storm(self) -> None:
        """Every request gets a response below 500, and the server's memory does not grow."""
        port = free_port()
        server = start_server(write_config(temporary_folder(self), good_config(port)), port)
        self.addCleanup(server.stop)
        storm = Storm(port, Random(SEED))
        storm.run(REQUESTS // 4)
        warm = server.resident()
        storm.run(REQUESTS - REQUESTS // 4)
        grown = server.resident() - warm
        said = f"seed {SEED}: {sorted(storm.statuses.items())}, grown by {grown} KiB"
        print(said)
        self.assertLess(grown, _GROWTH, said)
        self.assertEqual({200, 400, 401, 403, 404, 405} - storm.statuses.keys(), set(), said)
        login = {"type": "m.login.password", "user": "alice", "password": ALICE_PASSWORD}
        self.assertEqual(server.ask("POST", "/_matrix/client/v3/login", login)[0], 200)
        self.assertNotIn("Traceback", server.log())
