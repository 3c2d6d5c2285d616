"""``twistd synapse-login``: parses the options and builds the server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python import usage

from synapse_login_module import start_lines
from synapse_login_module.config import modes
from synapse_login_module.errors import ConfigError, described
from synapse_login_module.standalone import log_capture, log_output, privileges
from synapse_login_module.standalone.facts import Facts
from synapse_login_module.standalone.launch import PROGRAM, Launch
from synapse_login_module.standalone.lazy_tls import defer_tls
from synapse_login_module.standalone.plan import LoadedConfig, load_config
from synapse_login_module.standalone.reactor import act_on, keep_steady_time, stop
from synapse_login_module.standalone.sd_notify import Notifier
from synapse_login_module.standalone.server import LoginServer, build_server

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
        """Require ``--config``, and note where twistd logs to."""
        if self["config"] is None:
            raise SystemExit("synapse-login: --config FILE is required")
        self.logs_to_standard_output = log_output.is_standard_output(self.parent or {})


def makeService(options: Options) -> IService:
    """Build the server.

    :raise SystemExit: when the configuration has mistakes, with one line for each.
    """
    defer_tls()
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
        loaded = load_config(path, reactor, starts=True)
        facts = Facts(loaded)
        as_json = loaded.config.log.format == "json"
        if options["workers"] is None:
            alone = server = build_server(loaded, reactor, _files_as(twistd))
            on_hangup = partial(_renew_keys, loaded, facts, alone)
        else:
            from synapse_login_module.standalone.workers.supervisor import Supervisor

            parent = server = Supervisor(
                path,
                loaded,
                options["workers"],
                reactor,
                notifier,
                partial(_serves, loaded, facts, launch),
                lambda reloaded: _say(reloaded, facts, "reload"),
                launch.fail,
                relay_output=as_json or not options.logs_to_standard_output,
            )
            on_hangup = parent.reload
        launch.log_by(
            log_output.observer_for(twistd, loaded.config.log.format, running),
            log_too=as_json or not options.logs_to_standard_output,
        )
    except ConfigError as error:
        raise SystemExit(error.lines(f"{PROGRAM}: {path}: ")) from None
    except Exception as error:  # for instance of a plugin; there is no log yet
        raise SystemExit(f"{PROGRAM}: {path}: {described(error)}") from None
    for warning in modes.warnings(loaded.given, path):
        Logger().warn("{path}: {warning}", path=path, warning=warning.line)
    if as_json:
        log_capture.capture()
    launch.begin()
    act_on(signal.SIGHUP, running, on_hangup)
    # Twisted installs its own handler of SIGTERM when the reactor starts. With that one, twistd
    # ends by the signal and not with status 0.
    running.callWhenRunning(act_on, signal.SIGTERM, running, lambda: stop(running))
    if options["workers"] is None:
        running.callWhenRunning(notifier.ready)
        running.callWhenRunning(_serves, loaded, facts, launch)
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


def _serves(loaded: LoadedConfig, facts: Facts, launch: Launch) -> None:
    """Report that the server serves, and log what it is."""
    launch.serves()
    _say(loaded, facts, "start")


def _say(
    loaded: LoadedConfig, facts: Facts, at: str, accounts: Sequence[int | None] | None = None
) -> None:
    """Log the facts. A plugin's error in one is logged too, and the server goes on."""
    try:
        start_lines.say(facts.of(loaded, accounts), at)
    except Exception:
        Logger().failure("{at}: the server serves, but cannot say what it is", at=at)


def _renew_keys(loaded: LoadedConfig, facts: Facts, server: LoginServer) -> None:
    """Read the key file again, and say what this server is."""
    keys = server.keys
    keys.renew()
    Logger().info(
        "SIGHUP: new tokens are under key {newest};"
        " without --workers the rest of the configuration is read at the start alone",
        newest=keys.newest,
    )
    counted = start_lines.accounts_now(server.providers)
    counted.addCallback(lambda accounts: _say(loaded, facts, "reload", accounts))
    counted.addErrback(lambda failure: Logger().failure("the accounts were not counted", failure))
