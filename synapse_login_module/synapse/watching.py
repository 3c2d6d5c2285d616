"""Builds the watch over linked accounts inside Synapse. Only the main process runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from synapse_login_module.accounts.assembly import watch_over
from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.metering import sweep_meters
from synapse_login_module.accounts.watch import Providers
from synapse_login_module.config.settings import ModuleConfig
from synapse_login_module.errors import StoreUnavailable
from synapse_login_module.interfaces import IPasswordProvider
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.synapse.admin_watch import AdministratorWatch
from synapse_login_module.synapse.administrators import Administrators
from synapse_login_module.synapse.api import Homeserver
from synapse_login_module.synapse.ending import HomeserverEndings, SessionEnding
from synapse_login_module.synapse.link_watch import SynapseLinkWatch
from synapse_login_module.synapse.wishes import WishService


class AccountWatch:
    """The watch over linked accounts: its judge, and the services that run in the background.

    :param judge: acts on every answer of a provider.
    :param services: the services to start with the watch and to stop with Synapse.
    :param reactor: the reactor that Synapse runs on.
    """

    log = Logger()

    def __init__(self, judge: Judge, services: Sequence[Service], reactor: Any) -> None:
        self.judge = judge
        self._services = services
        self._reactor = reactor

    def start(self) -> Deferred[None]:
        """Start the services, and stop them with Synapse. The tables have to exist."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        try:
            await self.judge.start()
        except StoreUnavailable as error:  # then the judge reads a link for every answer
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
    metrics: Metrics,
) -> AccountWatch:
    """Build the watch.

    :param given: the providers in the order of ``password_providers``, one for each entry.
    :param providers: the same providers as one.
    :param ending: ends sessions.
    :param metrics: counts and measures.
    """
    watch = SynapseLinkWatch(homeserver)
    endings = HomeserverEndings(homeserver, ending)
    questions, judge, sweep, _ = watch_over(
        watch,
        config,
        given,
        providers,
        endings,
        reactor,
        *sweep_meters(metrics),
    )
    return AccountWatch(
        judge,
        [
            sweep,
            WishService(homeserver, watch, questions, judge, endings, reactor),
            AdministratorWatch(
                homeserver,
                Administrators(homeserver),
                _by_name(config, given),
                config.tokens.account_check_interval / 1000,
                reactor,
            ),
        ],
        reactor,
    )


def _by_name(
    config: ModuleConfig, given: Sequence[IPasswordProvider]
) -> dict[str, IPasswordProvider]:
    """Map each name of each provider, current and former, to the provider."""
    return {
        name: provider
        for plugin, provider in zip(config.password_providers, given, strict=True)
        for name in plugin.names(provider.name)
    }
