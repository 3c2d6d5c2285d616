"""One of several processes that answer.

Started by :mod:`~synapse_login_module.standalone.workers.supervisor` alone, and told everything by
it: on standard input the configuration, on further descriptors the rate limits' table, the counts
of connections and the listening sockets.
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
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from synapse_login_module.errors import ConfigError, described
from synapse_login_module.limits.shared_memory import SharedBuckets
from synapse_login_module.passwords import cores
from synapse_login_module.standalone import log_format
from synapse_login_module.standalone.plan import LoadedConfig, check_config
from synapse_login_module.standalone.reactor import act_on, keep_steady_time, stop
from synapse_login_module.standalone.server import LoginServer, build_server
from synapse_login_module.standalone.workers import inherited_sockets
from synapse_login_module.standalone.workers.connection_counts import Counts
from synapse_login_module.web.site import LoginSite

CONFIGURATION, TO_PARENT, LIMITS, COUNTS, FIRST_SOCKET = 0, 3, 4, 5, 6
"""The descriptors that a worker begins with, beside its standard output and error."""

READY = b"ready\n"
HEARTBEAT = b"."

NOT_THEIRS = signal.SIGHUP, signal.SIGINT, signal.SIGUSR1
"""The signals that are the parent's to act on, though a terminal, or an operator, may send them to
all processes: it reloads, ends, or has a log file changed.
"""

_RETIREMENT = 10.0

# Python would look for modules in the current folder first, which may be anybody's.
_START = (
    "import sys; sys.path[:] = filter(None, sys.path);"
    " from synapse_login_module.standalone.workers.worker import main; main()"
)


def frame(document: bytes) -> bytes:
    """A configuration, as it comes to a worker."""
    return b"%d\n%b" % (len(document), document)


def main() -> None:
    """Serve until told to stop."""
    options = _parser().parse_args()
    for each in NOT_THEIRS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_THEIRS)
    _begin_logging(options.number)
    from twisted.internet import reactor

    keep_steady_time(reactor)
    try:
        document = _read(sys.stdin.buffer)
        loaded = _share_cores(check_config(document, options.config), options.of)
        _keep_descriptors(FIRST_SOCKET + len(loaded.config.listen))
        server = _build(loaded, reactor, options.number)
        server.privilegedStartService()
        server.startService()
    except (ConfigError, SystemExit) as error:
        _give_up(str(error))
    except Exception as error:  # as of a plugin
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
    """Say why this worker cannot start, and end. Threads that have begun are not waited for."""
    with suppress(BrokenPipeError):
        os.write(TO_PARENT, f"{problem}\n".encode())
    sys.stdout.flush()
    os._exit(1)


class _Parent(Protocol):
    """What connects this worker with its parent, as long as both want it."""

    def __init__(self, reactor: Any, server: LoginServer, beat: float) -> None:
        self._reactor = reactor
        self._server = server
        self._beat = beat
        self._beats: LoopingCall | None = None

    def connectionMade(self) -> None:
        """Tell it that this worker listens, and from then on that its reactor turns."""
        assert self.transport is not None
        self.transport.write(READY)
        self._beats = LoopingCall(self.transport.write, HEARTBEAT)
        self._beats.clock = self._reactor
        self._beats.start(self._beat)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Others take over, or the parent is dead: leave, and let no client notice."""
        if self._beats is not None:
            self._beats.stop()
        self._server.grace = _RETIREMENT
        stop(self._reactor)


def _build(loaded: LoadedConfig, reactor: Any, number: int) -> LoginServer:
    counts = Counts(COUNTS, number - 1)

    def listen(index: int, site: LoginSite) -> IService:
        description = loaded.config.listen[index]
        endpoint = inherited_sockets.endpoint(
            reactor,
            description,
            FIRST_SOCKET + index,
            lambda: counts.should_yield(len(site.channels)),
        )
        return StreamServerEndpointService(endpoint, site)

    buckets = partial(SharedBuckets, LIMITS)
    return build_server(loaded, reactor, listen=listen, buckets=buckets)


def _share_cores(loaded: LoadedConfig, workers: int) -> LoadedConfig:
    """The configuration, with the worker's share of the threads where it leaves them open."""
    hashing = loaded.config.hashing
    if hashing.threads is not None:
        return loaded
    threads = max(1, cores() // workers)
    config = loaded.config.model_copy(
        update={"hashing": hashing.model_copy(update={"threads": threads})}
    )
    return replace(loaded, config=config)


def _keep_descriptors(count: int) -> None:
    """Let no program that a plugin may start have them: neither the sockets nor what is shared."""
    for each in range(TO_PARENT, count):
        os.set_inheritable(each, False)


def _read(file: BinaryIO) -> bytes:
    size = int(file.readline() or 0)
    document = file.read(size)
    if not size or len(document) < size:
        raise SystemExit("the parent is gone")
    return document


def _begin_logging(number: int) -> None:
    """Log as twistd does, and say in each line whose it is."""
    # As in fail2ban's filter: what tells workers apart stands before anything a client chose.
    writer = f"worker={number} pid={os.getpid()}"
    globalLogBeginner.beginLoggingTo([log_format.standard_output(writer)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="where it came from")
    parser.add_argument("--number", type=int, required=True, help="which worker this is")
    parser.add_argument("--of", type=int, required=True, help="how many there are")
    parser.add_argument("--beat", type=float, required=True, help="seconds between signs of life")
    return parser


def command(number: int, of: int, config: Path, beat: float) -> Sequence[str]:
    """What starts a worker."""
    options = {"number": number, "of": of, "config": config, "beat": beat}
    return [
        *(sys.executable, "-c", _START),
        *(f"--{name}={value}" for name, value in options.items()),
    ]
