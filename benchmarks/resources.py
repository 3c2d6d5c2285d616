"""What the standalone server takes: memory, the time to start, and room on the disk."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import servers, sessions
from benchmarks.driving import drive, p50
from benchmarks.figures import Row
from benchmarks.load import CHAIN, SCATTER, Result
from benchmarks.rounds import interleaved
from benchmarks.servers import MeasuredServer
from benchmarks.shares import parts
from benchmarks.size import Size
from benchmarks.spread import judge

IDLE_CONNECTIONS = 1000

_MOST_BYTES = 160


def memory(folder: Path, size: Size) -> Iterator[Row]:
    """Measure resident memory, without and with idle connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE_CONNECTIONS + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    with servers.bare(folder) as bare, servers.login_service(folder) as service:
        found: dict[str, tuple[int, int]] = {}
        for name, server in (("bare", bare), ("service", service)):
            idle = server.memory
            with ExitStack() as stack:
                for _ in range(IDLE_CONNECTIONS):
                    stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                # The server accepts in order, so it has accepted all connections before this one.
                drive(server, CHAIN, [b"x y"], 1, 1)
                found[name] = idle, server.memory
    for index, (what, most) in enumerate(
        (("idle", 60), (f"with {IDLE_CONNECTIONS} idle connections", 64))
    ):
        here, yardstick = (found[name][index] / 1e6 for name in ("service", "bare"))
        yield Row(
            f"memory {what}, against the bare resource",
            f"{here:.0f} MB",
            f"{yardstick:.0f} MB",
            here / yardstick,
            reach=f"<= {most} MB",
            verdict=judge(here, here, None, most),
        )


def start_up(folder: Path, size: Size) -> Iterator[Row]:
    """Measure the time from the start of the process to the first response."""

    def run(make: Callable[[Path], MeasuredServer], _: int) -> float:
        with make(folder) as server:
            return server.start_up

    sides = {"bare": partial(run, servers.bare), "here": partial(run, servers.login_service)}
    what = "start-up, against the bare resource"
    rounds = interleaved(size.rounds, sides)
    yield rounds.compared(what, "here", "bare", float, unit="s", digits=2, quiet=True)


def growth(folder: Path, size: Size) -> Iterator[Row]:
    """Compare refreshes of random sessions in databases of different sizes."""
    counts = sorted(size.sessions)
    sample = size.rounds * min(size.refreshes, counts[0] // size.rounds)
    sides: dict[str, Callable[[int], Result]] = {}

    def run(service: MeasuredServer, mine: Sequence[Sequence[bytes]], number: int) -> Result:
        return drive(service, SCATTER, mine[number], len(mine[number]))

    with ExitStack() as stack:
        for count in counts:
            place = folder / str(count)
            place.mkdir()
            lines = sessions.fill(place, count, sample)
            used = sessions.bytes_on_disk(place) / count
            service = stack.enter_context(servers.login_service(place))
            sides[f"{count:,}"] = partial(run, service, parts(lines, size.rounds))
            # The pages of empty tables count for much among the fewest.
            most = _MOST_BYTES if count > counts[0] else None
            yield Row(
                f"bytes a session on disk, {count:,} sessions",
                f"{used:.0f}",
                reach="" if most is None else f"<= {most}",
                verdict=judge(used, used, None, most),
            )
        rounds = interleaved(size.rounds, sides)
    fewest, *more = sides
    for name in more:
        what = f"/tokenrefresh p50 at {name} sessions, against {fewest}"
        yield rounds.compared(what, name, fewest, p50, unit="ms", most=1.1, quiet=True)
