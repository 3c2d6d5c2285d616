"""``twistd synapse-login``: parses the options and builds the server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.reflect import fullyQualifiedName

from synapse_login_module.config import modes
from synapse_login_module.errors import ConfigError, described
from synapse_login_module.standalone import log_format, privileges
from synapse_login_module.standalone.launch import PROGRAM, Launch
from synapse_login_module.standalone.plan import load_config
from synapse_login_module.standalone.reactor import act_on, keep_steady_time, stop
from synapse_login_module.standalone.sd_notify import Notifier
from synapse_login_module.standalone.server import build_server
from synapse_login_module.standalone.workers.supervisor import Supervisor
from synapse_login_module.tokens.format import KeyRing

_MAX_WORKERS = 1024


def _workers(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= _MAX_WORKERS):
        raise SystemExit(f"synapse-login: --workers must be a number from 1 to {_MAX_WORKERS}")
    return int(text)


class Options(usage.Options):
    """The options of the twistd command."""

    synopsis = "[options]"
    longdesc = "The login service for Matrix homeservers: POST /login and POST /tokenrefresh."
    optParameters: ClassVar = [
        ("config", "c", None, "The configuration file (YAML)."),
        (
            "workers",
            "w",
            None,
            "The number of worker processes that answer requests; SIGHUP replaces them."
            " Without it, one process does everything.",
            _workers,
        ),
    ]

    logs_to_standard_output = False

    def postOptions(self) -> None:
        """Require ``--config``, and choose our log format where twistd logs to standard output."""
        if self["config"] is None:
            raise SystemExit("synapse-login: --config FILE is required")
        twistd: Any = self.parent or {}
        elsewhere = {twistd.get(option) for option in ("logger", "logfile", "syslog")}
        if twistd.get("nodaemon") and elsewhere <= {None, 0, "-"}:
            self.logs_to_standard_output = True
            twistd["logger"] = fullyQualifiedName(log_format.standard_output)


def makeService(options: Options) -> IService:
    """Build the server.

    :raise SystemExit: when the configuration has mistakes, with one line for each.
    """
    from twisted.internet import reactor

    path = Path(options["config"])
    running: Any = IReactorCore(reactor)
    keep_steady_time(running)
    notifier = Notifier(os.environ, running)
    twistd: MutableMapping[str, Any] = options.parent or {}
    launch = Launch(twistd, running, path, log_too=not options.logs_to_standard_output)
    server: IService
    on_hangup: Callable[[], None]
    try:
        _check_log_file(twistd)
        loaded = load_config(path, reactor)
        if options["workers"] is None:
            alone = server = build_server(loaded, reactor, _files_as(twistd))
            on_hangup = partial(_renew_keys, alone.keys)
        else:
            parent = server = Supervisor(
                path,
                loaded,
                options["workers"],
                reactor,
                notifier,
                launch.serves,
                launch.fail,
                relay_output=not options.logs_to_standard_output,
            )
            on_hangup = parent.reload
    except ConfigError as error:
        raise SystemExit(error.lines(f"{PROGRAM}: {path}: ")) from None
    except Exception as error:  # for instance of a plugin; there is no log yet
        raise SystemExit(f"{PROGRAM}: {path}: {described(error)}") from None
    for warning in modes.warnings(loaded.given, path):
        Logger().warn("{path}: {warning}", path=path, warning=warning)
    launch.begin()
    act_on(signal.SIGHUP, running, on_hangup)
    # Twisted installs its own handler of SIGTERM when the reactor starts. With that one, twistd
    # ends by the signal and not with status 0.
    running.callWhenRunning(act_on, signal.SIGTERM, running, lambda: stop(running))
    if options["workers"] is None:
        running.callWhenRunning(notifier.ready)
        running.callWhenRunning(launch.serves)
    service = launch.service()
    server.setServiceParent(service)
    notifier.setServiceParent(service)
    return service


def _check_log_file(twistd: Mapping[str, Any]) -> None:
    """Check that the log file can be written. twistd itself would print a traceback.

    :raise SystemExit: when it cannot, with one line.
    """
    name = twistd.get("logfile")
    if not name or name == "-" or twistd.get("logger") or twistd.get("syslog"):
        return
    try:
        with open(name, "ab"):
            pass
    except OSError as error:
        problem = f"{PROGRAM}: --logfile: cannot write {name}: {error.strerror}"
        raise SystemExit(problem) from None


def _files_as(twistd: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Return a context in which files are made as the user of twistd's ``--uid``.

    twistd changes to that user only later.
    """
    return privileges.effective(twistd.get("uid"), twistd.get("gid"))


def _renew_keys(keys: KeyRing) -> None:
    keys.renew()
    Logger().info(
        "SIGHUP: new tokens are under key {newest};"
        " without --workers the rest of the configuration is read at the start alone",
        newest=keys.newest,
    )
