"""The disk that the sessions are on is full for a time."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest

from tests.chaos.case import ROUNDS, SHORT, health
from tests.chaos.client import RecordingClient
from tests.chaos.history import History, Outcome, Pair, Use, check
from tests.chaos.server import PASSWORD, USER, ChaosServer
from tests.chaos.sqlite import SQLiteChaosCase, devices
from tests.support.client import Client

reactor = cast(Any, global_reactor)

_SIZE = "8m"
_PIECE = 1 << 16


class Disk:
    """A small file system in memory.

    :param folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            raise SkipTest(f"a file system cannot be mounted: {mounted.stderr.strip()}")

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (_PIECE, 1):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    continue

    def free(self) -> None:
        """Free what was filled."""
        self._filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Take it away."""
        subprocess.run(["umount", str(self.folder)], check=True)


class DiskFullTests(SQLiteChaosCase):
    """Nothing is promised that cannot be kept, and all goes on once there is room."""

    async def serve_on_disk(self) -> ChaosServer:
        """A server whose sessions are on a disk that can be filled."""
        self.disk = Disk(Path(self.mktemp()).absolute())
        self.addCleanup(self.disk.unmount)
        return await self.serve(database=self.disk.folder / "sessions.db")

    def fill(self, server: ChaosServer) -> None:
        """Fill the disk, the write-ahead log being empty: in one that has grown there is room."""
        with closing(sqlite3.connect(server.database)) as connection:
            (busy, *_), *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self.assertEqual(busy, 0)
        self.disk.fill()

    async def ask(
        self, server: ChaosServer, path: str, body: Any, token: str = ""
    ) -> tuple[int, str]:
        """Send a request; return the status and the media type of the response."""
        client = Client(f"{server.url}/_matrix/client/v3", connections=0)
        answer = await client.send("POST", path, body, token=token or None)
        if path.endswith("refresh"):
            self.assertTrue(answer.headers.hasHeader("Retry-After"))
        return answer.status, answer.media_type or ""

    async def test_answers(self) -> None:
        """All that writes is 503, in plain text where it refreshes; afterwards the pair works."""
        server = await self.serve_on_disk()
        history = History()
        client = RecordingClient(server.port, history)
        self.addCleanup(client.close)
        pair = await client.log_in("phone")
        assert pair is not None
        self.fill(server)
        await self.assert_unavailable(server, pair)
        self.disk.free()
        self.assertEqual(await health(server), 200)
        for _ in range(2):
            used = await client.use("phone", pair, Use.STRICT)
            self.assertIs(used.outcome, Outcome.ACCEPTED)
            assert used.answer is not None
            pair = used.answer
        self.assertIsNotNone(await client.log_in("tablet"))
        self.assertEqual(devices(server.database), {"phone", "tablet"})
        self.assertEqual(check(history), [])
        self.assertNotIn("Traceback", server.log())

    async def assert_unavailable(self, server: ChaosServer, pair: Pair) -> None:
        """See what is answered while the disk is full."""
        refresh = {"refresh_token": pair.refresh}
        login = {"type": "m.login.password", "user": USER, "password": PASSWORD}
        # The answer of before counts for a few seconds.
        while await health(server) != 503:
            await deferLater(reactor, 0.1)
        for _ in range(3):
            self.assertEqual(await health(server), 503)
            self.assertEqual(await self.ask(server, "/refresh", refresh), (503, "text/plain"))
            self.assertEqual(
                await self.ask(server, "/tokenrefresh", refresh, pair.access), (503, "text/plain")
            )
            self.assertEqual(await self.ask(server, "/login", login), (503, "application/json"))
            self.assertEqual(
                await self.ask(server, "/logout", {}, pair.access), (503, "application/json")
            )

    async def test_storm(self) -> None:
        """The disk fills up again and again, and nothing that was acknowledged is lost."""
        server = await self.serve_on_disk()
        storm = self.storm([server], outages=True, stubborn=True)

        async def strike() -> None:
            self.fill(server)
            await deferLater(reactor, storm.random.uniform(0.1, 0.4))
            self.disk.free()
            await self.healthy(server)
            await deferLater(reactor, storm.random.uniform(0.0, 0.2))

        counts = await self.survives(storm, strike)
        unavailable = server.log().count("outcome=unavailable reason=store")
        if ROUNDS > SHORT:
            print(f"{unavailable} answers of 503")
        for use in (Use.STRICT, Use.LENIENT):
            self.assertGreater(counts[use, Outcome.UNKNOWN], 0, str(counts))
        self.assertGreater(unavailable, ROUNDS)

    async def test_killed_while_full(self) -> None:
        """A server that is killed while its disk is full starts again once there is room."""
        server = await self.serve_on_disk()
        storm = self.storm([server], outages=True)

        async def strike() -> None:
            self.fill(server)
            await deferLater(reactor, storm.random.uniform(0.0, 0.2))
            server.kill()
            self.disk.free()
            await server.start()

        await self.survives(storm, strike)
