"""What metrics cost: this server with and without them, and while it is asked for its page."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks import servers, sessions
from benchmarks.figures import CONNECTIONS, Row
from benchmarks.load import CHAIN, Result
from benchmarks.measure import Size, drive
from benchmarks.servers import MeasuredServer
from tests.support.http import ask
from tests.support.ports import free_port

_MOST_COST = 0.98


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
        rounds = []
        for number in range(2 * size.rounds + 1):
            first = number * CONNECTIONS
            mine = {name: each[first : first + CONNECTIONS] for name, each in lines.items()}
            pair = _run(plain, mine["without"], size), _run(counting, mine["with"], size)
            if number:  # the first one warms up
                rounds.append(pair)
        yield _row("refreshes a second", [(b[0].rate, a[0].rate) for a, b in rounds])
        yield _row("refreshes a second of processor time", [(b[1], a[1]) for a, b in rounds])
        with _scraping(port):
            busy = [
                drive(counting, CHAIN, lines["with"][first : first + CONNECTIONS], size.refreshes)
                for first in range(900 - size.rounds * CONNECTIONS, 900, CONNECTIONS)
            ]
        calm = median(pair[1][0].p99 for pair in rounds)
        yield Row(
            "p99 of a refresh while /metrics is asked for without a pause, against calm",
            f"{median(each.p99 for each in busy) * 1e3:.2f} ms",
            f"{calm * 1e3:.2f} ms",
            median(each.p99 for each in busy) / calm,
        )


def _run(server: MeasuredServer, lines: Sequence[bytes], size: Size) -> tuple[Result, float]:
    """Refresh; return the result, and the refreshes a second of processor time."""
    before = _processor_time(server.pid)
    result = drive(server, CHAIN, lines, size.refreshes)
    return result, result.requests / (_processor_time(server.pid) - before)


def _row(what: str, pairs: Sequence[tuple[float, float]]) -> Row:
    ratio = median(here / yardstick for here, yardstick in pairs)
    return Row(
        f"{what}, with metrics against without",
        f"{median(here for here, _ in pairs):,.0f}",
        f"{median(yardstick for _, yardstick in pairs):,.0f}",
        ratio,
        f"≥ {_MOST_COST}",
        ratio >= _MOST_COST,
    )


def _processor_time(pid: int) -> float:
    """Return the seconds of processor time that the threads of a process have used."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in threads) / 1e9


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
