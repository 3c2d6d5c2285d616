"""Clients that take of the server what they can get, while others go about their business.

``CHAOS_HOARDERS`` multiplies them, and the seconds that it lasts: 5 is 1,000 idle connections, 250
on which a request trickles in and 25 that send and do not read, for a minute; the figures are
printed then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

from synapse_login_module.standalone.rlimits import room_for
from tests.chaos.client import RecordingClient
from tests.chaos.history import History, Outcome, Use
from tests.chaos.server import ChaosServer
from tests.support.wire import connect, request

reactor = cast(Any, global_reactor)

SCALE = int(os.environ.get("CHAOS_HOARDERS", "1"))

_SECONDS = 12 * SCALE
_IDLE, _TRICKLING, _GREEDY = 200 * SCALE, 50 * SCALE, 5 * SCALE
_KIB_A_CONNECTION = 64
_KIB_BESIDE = 16 * 1024
_VERSIONS = request("GET", "/_matrix/client/versions")


class Hoarder:
    """A connection that is opened again whenever the server cuts it.

    :param port: the server's port.
    :param data: what is sent, over and over.
    :param piece: the number of bytes to send at a time.
    """

    _socket: socket.socket
    _at: int

    def __init__(self, port: int, data: bytes, piece: int) -> None:
        self._address = ("127.0.0.1", port)
        self._data = data
        self._piece = piece
        self._open()

    def send(self) -> None:
        """Send a piece, if the server takes it."""
        try:
            with contextlib.suppress(BlockingIOError):
                sent = self._socket.send(self._data[self._at : self._at + self._piece])
                self._at = (self._at + sent) % len(self._data)
        except ConnectionError:
            self.close()
            self._open()

    def close(self) -> None:
        """Go away."""
        self._socket.close()

    def _open(self) -> None:
        self._at = 0
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(self._address)
        self._socket.setblocking(False)


class HoarderTests(TestCase):
    """Clients that hoard connections do not keep other clients out."""

    timeout = 60 + 2 * _SECONDS

    async def setUp(self) -> None:  # type: ignore[override]
        room_for(_IDLE + _TRICKLING + _GREEDY)
        self.server = ChaosServer(Path(self.mktemp()))
        self.addCleanup(self.server.kill)
        await self.server.start()
        self.client = RecordingClient(self.server.port, History())
        self.addCleanup(self.client.close)

    def hoard(self, count: int, data: bytes, piece: int) -> None:
        """Open ``count`` hoarding connections, which send a piece each second if there is data."""
        hoarders = [Hoarder(self.server.port, data, piece) for _ in range(count)]
        for hoarder in hoarders:
            self.addCleanup(hoarder.close)

        def send() -> None:
            for hoarder in hoarders:
                hoarder.send()

        if data:
            sending = LoopingCall(send)
            sending.start(1)
            self.addCleanup(sending.stop)

    async def test_others_are_served(self) -> None:
        """Every refresh and every check of another client is answered, in bounded memory."""
        pair = await self.client.log_in("phone")
        before = self.server.resident()
        self.hoard(_IDLE, b"", 0)
        self.hoard(_TRICKLING, _VERSIONS, 1)
        self.hoard(_GREEDY, _VERSIONS * 10_000, 1 << 20)
        took: dict[str, list[float]] = {"/tokenrefresh": [], "/health": []}
        peak = before
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until:
            assert pair is not None
            start = time.monotonic()
            refreshed = await self.client.use("phone", pair, Use.STRICT)
            took["/tokenrefresh"].append(time.monotonic() - start)
            self.assertIs(refreshed.outcome, Outcome.ACCEPTED)
            pair = refreshed.answer
            start = time.monotonic()
            wire = await connect(self.server.port)
            wire.send(request("GET", "/health"))
            self.assertEqual(await wire.answer(), (200, b"OK"))
            took["/health"].append(time.monotonic() - start)
            await wire.abort()
            peak = max(peak, self.server.resident())
        self.assertEqual(self.client.surprises, [])
        self.assertLess(
            peak - before, _KIB_BESIDE + _KIB_A_CONNECTION * (_IDLE + _TRICKLING + _GREEDY)
        )
        if SCALE > 1:
            self._print(took, before, peak)

    def _print(self, took: dict[str, list[float]], before: int, peak: int) -> None:
        print(f"\nresident: {before // 1024} MiB before, {peak // 1024} MiB at the most")
        for name, times in took.items():
            times.sort()
            median, late = (1000 * times[int(len(times) * share)] for share in (0.5, 0.99))
            print(
                f"{name}: {len(times)} times, median {median:.1f} ms, p99 {late:.1f} ms,"
                f" worst {1000 * times[-1]:.1f} ms"
            )
