"""Runs checks side by side, each with a timeout and a place for its findings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from twisted.application.service import IService
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as Late
from twisted.logger import Logger

from synapse_login_module.common.concurrency import at_once
from synapse_login_module.errors import described
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import failed

T = TypeVar("T")

_STOP_SECONDS = 2.0
_log = Logger()


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


async def run_checks(checks: Sequence[Check], reactor: Any, timeout: float) -> list[Finding]:
    """Run checks side by side; return the findings in the order of the checks.

    :param timeout: the seconds that each may take.
    """

    async def run(check: Check) -> list[Finding]:
        try:
            found = await in_time(check.work(), reactor, timeout)
        except (Late, CancelledError):
            advice = "see whether it hangs, or raise --timeout"
            problem = failed(check.what, f"it did not end within {timeout:g} seconds", advice)
            return [replace(problem, area=check.area)]
        except Exception as error:  # of a third party's plugin, for instance
            advice = "this is a mistake in a program: report it where that program comes from"
            return [replace(failed(check.what, described(error), advice), area=check.area)]
        return [replace(each, area=each.area or check.area) for each in found]

    if not checks:
        return []
    found = await at_once(len(checks), run, checks)
    return [each for findings in found for each in findings]


@asynccontextmanager
async def started(part: object, reactor: Any) -> AsyncIterator[None]:
    """Start a part of the service if it is a Twisted service, and stop it at the end.

    One that fails to stop, or hangs then, is logged. It takes away neither the findings nor the
    time of the other checks.
    """
    if not IService.providedBy(part):
        yield
        return
    service = IService(part)
    try:
        service.startService()
        yield
    finally:
        try:
            await in_time(maybeDeferred(service.stopService), reactor, _STOP_SECONDS)
        except Exception as error:  # of a third party's plugin, for instance
            _log.warn(
                "{part} did not stop: {problem}",
                part=type(part).__name__,
                problem=described(error),
            )


async def in_time(work: Awaitable[T], reactor: Any, seconds: float) -> T:
    """Wait for some work.

    :raise twisted.internet.defer.TimeoutError: after these seconds; the work is cancelled then.
    """

    async def wait() -> T:
        return await work

    return await Deferred.fromCoroutine(wait()).addTimeout(seconds, reactor)
