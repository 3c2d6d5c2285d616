"""Builds what the standalone server needs for a homeserver that delegates to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from synapse_login_module.accounts.rules import LinkRules
from synapse_login_module.compose import build_plugin
from synapse_login_module.config.validation import config_path
from synapse_login_module.errors import HomeserverUnavailable, described
from synapse_login_module.homeservers.admission import Admission
from synapse_login_module.homeservers.outbox import Outbox
from synapse_login_module.homeservers.sessions import HomeserverSessions
from synapse_login_module.interfaces import IHomeserver
from synapse_login_module.plugin import Environment
from synapse_login_module.standalone.plan import LoadedConfig
from synapse_login_module.stores.names import new_device_id

CHECK_INTERVAL = 60.0
"""Seconds between two checks of a homeserver that is away or set up wrongly."""


class Delegation(NamedTuple):
    """The homeserver, and the parts that keep its accounts and devices in step with the sessions.

    :param admission: decides which account of the homeserver a login is for.
    :param services: to be started after the store and stopped before it.
    """

    homeserver: IHomeserver
    sessions: HomeserverSessions
    admission: Admission
    services: Sequence[IService]


def delegation_of(
    loaded: LoadedConfig, environment: Environment, store: Any, reactor: Any
) -> Delegation | None:
    """Build the homeserver and its parts; ``None`` where the configuration has no ``homeserver``.

    :param store: the token store, an ``IDelegatedStore``.
    """
    if loaded.homeserver is None:
        return None
    config = loaded.config
    homeserver = config_path("homeserver.config", build_plugin, loaded.homeserver, environment)
    rules = LinkRules(config.existing_accounts, config.link_accounts)
    outbox = Outbox(store, homeserver, reactor)
    admission = Admission(homeserver, store, rules, partial(deferLater, reactor))
    sessions = HomeserverSessions(
        homeserver,
        admission,
        store,
        partial(new_device_id, environment.random),
        outbox.wake,
        outbox.settle,
        reactor,
    )
    services: list[IService] = [HomeserverCheck(homeserver, reactor), outbox]
    if IService.providedBy(homeserver):
        services.insert(0, homeserver)
    return Delegation(homeserver, sessions, admission, services)


class HomeserverCheck(Service):
    """Logs whether the homeserver is there, with the same secret.

    The server runs in any case: the homeserver may start later.

    :param homeserver: the homeserver.
    :param clock: schedules the checks, which end when all is well.
    """

    log = Logger()

    def __init__(self, homeserver: IHomeserver, clock: IReactorTime) -> None:
        self._homeserver = homeserver
        self._clock = clock
        self._next: IDelayedCall | None = None
        self._known: str | None = None

    def startService(self) -> None:
        """Check now, and again until all is well."""
        super().startService()
        self._check()

    def stopService(self) -> None:
        """Stop checking."""
        super().stopService()
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _check(self) -> None:
        Deferred.fromCoroutine(self._tell())

    async def _tell(self) -> None:
        """Log what is wrong if that is new, or that all is well."""
        try:
            problem = await self._homeserver.check()
        except HomeserverUnavailable as error:
            problem = str(error)
        except Exception as error:  # of a third party's homeserver
            problem = described(error)
        if not self.running:
            return
        if problem is None:
            # Whether it asks this server, its answers do not say.
            self.log.info(
                "homeserver: it is there, with the same secret; a line follows when it asks about"
                " a token"
            )
            return
        if problem != self._known:
            self.log.warn("homeserver: {problem}", problem=problem)
        self._known = problem
        self._next = self._clock.callLater(CHECK_INTERVAL, self._check)
