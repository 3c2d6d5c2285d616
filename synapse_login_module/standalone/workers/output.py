"""The output of a worker, as its parent takes it into the log."""

from __future__ import annotations

import re
from collections.abc import Iterator

from twisted.logger import Logger, LogLevel

from synapse_login_module.audit import LINE
from synapse_login_module.config.settings import LogFormat
from synapse_login_module.standalone import log_json

STANDARD_OUTPUT, STANDARD_ERROR = OUTPUTS = 1, 2

_LINE = re.compile(r"\S+ \[(?P<system>[^\]]*)\] (?P<text>.*)")
_LONGEST_LINE = 16 * 2**20
"""In bytes. A longer line is written in pieces, so that the parent's memory has a bound."""

_log = Logger("synapse_login_module.standalone.workers.process.WorkerProcess")
_standard_error = Logger("stderr")


class WorkerOutput:
    """Splits one descriptor's output into lines, and logs each.

    :param descriptor: ``STANDARD_OUTPUT`` or ``STANDARD_ERROR``.
    :param form: the form of the log. With ``json``, a worker writes only its log to its standard
        output: each line of that is passed on as it is.
    :param number: the number of the worker.
    """

    def __init__(self, descriptor: int, form: LogFormat, number: int) -> None:
        self._passes_on = form == "json" and descriptor == STANDARD_OUTPUT
        self._wraps = form == "json"
        self._number = number
        self._begun: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, pid: int | None) -> None:
        """Log the lines that have ended, and keep the rest."""
        for line in self._lines(data):
            self._log(line, pid)

    def end(self, pid: int | None) -> None:
        """Log the rest, which has no end of line."""
        if self._size:
            self.feed(b"\n", pid)

    def _lines(self, data: bytes) -> Iterator[bytes]:
        *ended, rest = data.split(b"\n")
        for line in ended:
            yield b"".join((*self._begun, line))
            self._begun, self._size = [], 0
        if rest:
            self._begun.append(rest)
            self._size += len(rest)
        if self._size >= _LONGEST_LINE:
            yield b"".join(self._begun)
            self._begun, self._size = [], 0

    def _log(self, line: bytes, pid: int | None) -> None:
        text = line.decode("utf-8", "backslashreplace" if self._wraps else "replace")
        if self._passes_on and log_json.is_line(text):
            _log.info("", **{log_json.READY: text})
        elif self._wraps:
            about = {log_json.WORKER: self._number, log_json.PID: pid}
            _standard_error.emit(LogLevel.error, LINE, line=text, **about)
        else:
            match = _LINE.match(text)
            system, text = match.groups() if match else (f"worker={self._number} pid={pid}", text)
            _log.info("{text}", text=text, log_system=system)
