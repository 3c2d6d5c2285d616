"""Services that run while a block of code does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from twisted.application.service import IService
from twisted.internet.defer import maybeDeferred


@asynccontextmanager
async def running(*parts: object) -> AsyncIterator[Callable[[object], None]]:
    """Start parts in their order; at the end of the block, stop them in the reverse order.

    Parts that are no services are left out.

    :return: a function that starts one more part, to be stopped with the others.
    """
    started: list[IService] = []

    def start(part: object) -> None:
        if IService.providedBy(part):
            service = IService(part)
            started.append(service)
            service.startService()

    try:
        for part in parts:
            start(part)
        yield start
    finally:
        for service in reversed(started):
            await maybeDeferred(service.stopService)
