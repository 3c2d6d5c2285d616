"""``twistd synapse-login``: parses the options and composes the server."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.internet.interfaces import IReactorCore
from twisted.python import usage
from twisted.python.reflect import fullyQualifiedName

from synapse_login_module import compose, privileges, textlog
from synapse_login_module.errors import ConfigError


class Options(usage.Options):
    """The options of the twistd command."""

    synopsis = "[options]"
    longdesc = "The login service for Matrix homeservers: POST /login and POST /tokenrefresh."
    optParameters: ClassVar = [("config", "c", None, "The configuration file (YAML).")]

    def postOptions(self) -> None:
        """Insist on a configuration; and where twistd would log to standard output, do so."""
        if self["config"] is None:
            raise SystemExit("synapse-login: --config FILE is needed")
        server: Any = self.parent or {}
        elsewhere = ("logger", "logfile", "syslog")
        if server.get("nodaemon") and not any(server.get(option) for option in elsewhere):
            server["logger"] = fullyQualifiedName(textlog.standard_output)


def makeService(options: Options) -> IService:
    """Build the server; a mistake in the configuration ends the program with one line."""
    from twisted.internet import reactor

    path = Path(options["config"])
    try:
        server = compose.build(compose.load(path, reactor), reactor, _files_as(options))
    except ConfigError as error:
        raise SystemExit(f"synapse-login: {path}: {error}") from None
    running: Any = IReactorCore(reactor)
    _keep_steady_time(running)
    running.callWhenRunning(_end_well, running)
    return server


def _files_as(options: Options) -> AbstractContextManager[None]:
    """As whom files are made: twistd changes to the user of its ``--uid`` only later."""
    twistd: Mapping[str, Any] = options.parent or {}
    return privileges.effective(twistd.get("uid"), twistd.get("gid"))


def _keep_steady_time(reactor: Any) -> None:
    """Have timers follow the monotonic clock.

    Twisted's follow the wall clock: its steps back hold all of them up, its steps forward fire all
    of them at once (https://github.com/twisted/twisted/issues/2424). This must come before the
    first timer is set.
    """
    reactor.seconds = time.monotonic


def _end_well(reactor: Any) -> None:
    """Have SIGTERM end the process with status 0: twistd would end it by the signal once more."""
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(reactor.stop))
