"""The watch over linked accounts inside Synapse, put together; for the main process alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import Counter, Gauge
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from synapse_login_module.accounts.assembly import watch_over
from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.sweep import AccountSweep
from synapse_login_module.accounts.watch import Providers, SweepMeter
from synapse_login_module.config.settings import ModuleConfig
from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.ending import HomeserverEndings, SessionEnding
from synapse_login_module.synapse.link_watch import SynapseLinkWatch
from synapse_login_module.synapse.wishes import WishService

LOOKED = Counter(
    "synapse_login_module_sweep_looked",
    "What providers said of linked accounts that were looked at in the background",
    ["provider", "outcome"],
)
LAG = Gauge(
    "synapse_login_module_sweep_lag_seconds",
    "How much later than account_check_interval says the oldest look at a linked account is due",
)
ENDED = Counter(
    "synapse_login_module_sessions_ended",
    "Access tokens that the module ended",
    ["reason"],
)
BRAKE = Gauge(
    "synapse_login_module_brake",
    "Whether the brake keeps accounts that have vanished: 1 it does, 0 it has none",
)
LINKS = Gauge(
    "synapse_login_module_links",
    "Linked accounts that are not gone",
    ["provider"],
)


class AccountWatch:
    """What watches over linked accounts.

    :ivar judge: what every answer of a provider has to go through.
    """

    log = Logger()

    def __init__(
        self, judge: Judge, services: Sequence[AccountSweep | WishService], reactor: Any
    ) -> None:
        self.judge = judge
        self._services = services
        self._reactor = reactor

    def start(self) -> Deferred[None]:
        """Begin, once the tables are there; and end with Synapse."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        try:
            await self.judge.start()
        except StoreUnavailable as error:  # the judge does without, if more slowly
            self.log.warn("cannot list linked accounts: {problem}", problem=str(error))
        for service in self._services:
            service.startService()
            self._reactor.addSystemEventTrigger("before", "shutdown", service.stopService)


def account_watch(
    homeserver: Homeserver,
    config: ModuleConfig,
    given: Sequence[IPasswordProvider],
    providers: Providers,
    ending: SessionEnding,
    reactor: Any,
) -> AccountWatch:
    """Put the watch together.

    :param given: the providers as the configuration names them, one for each of its entries.
    :param providers: the same as one.
    """
    watch = SynapseLinkWatch(homeserver)
    endings = HomeserverEndings(homeserver, ending)
    meter = SweepMeter(
        lag=LAG.set,
        brake=lambda on: BRAKE.set(int(on)),
        links=lambda provider, number: LINKS.labels(provider).set(number),
    )
    questions, judge, sweep = watch_over(
        watch,
        config,
        given,
        providers,
        endings,
        reactor,
        lambda *what: LOOKED.labels(*what).inc(),
        meter,
    )
    return AccountWatch(
        judge,
        [
            sweep,
            WishService(homeserver, watch, questions, judge, endings, reactor),
        ],
        reactor,
    )


def count_ended(reason: str) -> None:
    """Count an access token that has ended."""
    ENDED.labels(reason).inc()
