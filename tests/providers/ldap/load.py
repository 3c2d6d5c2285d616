"""Logins that go on while a server is restarted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from synapse_login_module.errors import ProviderUnavailable
from tests.providers.ldap.case import reactor
from tests.support.waiting import until

_AT_ONCE = 4
_ENOUGH = 8


async def restart_under_load(
    log_in: Callable[[], Awaitable[object]],
    stop: Callable[[], object],
    start: Callable[[], Awaitable[object]],
) -> None:
    """Log in all the time, while a server stops and starts again.

    Each login has to succeed or be an outage. There have to be outages, and logins afterwards.

    :param log_in: fails when a login has another outcome.
    """
    successes = outages = 0
    running = True

    async def keep_logging_in() -> None:
        nonlocal successes, outages
        while running:
            try:
                await log_in()
            except ProviderUnavailable:
                outages += 1
                await deferLater(reactor, 0.05)
            else:
                successes += 1

    load = gatherResults([Deferred.fromCoroutine(keep_logging_in()) for _ in range(_AT_ONCE)])
    await until(lambda: load.called or successes >= _ENOUGH, "logins before the restart")
    stop()
    await until(lambda: load.called or outages >= _AT_ONCE, "outages")
    before = successes
    await start()
    await until(lambda: load.called or successes >= before + _ENOUGH, "logins after the restart")
    running = False
    await load
