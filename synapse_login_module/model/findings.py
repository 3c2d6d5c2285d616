"""What a diagnosis finds: one line each, for the person who runs the service."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

NO_ACCOUNT = "synapse-login-module-doctor"
"""A local part, and an id, that no account has."""

CLOCK_SLACK = 5.0
"""Seconds that the clocks of two machines may differ."""


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """The service works. It will fail, or is less safe or slower than it could be."""
    FAILED = "failed"
    """The service does not work, or a part of it does not."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. No text of it holds a secret.

    :param level: how bad it is.
    :param what: what was looked at, in a few words.
    :param found: what was found there.
    :param advice: what to do about it; empty where there is nothing to do.
    :param area: the part of the service that it belongs to; empty for the part that was asked.
    """

    level: Level
    what: str
    found: str
    advice: str = ""
    area: str = ""

    @property
    def line(self) -> str:
        """The finding as one line of a log, ``WHAT: FOUND: ADVICE``, without the empty parts."""
        return ": ".join(filter(None, (self.what, self.found, self.advice)))


def good(what: str, found: str, area: str = "") -> Finding:
    """Report that something is well."""
    return Finding(Level.OK, what, found, area=area)


def warning(what: str, found: str, advice: str, area: str = "") -> Finding:
    """Report something that works, but should be different."""
    return Finding(Level.WARNING, what, found, advice, area)


def failed(what: str, found: str, advice: str, area: str = "") -> Finding:
    """Report something that does not work."""
    return Finding(Level.FAILED, what, found, advice, area)


def in_milliseconds(seconds: float) -> str:
    """Write a duration, such as ``0.7 ms`` or ``34 ms``."""
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def in_units(seconds: float) -> str:
    """Write a duration of any length, such as ``3 seconds`` or ``2 hours``."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        # Rounded first, so that a little less than two hours is not 120 minutes.
        if seconds + size / 2 >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def on_one_line(text: object, longest: int = 300) -> str:
    """Write a text, such as an error, on one line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= longest else f"{line[:longest]}…"


def has_failure(findings: Iterable[Finding]) -> bool:
    """Return whether anything has failed."""
    return any(each.level is Level.FAILED for each in findings)
