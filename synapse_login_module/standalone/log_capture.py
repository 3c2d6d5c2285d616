"""Sends what Python reports elsewhere to Twisted's log, where each report is one event.

Without this, a record or a traceback comes over standard error, and each of its lines is an event.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from synapse_login_module.audit import LINE

_LEVELS = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)


class ToTwisted(logging.Handler):
    """Makes a Twisted log event of each record of :mod:`logging`.

    :param log: makes a Twisted logger of a logger's name.
    """

    def __init__(self, log: Callable[[str], Logger] = Logger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Emit the event of a record, with its traceback if it has one."""
        try:
            text = record.getMessage()
        except Exception:  # the arguments do not fit the message
            text = str(record.msg)
        level = next((to for number, to in _LEVELS if record.levelno >= number), LogLevel.debug)
        failure = _failure(*record.exc_info) if record.exc_info else None
        fields = {} if failure is None else {"log_failure": failure}
        self._log(record.name).emit(level, LINE, line=text, **fields)


def capture() -> None:
    """Capture records of :mod:`logging`, and exceptions that nothing handles, also in threads."""
    logging.getLogger().addHandler(ToTwisted())
    log = Logger(namespace="python")

    def on_thread(given: threading.ExceptHookArgs) -> None:
        failure = _failure(given.exc_type, given.exc_value, given.exc_traceback)
        log.failure("unhandled in thread {name}", failure, name=given.thread and given.thread.name)

    def on_unraisable(given: Any) -> None:
        failure = _failure(given.exc_type, given.exc_value, given.exc_traceback)
        log.failure("ignored: {what}", failure, what=given.err_msg or "in a destructor")

    def on_end(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if not issubclass(kind, Exception):
            sys.__excepthook__(kind, error, traceback)
            return
        log.failure("unhandled", _failure(kind, error, traceback))

    threading.excepthook = on_thread
    sys.unraisablehook = on_unraisable
    sys.excepthook = on_end


def _failure(
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
) -> Failure | None:
    """Return an exception with its traceback as Twisted holds it; ``None`` if there is none."""
    if kind is None:
        return None
    return Failure(kind() if error is None else error, kind, traceback)
