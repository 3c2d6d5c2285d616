"""The server is asked to stop while it is at work."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.chaos.server import PASSWORD, USER, ChaosServer
from tests.support.wire import Wire, connect, request

reactor = cast(Any, global_reactor)

_COST = 11
_CLIENT = "/_matrix/client/v3"
_ATTEMPTS = 1000


def login(device_id: str) -> bytes:
    """A login with a right password."""
    credentials = {"type": "m.login.password", "user": USER, "password": PASSWORD}
    return request(
        "POST", f"{_CLIENT}/login", {**credentials, "device_id": device_id, "refresh_token": True}
    )


def refresh(tokens: dict[str, Any]) -> bytes:
    """A strict refresh."""
    body = {"refresh_token": tokens["refresh_token"]}
    return request("POST", f"{_CLIENT}/tokenrefresh", body, token=tokens["access_token"])


class TerminateTests(TestCase):
    """SIGTERM lets what is in flight finish, and leaves everything clean."""

    timeout = 90

    async def setUp(self) -> None:  # type: ignore[override]
        self.server = ChaosServer(Path(self.mktemp()), cost=_COST)
        self.addCleanup(self.server.kill)
        await self.server.start()

    async def connect(self) -> Wire:
        """A connection that is closed again after the test."""
        wire = await connect(self.server.port)
        self.addCleanup(lambda: Deferred.fromCoroutine(wire.abort()))
        return wire

    async def exchange(self, data: bytes) -> Any:
        """Send a request on a connection of its own; the JSON of its success."""
        wire = await self.connect()
        wire.send(data)
        status, answer = await wire.answer()
        self.assertEqual(status, 200, answer)
        return answer

    async def start_logins(self, count: int) -> list[Wire]:
        """Send that many logins, and see that the server has read them all."""
        wires = [await self.connect() for _ in range(count)]
        for number, wire in enumerate(wires):
            wire.send(login(f"device {number}"))
        await self.exchange(request("GET", "/health"))
        return wires

    async def start_half(self, data: bytes) -> Wire:
        """Send a request but for its end, and see that the server has read that much."""
        wire = await self.connect()
        wire.send(data[:-10])
        await self.exchange(request("GET", "/health"))
        return wire

    async def terminate(self) -> Deferred[int]:
        """Ask the server to stop, and wait until it takes no connections any more."""
        ended = self.server.terminate()
        for _ in range(_ATTEMPTS):
            if not self.server.listens():
                return ended
            await deferLater(reactor, 0.01)
        self.fail("it still takes connections")

    async def stop(self) -> int:
        """Ask the server to stop, and wait until it has; its exit status."""
        return await self.server.terminate()

    async def test_logins_in_flight(self) -> None:
        """Logins that are being hashed, and those that wait for it, are answered."""
        wires = await self.start_logins(5)
        ended = self.server.terminate()
        answers = await gatherResults([wire.answer() for wire in wires])
        self.assertEqual([status for status, _ in answers], [200] * 5)
        await gatherResults([wire.lost() for wire in wires])
        await ended

    async def test_half_sent_body(self) -> None:
        """A request whose body is still on its way is answered, and its connection closed."""
        request_bytes = refresh(await self.exchange(login("phone")))
        wire = await self.start_half(request_bytes)
        ended = await self.terminate()
        wire.send(request_bytes[-10:])
        status, answer = await wire.answer()
        self.assertEqual(status, 200, answer)
        await wire.lost()
        await ended

    async def test_new_connections(self) -> None:
        """While it waits for requests in flight, the server refuses new connections."""
        request_bytes = login("phone")
        wire = await self.start_half(request_bytes)
        ended = await self.terminate()
        self.assertFalse(self.server.listens())
        self.assertFalse(wire.closed)
        wire.send(request_bytes[-10:])
        await wire.answer()
        await ended

    async def test_idle_connection(self) -> None:
        """A connection on which nothing is asked does not keep the server."""
        wire = await self.connect()
        wire.send(request("GET", "/health"))
        await wire.answer()
        await self.stop()
        await wire.lost()

    async def test_client_gone(self) -> None:
        """A client that goes away during the wait does not keep the server."""
        wire = await self.start_half(login("phone"))
        ended = await self.terminate()
        await wire.abort()
        await ended

    async def test_half_sent_for_good(self) -> None:
        """A client that never sends the rest of a request does not keep the server for good."""
        wire = await self.start_half(login("phone"))
        await self.stop()
        await wire.lost()

    async def test_status(self) -> None:
        """The exit status is 0: it did what it was asked to."""
        await self.start_logins(1)
        self.assertEqual(await self.stop(), 0)

    async def test_store(self) -> None:
        """The database is one file that opens cleanly, and holds every acknowledged login."""
        wires = await self.start_logins(3)
        ended = self.server.terminate()
        answers = await gatherResults([wire.answer() for wire in wires])
        await ended
        folder, name = self.server.database.parent, self.server.database.name
        self.assertEqual([path.name for path in folder.glob(f"{name}*")], [name])
        with closing(sqlite3.connect(self.server.database)) as connection:
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            devices = {row[0] for row in connection.execute("SELECT device_id FROM sessions")}
        self.assertEqual(devices, {answer["device_id"] for _, answer in answers})

    async def test_started_again(self) -> None:
        """A pair that was handed out while the server stopped works when it is started again."""
        (wire,) = await self.start_logins(1)
        ended = self.server.terminate()
        _, tokens = await wire.answer()
        await ended
        await self.server.start()
        await self.exchange(refresh(tokens))

    async def test_totals(self) -> None:
        """The outcomes are counted in the log, those of the last moment included."""
        await self.start_logins(3)
        await self.stop()
        self.assertIn("total: login outcome=ok reason=password count=3", self.server.log())
        self.assertNotIn("Traceback", self.server.log())
