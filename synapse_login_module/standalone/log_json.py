"""The log as JSON: one object a line, in ASCII (RFC 8259; times by RFC 3339, in UTC).

ASCII escapes every character that some reader takes for the end of a line. Text of any kind
therefore stays within its line, and within its field.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from string import Formatter
from typing import Any

from twisted.logger import LogEvent, formatEvent

from synapse_login_module.audit import LINE

READY = "log_json"
"""The key of an event whose value is a finished line, without its end: one of a worker's."""

WORKER, PID = "log_worker", "log_pid"
"""The keys of an event about what another process wrote: the worker's number, the process id."""

_OWN = frozenset(
    ("time", "level", "logger", "pid", "worker", "message", "traceback"),
)
"""The names that every line may have. A field of the same name gets an underscore at its end."""

_NOT_FIELDS = frozenset(("line", "isError", "system", "format"))
"""What is no field of an event of the format ``LINE``: its text, and the keys that Twisted adds for
old observers.
"""

_NAMES_OF_OLD = frozenset(("time", "message"))
_HALF = "\\ud"
"""How a surrogate begins, in JSON in ASCII."""

_DEEPEST = 8


class EventJSON:
    """Formats events as lines of JSON; caches the text of the current second.

    :param worker: the number of this worker; ``None`` in a process that is none.
    """

    def __init__(self, worker: int | None = None) -> None:
        self._process = _process(os.getpid(), worker)
        self._second: int | None = None
        self._written = ""

    def __call__(self, event: LogEvent) -> str | None:
        """Return the line of an event; ``None`` for one without any text, as Twisted does.

        An event that cannot be formatted gives a line that says so.
        """
        ready = event.get(READY)
        if ready is not None:
            return f"{ready}\n"
        try:
            return self._line(event)
        except Exception as error:
            fields = {"message": f"a log event could not be written: {type(error).__name__}"}
            return f"{self._head(event)}{_ENCODE(fields)[1:]}\n"

    def _line(self, event: LogEvent) -> str | None:
        if event.get("log_format") == LINE and "outcome" in event and "address" in event:
            return f"{self._head(event)}{_attempt_line(event)}\n"
        message = formatEvent(event)
        failure = event.get("log_failure")
        if not message and failure is None:
            return None
        fields = _fields(event)
        fields["message"] = message
        if failure is not None:
            fields["message"] = message or _attempt(lambda: failure.getErrorMessage())
            fields["traceback"] = _attempt(lambda: failure.getTraceback())
        return f"{self._head(event)}{_object(fields)[1:]}\n"

    def _head(self, event: LogEvent) -> str:
        """Return the beginning of a line, up to the comma before the fields.

        fail2ban's filter expects all of this before any text that a client chose.
        """
        origin = _origin(
            _text(getattr(event.get("log_level"), "name", "info")),
            _text(event.get("log_namespace") or event.get("log_system") or "-"),
        )
        process = _process(event[PID], event[WORKER]) if WORKER in event else self._process
        return f'{{"time":"{self._time(event.get("log_time"))}",{origin},{process},'

    def _time(self, when: Any) -> str:
        if type(when) is not float or not 0 <= when < _END_OF_TIME:
            when = time.time()
        second = int(when)
        if second != self._second:
            self._second = second
            self._written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._written}.{int((when - second) * 1000):03d}Z"


_END_OF_TIME = 253402300800.0
"""The beginning of the year 10000, which RFC 3339 cannot write."""


def is_line(text: str) -> bool:
    """Return whether a text is a whole line of JSON as written here."""
    try:
        return text.startswith('{"time":"') and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _attempt_line(event: LogEvent) -> str:
    """Encode the fields of an audit line, which are text.

    This takes a quarter of the time of a general encoder. There is one for each request.
    """
    kind, message = _kind(event["event"], event["outcome"], event["reason"])
    line = (
        f'{kind},"address":{_quote(event["address"])},"provider":{_quote(event["provider"])}'
        f',"user":{_quote(event["user"])},"device":{_quote(event["device"])}'
    )
    if "limit" in event:
        line += "".join(f',"{each}":{_quote(event[each])}' for each in ("limit", "whose", "until"))
    return f'{line},"message":{message}}}'


@lru_cache(maxsize=1024)
def _kind(event: str, outcome: str, reason: str) -> tuple[str, str]:
    """Encode the three words of an audit line as its first fields, and as its message."""
    fields = {"event": event, "outcome": outcome, "reason": reason}
    return _object(fields)[1:-1], _quote(" ".join(fields.values()))


def _quote(text: str) -> str:
    quoted = encode_basestring_ascii(text)
    return encode_basestring_ascii(_plain(text)) if _HALF in quoted else quoted


def _fields(event: LogEvent) -> dict[str, Any]:
    """Return the fields of an event: those that its format names.

    Others may be objects of any size, or hold secrets that the text of the line does not show.
    Events of the format ``LINE`` are of this package, and all that they hold is meant to be seen.
    """
    pattern = event.get("log_format")
    if pattern == LINE:
        names: Any = [
            each for each in event if each not in _NOT_FIELDS and each not in _NAMES_OF_OLD
        ]
    else:
        names = _names(pattern) if isinstance(pattern, str) else ()
    return {
        f"{name}_" if name in _OWN else name: event[name]
        for name in names
        if name in event and not name.startswith("log_")
    }


@lru_cache(maxsize=1024)
def _names(pattern: str) -> tuple[str, ...]:
    """Return the keys that a format shows as they are."""
    try:
        parsed = list(Formatter().parse(pattern))
    except ValueError:
        return ()
    return tuple(dict.fromkeys(name for _, name, _, _ in parsed if name and name.isidentifier()))


@lru_cache(maxsize=1024)
def _origin(level: str, where: str) -> str:
    return _object({"level": level, "logger": where})[1:-1]


def _process(pid: object, worker: object) -> str:
    names = {"pid": pid} if worker is None else {"pid": pid, "worker": worker}
    return _object(names)[1:-1]


def _object(fields: Mapping[str, Any]) -> str:
    """Encode fields. What JSON has no form for becomes text."""
    try:
        encoded = _ENCODE(fields)
    except (TypeError, ValueError, RecursionError):
        return _ENCODE(_plain(fields))
    return _ENCODE(_plain(fields)) if _HALF in encoded else encoded


def _plain(value: Any, depth: int = 0) -> Any:
    r"""Make a value that every reader of JSON accepts.

    A surrogate without its other half becomes text, such as ``\udc80``: strict readers reject a
    line with one. Numbers that are none, and integers too long to write, become text too.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _LONGEST_NUMBER else _plain(hex(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {_plain(_text(key)): _plain(each, depth + 1) for key, each in value.items()}
    if depth < _DEEPEST and isinstance(value, (list, tuple)):
        return [_plain(each, depth + 1) for each in value]
    return _plain(_text(value))


_LONGEST_NUMBER = 14_000
"""In bits. Python refuses to write longer ones in decimal."""


def _text(value: object) -> str:
    """Return any value as text, whatever it is and does."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "backslashreplace")
    return _attempt(lambda: str(value), type(value).__name__)


def _attempt(make: Any, otherwise: str = "text") -> str:
    try:
        return str(make())
    except Exception as error:
        return f"({otherwise} that cannot be shown: {type(error).__name__})"


_ENCODE = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_text).encode
