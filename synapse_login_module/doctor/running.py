"""Runs checks side by side, each with a deadline and a place for its findings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late

from synapse_login_module.common.concurrency import at_once
from synapse_login_module.errors import described
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import failed

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One check, which does not depend on others.

    :param area: the area of its findings.
    :param what: what it looks at, for when it does not end.
    :param work: begins it.
    """

    area: str
    what: str
    work: Callable[[], Awaitable[Sequence[Finding]]]


async def run_checks(checks: Sequence[Check], reactor: Any, seconds: float) -> list[Finding]:
    """Run checks side by side; return the findings in the order of the checks.

    :param seconds: the deadline of each.
    """

    async def run(check: Check) -> list[Finding]:
        try:
            found = await in_time(check.work(), reactor, seconds)
        except (Late, CancelledError):
            advice = "see whether it hangs, or raise --timeout"
            problem = failed(check.what, f"it did not end within {seconds:g} seconds", advice)
            return [replace(problem, area=check.area)]
        except Exception as error:  # of a third party's plugin, for instance
            advice = "this is a mistake in a program: report it where that program comes from"
            return [replace(failed(check.what, described(error), advice), area=check.area)]
        return [replace(each, area=each.area or check.area) for each in found]

    if not checks:
        return []
    found = await at_once(len(checks), run, checks)
    return [each for findings in found for each in findings]


async def in_time(work: Awaitable[T], reactor: Any, seconds: float) -> T:
    """Wait for some work.

    :raise twisted.internet.defer.TimeoutError: after these seconds; the work is cancelled then.
    """

    async def wait() -> T:
        return await work

    return await Deferred.fromCoroutine(wait()).addTimeout(seconds, reactor)
