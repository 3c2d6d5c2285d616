"""What metrics cost: this server with and without them, and while it is asked for its page."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import servers, sessions
from benchmarks.driving import drive, p99
from benchmarks.figures import CONNECTIONS, Row
from benchmarks.load import CHAIN, Result
from benchmarks.machine import processor_time
from benchmarks.rounds import interleaved
from benchmarks.servers import MeasuredServer
from benchmarks.size import Size
from tests.support.http import ask
from tests.support.ports import free_port

_LEAST = 0.98


def refreshes(folder: Path, size: Size) -> Iterator[Row]:
    """Compare strict refreshes of a server that counts them with one that does not.

    The rates tell it on a machine that does nothing else. The processor time of a refresh tells it
    on a busy one too.
    """
    port = free_port()
    listen = {"internal_listen": [f"tcp:{port}:interface=127.0.0.1"]}
    lines = {}
    for name in ("without", "with"):
        place = folder / name
        place.mkdir()
        lines[name] = sessions.fill(place, 1000, 1000)
    with (
        servers.login_service(folder / "without") as plain,
        servers.login_service(folder / "with", more=listen) as counting,
    ):
        first = {name: iter(range(0, 1000, CONNECTIONS)) for name in lines}

        def run(name: str, server: MeasuredServer, _: int = 0) -> tuple[Result, float]:
            start = next(first[name])
            return _run(server, lines[name][start : start + CONNECTIONS], size)

        def scraped(_: int) -> tuple[Result, float]:
            with _scraping(port):
                return run("with", counting)

        sides = {
            "without": partial(run, "without", plain),
            "with": partial(run, "with", counting),
        }
        interleaved(1, sides)  # warms up
        rounds = interleaved(2 * size.rounds, sides)
        for what, figure, quiet in (
            ("refreshes a second", lambda made: made[0].rate, True),
            ("refreshes a second of processor time", lambda made: made[1], False),
        ):
            yield rounds.compared(
                f"{what}, with metrics against without",
                "with",
                "without",
                figure,
                least=_LEAST,
                quiet=quiet,
            )
        calm = partial(run, "with", counting)
        rounds = interleaved(size.rounds, {"calm": calm, "scraped": scraped})
        yield rounds.compared(
            "p99 of a refresh while /metrics is asked for without a pause, against calm",
            "scraped",
            "calm",
            lambda made: p99(made[0]),
            unit="ms",
            digits=2,
            quiet=True,
        )


def _run(server: MeasuredServer, lines: Sequence[bytes], size: Size) -> tuple[Result, float]:
    """Refresh; return the result, and the refreshes a second of processor time."""
    before = processor_time(server.pid)
    result = drive(server, CHAIN, lines, size.refreshes)
    return result, result.requests / (processor_time(server.pid) - before)


@contextmanager
def _scraping(port: int) -> Iterator[None]:
    """Ask for the metrics on a thread, again and again."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.is_set():
            ask(port, "GET", "/metrics")
            ended.wait(0.005)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
