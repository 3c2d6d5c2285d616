"""The log lines of requests that fail because the store or the homeserver is unavailable."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.logger import Logger

from synapse_login_module.common.repeats import Omitted, Repeats
from synapse_login_module.errors import HomeserverUnavailable, StoreUnavailable

Outage = HomeserverUnavailable | StoreUnavailable
"""The errors whose text only the log has."""


class OutageLog:
    """Logs why requests get 503, in a bounded number of lines.

    :param clock: a clock, in seconds.
    """

    log = Logger()

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._repeats: Repeats[str] = Repeats(clock, self._write_omitted)

    def write(self, path: bytes, problem: Outage) -> None:
        """Log one request, or count it when there are too many of the same outage.

        :param path: of the request.
        """
        # The lines after the first one may quote what was asked.
        said = str(problem).partition("\n")[0]
        if self._repeats.is_written("outage", said):
            shown = path.decode("ascii", "backslashreplace")
            self.log.warn("503 at {path}: {problem}", path=shown, problem=said)

    def _write_omitted(self, omitted: Omitted[str]) -> None:
        self.log.warn(
            "more: 503 for {count} requests: {problem}",
            count=omitted.lines,
            problem=omitted.source or "several outages",
        )
