"""A worker: one of several processes that answer requests.

Only :mod:`~synapse_login_module.standalone.workers.supervisor` starts it. It inherits everything
as descriptors: the configuration as standard input, then the rate limits' table, the counts of
connections and the listening sockets.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IService
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.logger import FileLogObserver, Logger, globalLogBeginner
from twisted.python.failure import Failure

from synapse_login_module.config.settings import LogFormat
from synapse_login_module.errors import ConfigError, described
from synapse_login_module.limits.shared_memory import SharedBuckets
from synapse_login_module.metrics.prometheus import FOLDER_VARIABLE
from synapse_login_module.passwords import cores
from synapse_login_module.standalone import log_capture, log_format, log_output
from synapse_login_module.standalone.lazy_tls import defer_tls
from synapse_login_module.standalone.log_json import EventJSON
from synapse_login_module.standalone.measuring import WorkerFiles, measuring_of_worker
from synapse_login_module.standalone.plan import LoadedConfig, check_config
from synapse_login_module.standalone.reactor import act_on, keep_steady_time, stop
from synapse_login_module.standalone.server import LoginServer, build_server
from synapse_login_module.standalone.workers import inherited_sockets
from synapse_login_module.standalone.workers.connection_counts import Counts
from synapse_login_module.web.site import LoginSite

CONFIGURATION, TO_PARENT, LIMITS, COUNTS, FIRST_SOCKET = 0, 3, 4, 5, 6
"""The descriptors that a worker inherits, beside its standard output and error."""

READY = b"ready\n"
HEARTBEAT = b"."

PARENT_SIGNALS = signal.SIGHUP, signal.SIGINT, signal.SIGUSR1
"""The signals that only the parent acts on: it reloads, exits, or rotates its log file. A terminal
or an operator may send them to all processes.
"""

_RETIREMENT = 10.0

# Python would look for modules in the current folder first, where any user may have put some.
_START = (
    "import sys; sys.path[:] = filter(None, sys.path);"
    " from synapse_login_module.standalone.workers.worker import main; main()"
)


def frame(document: bytes) -> bytes:
    """Return the configuration as it is sent to a worker: its length, a newline and its bytes."""
    return b"%d\n%b" % (len(document), document)


def main() -> None:
    """Serve until the parent or SIGTERM stops the worker."""
    options = _parser().parse_args()
    for each in PARENT_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENT_SIGNALS)
    _begin_logging(options.number, options.log_format)
    defer_tls()
    from twisted.internet import reactor

    keep_steady_time(reactor)
    try:
        document = _read(sys.stdin.buffer)
        loaded = _share_cores(check_config(document, options.config), options.of)
        _close_on_exec(FIRST_SOCKET + len(loaded.config.listeners))
        server = _build(loaded, reactor, options)
        server.privilegedStartService()
        server.startService()
    except (ConfigError, SystemExit) as error:
        _give_up(str(error))
    except Exception as error:  # for instance of a plugin
        Logger().failure("the worker cannot start")
        _give_up(described(error))
    running: Any = reactor
    StandardIO(
        _Parent(running, server, options.beat),
        stdin=CONFIGURATION,  # type: ignore[call-arg] # mypy sees that of Windows
        stdout=TO_PARENT,
    )
    running.addSystemEventTrigger("before", "shutdown", server.stopService)
    running.callWhenRunning(act_on, signal.SIGTERM, running, lambda: stop(running))
    running.run()


def _give_up(problem: str) -> NoReturn:
    """Tell the parent why this worker cannot start, and exit without waiting for threads."""
    with suppress(BrokenPipeError):
        os.write(TO_PARENT, f"{problem}\n".encode())
    sys.stdout.flush()
    os._exit(1)


class _Parent(Protocol):
    """The connection to the parent; it closes when the parent retires this worker or dies.

    :param beat: seconds from one heartbeat to the next.
    """

    def __init__(self, reactor: Any, server: LoginServer, beat: float) -> None:
        self._reactor = reactor
        self._server = server
        self._beat = beat
        self._beats: LoopingCall | None = None

    def connectionMade(self) -> None:
        """Tell the parent that this worker listens, then send heartbeats from the reactor."""
        assert self.transport is not None
        self.transport.write(READY)
        self._beats = LoopingCall(self.transport.write, HEARTBEAT)
        self._beats.clock = self._reactor
        self._beats.start(self._beat)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Exit: others take over, or the parent is dead.

        Idle connections stay open for some seconds, so that no client notices.
        """
        if self._beats is not None:
            self._beats.stop()
        self._server.grace = _RETIREMENT
        stop(self._reactor)


def _build(loaded: LoadedConfig, reactor: Any, options: argparse.Namespace) -> LoginServer:
    counts = Counts(COUNTS, options.number - 1)
    folder = os.environ.get(FOLDER_VARIABLE)
    files = None
    if folder is not None and options.slot is not None:
        files = WorkerFiles(Path(folder), options.slot)

    def listen(index: int, site: LoginSite) -> IService:
        description = loaded.config.listeners[index].description
        endpoint = inherited_sockets.endpoint(
            reactor,
            description,
            FIRST_SOCKET + index,
            lambda: counts.should_yield(len(site.channels)),
        )
        return StreamServerEndpointService(endpoint, site)

    buckets = partial(SharedBuckets, LIMITS)
    measuring = measuring_of_worker(loaded.config, reactor, files)
    return build_server(loaded, reactor, listen=listen, buckets=buckets, measuring=measuring)


def _share_cores(loaded: LoadedConfig, workers: int) -> LoadedConfig:
    """Set ``hashing.threads`` to this worker's share of the cores, unless it is configured."""
    hashing = loaded.config.hashing
    if hashing.threads is not None:
        return loaded
    threads = max(1, cores() // workers)
    config = loaded.config.model_copy(
        update={"hashing": hashing.model_copy(update={"threads": threads})}
    )
    return replace(loaded, config=config)


def _close_on_exec(count: int) -> None:
    """Keep programs that a plugin may start from inheriting the sockets and the shared memory."""
    for each in range(TO_PARENT, count):
        os.set_inheritable(each, False)


def _read(file: BinaryIO) -> bytes:
    size = int(file.readline() or 0)
    document = file.read(size)
    if not size or len(document) < size:
        raise SystemExit("the parent is gone")
    return document


def _begin_logging(number: int, form: LogFormat) -> None:
    """Log as the parent does, and name this worker in each line."""
    if form == "json":
        log_capture.capture()
        output = log_output.claim_standard_output()
        observer = FileLogObserver(output, EventJSON(number))
    else:
        # fail2ban's filter expects this before any text that a client chose.
        observer = log_format.standard_output(f"worker={number} pid={os.getpid()}")
    globalLogBeginner.beginLoggingTo([observer])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the configuration file")
    parser.add_argument("--number", type=int, required=True, help="the number of this worker")
    parser.add_argument("--of", type=int, required=True, help="the number of all workers")
    parser.add_argument("--beat", type=float, required=True, help="seconds between heartbeats")
    parser.add_argument("--log-format", required=True, help="the form of the log")
    parser.add_argument("--slot", help="the name of the files of its metrics")
    return parser


def command(
    number: int,
    of: int,
    config: Path,
    beat: float,
    form: LogFormat = "text",
    slot: int | None = None,
) -> Sequence[str]:
    """Return the command line that starts a worker.

    :param slot: names the files of its metrics; ``None`` when there are none.
    """
    options: dict[str, object] = {
        "number": number,
        "of": of,
        "config": config,
        "beat": beat,
        "log-format": form,
    }
    if slot is not None:
        options["slot"] = slot
    return [
        *(sys.executable, "-c", _START),
        *(f"--{name}={value}" for name, value in options.items()),
    ]
