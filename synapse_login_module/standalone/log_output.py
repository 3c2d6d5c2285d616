"""Where the log goes, and in which form: standard output or twistd's log file, text or JSON."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any

from twisted.logger import FileLogObserver, ILogObserver
from twisted.python.logfile import LogFile

from synapse_login_module.config.settings import LogFormat
from synapse_login_module.errors import ConfigError
from synapse_login_module.standalone import log_format
from synapse_login_module.standalone.reactor import act_on

_TWISTDS_FILE = "twistd.log"
"""Where twistd logs as a daemon that is not told where to."""


def is_standard_output(twistd: Mapping[str, Any]) -> bool:
    """Return whether twistd's options send the log to standard output."""
    elsewhere = {twistd.get(option) for option in ("logger", "logfile", "syslog")}
    return bool(twistd.get("nodaemon")) and elsewhere <= {None, 0, "", "-"}


def observer_for(twistd: Mapping[str, Any], form: LogFormat, reactor: Any) -> ILogObserver | None:
    """Build the observer that writes the log; ``None`` where twistd's own does.

    :param twistd: twistd's options.
    :raise ConfigError: where twistd's options choose another form than JSON, or a daemon cannot log
        there.
    """
    if not twistd:  # a test or another program runs the services
        return None
    on_standard_output = is_standard_output(twistd)
    if form == "text":
        return log_format.standard_output() if on_standard_output else None
    for option in ("logger", "syslog"):
        if twistd.get(option):
            raise ConfigError(
                "log.format", f"json is for standard output and --logfile, not for --{option}"
            )
    from synapse_login_module.standalone.log_json import EventJSON

    if on_standard_output:
        return FileLogObserver(claim_standard_output(), EventJSON())
    name = twistd.get("logfile") or _TWISTDS_FILE
    if name == "-":
        raise ConfigError("log.format", "a process in the background has no standard output")
    file = LogFile.fromFullPath(name)
    # As twistd does, unless somebody else handles the signal.
    if not signal.getsignal(signal.SIGUSR1):
        act_on(signal.SIGUSR1, reactor, file.rotate)
    return FileLogObserver(file, EventJSON())


def claim_standard_output() -> IO[str]:
    """Return standard output, which from now on only the log writes to.

    What libraries and child processes write to its descriptor comes out on standard error, so that
    it cannot end up within a line.
    """
    sys.stdout.flush()
    output, error = 1, 2
    claimed = os.dup(output)
    os.dup2(error, output)
    return os.fdopen(claimed, "w", encoding="ascii")
