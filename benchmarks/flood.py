"""``python -m benchmarks.flood``: what a hostile client costs the server and other clients.

Each kind of flood runs against its own server with the default settings, accounts in a file and
sessions in SQLite. The server's memory is measured before, during and after the flood. Meanwhile
another client asks for ``/health``, on a new connection each time.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import flooding
from benchmarks.flooding import KINDS
from benchmarks.servers import PASSWORD, SERVER_NAME, USER, MeasuredServer
from benchmarks.tables import table
from tests.support import REPOSITORY, server
from tests.support.certificates import Authority
from tests.support.configuration import password_hash, write_config
from tests.support.ports import free_port

MOST_MEMORY = 40e6
MOST_WAIT = 0.1

_ELSEWHERE = "127.0.0.2"
_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_HEADINGS = (
    *("flood", "connections", "answered", "idle", "peak", "after", "more"),
    *("/health p50", "p95", "disk", "verdict"),
)


@dataclass(frozen=True)
class Scene:
    """A flood and the server that it runs against.

    :param proxied: whether the flood comes through a trusted proxy, whose address may have any
        number of connections.
    """

    kind: str
    connections: int = 190
    proxied: bool = False
    tls: bool = False
    workers: int | None = None

    @property
    def name(self) -> str:
        """The name in the table."""
        words = [self.kind, "proxied" if self.proxied else "", "tls" if self.tls else ""]
        words.append(f"{self.workers} workers" if self.workers else "")
        return ", ".join(filter(None, words))


SCENES = (
    *(Scene(kind) for kind in ("pipelined", "unread", "lockstep", "last")),
    *(Scene(kind, 1900, proxied=True) for kind in KINDS),
    Scene("pipelined", tls=True),
    Scene("unread", tls=True),
    Scene("bodies", 1900, proxied=True, tls=True),
    Scene("pipelined", 1900, proxied=True, workers=2),
    Scene("bodies", 1900, proxied=True, workers=2),
)


@dataclass(frozen=True)
class Seen:
    """The measurements of one flood.

    :param idle: bytes of memory of all processes before the flood; ``peak`` is the most during it,
        ``after`` two seconds after it.
    :param waits: the seconds that each request for ``/health`` took.
    :param disk: bytes that the log and the database grew by.
    :param answered: the number of the flood's requests that were answered.
    """

    idle: int
    peak: int
    after: int
    waits: Sequence[float]
    disk: int
    answered: int

    @property
    def median(self) -> float:
        """The median of the seconds for ``/health``."""
        return statistics.median(self.waits)

    @property
    def reached(self) -> bool:
        """Whether the costs are within the limits."""
        return self.peak - self.idle <= MOST_MEMORY and self.median <= MOST_WAIT


def flood(scene: Scene, seconds: float, folder: Path) -> Seen:
    """Flood one server and measure."""
    port, flooded = free_port(), free_port()
    config = write_config(folder, _config(scene, folder, port, flooded))
    options = [] if scene.workers is None else [f"--workers={scene.workers}"]
    process = server.Server(config, port, options=options)
    says = "" if scene.workers is None else "workers serve"
    with MeasuredServer(process, port, says):
        processes = [process.pid, *process.workers]
        time.sleep(1.0)
        idle, disk = _resident(processes), _used(folder)
        flooder = subprocess.Popen(
            _command(scene, flooded, seconds), cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        peak, waits = idle, []
        while flooder.poll() is None:
            waits.append(_wait_for_health(port))
            peak = max(peak, _resident(processes))
            time.sleep(0.05)
        said = json.loads(flooder.communicate()[0] or b"{}")
        time.sleep(2.0)
        after = _resident(processes)
        return Seen(idle, peak, after, waits, _used(folder) - disk, said.get("answered", 0))


def _config(scene: Scene, folder: Path, port: int, flooded: int) -> dict[str, Any]:
    listen = [f"tcp:{port}:interface=127.0.0.1"]
    if scene.tls:
        certificate, key = Authority().sign("localhost").write(folder)
        listen.append(f"ssl:{flooded}:interface=127.0.0.1:certKey={certificate}:privateKey={key}")
    else:
        listen.append(f"tcp:{flooded}:interface=127.0.0.1")
    users = folder / "users.yaml"
    users.write_text(json.dumps({"users": {USER: {"password_hash": password_hash(PASSWORD, 12)}}}))
    return {
        "server_name": SERVER_NAME,
        "listen": listen,
        "trusted_proxies": ["127.1.0.0/16", "127.0.0.1"] if scene.proxied else [],
        "password_providers": [
            {
                "module": "synapse_login_module.providers.BcryptProvider",
                "config": {"path": users.name},
            }
        ],
        "token_store": {
            "module": "synapse_login_module.stores.SQLiteTokenStore",
            "config": {"path": "sessions.db"},
        },
    }


def _command(scene: Scene, port: int, seconds: float) -> list[str]:
    return [
        *(sys.executable, "-m", flooding.__name__, scene.kind, f"--port={port}"),
        *(f"--connections={scene.connections}", f"--seconds={seconds}"),
        *(["--tls"] if scene.tls else []),
    ]


def _resident(processes: Sequence[int]) -> int:
    return sum(_status(each) for each in processes)


def _status(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def _used(folder: Path) -> int:
    """Return the bytes of the files in a folder, including the log."""
    return sum(each.stat().st_size for each in folder.iterdir() if each.is_file())


def _wait_for_health(port: int) -> float:
    began = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), 10, (_ELSEWHERE, 0)) as asking:
            asking.sendall(_HEALTH)
            answer = asking.recv(4096)
    except OSError:
        answer = b""
    return time.perf_counter() - began if b" 200 " in answer[:16] else 10.0


def main() -> None:
    """Parse the command line, run the floods and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flood", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each flood lasts")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(KINDS),
        help="run only this kind; may be given more than once",
    )
    parser.add_argument("--list", action="store_true", help="list the kinds")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name}: {kind.what}" for name, kind in KINDS.items()))
        return
    _have_files()
    rows: list[Sequence[str]] = [_HEADINGS]
    missed = False
    for scene in SCENES:
        if options.only and scene.kind not in options.only:
            continue
        with tempfile.TemporaryDirectory(prefix="flood-") as folder:
            seen = flood(scene, options.seconds, Path(folder))
        rows.append(_cells(scene, seen))
        missed = missed or not seen.reached
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    print(table(rows, right=range(1, len(_HEADINGS) - 1)))
    sys.exit(missed)


def _have_files() -> None:
    """Raise the limit of open files to twice the number of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * max(each.connections for each in SCENES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def _cells(scene: Scene, seen: Seen) -> tuple[str, ...]:
    slow = sorted(seen.waits)[len(seen.waits) * 95 // 100]
    return (
        scene.name,
        f"{scene.connections:,}",
        f"{seen.answered:,}",
        *(f"{each / 1e6:.0f} MB" for each in (seen.idle, seen.peak, seen.after)),
        f"{(seen.peak - seen.idle) / 1e6:.0f} MB",
        f"{seen.median * 1e3:.0f} ms",
        f"{slow * 1e3:.0f} ms",
        f"{seen.disk / 1e6:.2f} MB",
        "reached" if seen.reached else "MISSED",
    )


if __name__ == "__main__":
    main()
