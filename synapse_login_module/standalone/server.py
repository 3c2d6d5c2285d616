"""Builds the standalone server, and starts and stops its parts in order."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from twisted.application.internet import TCPServer
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from synapse_login_module.accounts.assembly import Watch, watch_over
from synapse_login_module.accounts.linked import LinkedAccounts, StoreEndings
from synapse_login_module.accounts.looking import no_version
from synapse_login_module.accounts.metering import CountedEndings, sweep_meters
from synapse_login_module.accounts.watch import Endings
from synapse_login_module.audit import AuditLog
from synapse_login_module.compose import (
    Totals,
    audit_log,
    build_plugin,
    build_providers,
    chain,
    hashing_pool,
    login_service,
    meter,
)
from synapse_login_module.config import listen as listening
from synapse_login_module.config.settings import Config
from synapse_login_module.config.validation import config_path
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import (
    IAccounts,
    IHousekeeping,
    IPasswordProvider,
    ITokenStore,
)
from synapse_login_module.limits.token_bucket import Buckets, local_buckets
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.passwords import HashingPool
from synapse_login_module.plugin import Environment
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.standalone.delegation import Delegation, delegation_of
from synapse_login_module.standalone.measuring import Measuring, measuring_alone
from synapse_login_module.standalone.plan import LoadedConfig
from synapse_login_module.standalone.pruning import Pruner
from synapse_login_module.standalone.reactor import WallClock
from synapse_login_module.standalone.sites import build_sites
from synapse_login_module.standalone.token_keys import SharesKeys
from synapse_login_module.standalone.upkeep import JudgeService, Upkeep, new_holder
from synapse_login_module.tokens import keyfile
from synapse_login_module.tokens.format import KeyRing
from synapse_login_module.web.site import LoginSite


def build_server(
    loaded: LoadedConfig,
    reactor: Any,
    files_as: AbstractContextManager[None] | None = None,
    listen: Callable[[int, LoginSite], IService] | None = None,
    buckets: Callable[[str], Buckets] = local_buckets,
    measuring: Measuring | None = None,
) -> LoginServer:
    """Build the standalone server. Makes the key file and the store's files where they are missing.

    :param files_as: a context entered while files are made, to make them as the server's user.
    :param listen: makes the listening service for the index of an endpoint description; by default
        Twisted's service for that description.
    :param buckets: makes the buckets of a rate limit on this machine, from its name.
    :param measuring: counts and measures; by default as a server of one process does.
    """
    config = loaded.config
    measuring = measuring or measuring_alone(config)
    with files_as or nullcontext():
        backends = build_backends(loaded, reactor, measuring.metrics)
    audit = audit_log(measuring.metrics, reactor)
    delegation = backends.delegation
    service = login_service(
        config,
        backends.accounts,
        backends.store,
        backends.hashing,
        audit,
        reactor,
        buckets,
        host=delegation and delegation.sessions,
        end_all=delegation and delegation.sessions.end_all,
        version_of=no_version if backends.watch is None else backends.watch.version_of,
    )
    if delegation is not None:
        delegation.sessions.lock_changed = service.looks.saw_lock
    public, internal = build_sites(
        config, service, delegation, backends.store, backends.keys, reactor, measuring
    )
    sites = [internal if each.is_internal else public for each in config.listeners]
    return LoginServer(
        [
            *backends.parts,
            SharesKeys(backends.store),
            *(delegation.services if delegation is not None else ()),
            *upkeep_of(backends, config, reactor, measuring.metrics),
            *measuring.services,
        ],
        [
            (
                each.path,
                listen(index, sites[index])
                if listen
                else _listening_service(each.description, sites[index], reactor),
            )
            for index, each in enumerate(config.listeners)
        ],
        [public, internal],
        audit,
        backends.totals,
        backends.keys,
        backends.providers,
    )


def _listening_service(description: str, site: LoginSite, reactor: Any) -> IService:
    """Return Twisted's service for an endpoint description."""
    plain = listening.plain_tcp(description)
    if plain is not None:
        tcp: IService = TCPServer(plain.port, site, interface=plain.interface, reactor=reactor)
        return tcp
    from twisted.application.strports import service

    return service(description, site, reactor)


class Backends(NamedTuple):
    """The accounts, the token store and the hashing pool.

    :param parts: the services among them and the providers: to be started before use, and stopped
        at the end.
    :param totals: counts of the providers' outcomes.
    :param keys: the token keys.
    :param watch: the watch over the accounts; ``None`` where the store is no ``IHousekeeping``.
    :param delegation: the homeserver that delegates to this server; ``None`` without one.
    :param providers: the password providers, in the order of the configuration.
    """

    accounts: IAccounts
    store: ITokenStore
    hashing: HashingPool
    parts: Sequence[IService]
    totals: Totals
    keys: KeyRing
    watch: Watch | None
    delegation: Delegation | None
    providers: Sequence[IPasswordProvider]


def build_backends(loaded: LoadedConfig, reactor: Any, metrics: Metrics | None = None) -> Backends:
    """Build the accounts, the store and the pool. Makes files where they are missing.

    :param metrics: counts and measures; by default nothing is kept.
    """
    metrics = metrics or Metrics()
    hashing = hashing_pool(loaded.config, reactor, metrics)
    environment = environment_of(loaded, hashing, reactor, metrics)
    plugins = loaded.config.password_providers
    providers = build_providers(plugins, loaded.providers, environment)
    store = config_path("token_store.config", build_plugin, loaded.store, environment)
    totals: Totals = Counter()
    vouching = chain(plugins, providers, hashing, reactor, meter(totals, metrics))
    delegation = delegation_of(loaded, environment, store, reactor)
    endings = StoreEndings(store) if delegation is None else delegation.sessions
    watch = watch_of(store, loaded.config, providers, vouching, reactor, endings, metrics)
    accounts = (
        LinkedAccounts(vouching, store)
        if watch is None
        else LinkedAccounts(vouching, store, watch.judge.judge)
    )
    return Backends(
        accounts,
        store,
        hashing,
        [part for part in (hashing, *providers, store) if IService.providedBy(part)],
        totals,
        environment.required_keys,
        watch,
        delegation,
        providers,
    )


def watch_of(
    store: Any,
    config: Config,
    providers: Sequence[IPasswordProvider],
    vouching: ProviderChain,
    reactor: Any,
    endings: Endings | None = None,
    metrics: Metrics | None = None,
) -> Watch | None:
    """Build the watch over the accounts; ``None`` where the store is no ``IHousekeeping``.

    :param vouching: the provider chain.
    :param endings: ends sessions; by default those of the store alone.
    :param metrics: counts and measures; by default nothing is kept.
    """
    if not is_housekept(store):
        return None
    metrics = metrics or Metrics()
    return watch_over(
        store.link_watch,
        config,
        providers,
        vouching,
        CountedEndings(endings or StoreEndings(store), metrics),
        WallClock(reactor),
        *sweep_meters(metrics),
    )


def is_housekept(store: Any) -> bool:
    """Return whether a store needs housekeeping beside answering requests."""
    return bool(IHousekeeping.providedBy(store))


def upkeep_of(
    backends: Backends, config: Config, reactor: Any, metrics: Metrics | None = None
) -> Sequence[IService]:
    """Build the services that do the housekeeping for as long as the server runs.

    :param metrics: counts the rows that are removed; by default nothing is kept.
    """
    pruned = (metrics or Metrics()).pruned
    if backends.watch is None:
        LoginServer.log.warn(
            "the token store provides no IHousekeeping: accounts are checked only when their"
            " sessions are used, and rows of ended sessions are never removed"
        )
        return []
    services: list[IService] = [backends.watch.sweep]
    if config.tokens.keep_ended is not None:
        keep_ended = config.tokens.keep_ended / 1000
        services.append(
            Pruner(
                backends.store,
                keep_ended,
                reactor,
                lambda kind, number: pruned.of(kind).inc(number),
            )
        )
    return [
        JudgeService(backends.watch.judge),
        Upkeep(backends.store, services, reactor, new_holder()),
    ]


def environment_of(
    loaded: LoadedConfig, hashing: HashingPool, reactor: Any, metrics: Metrics | None = None
) -> Environment:
    """Build the environment for the plugins; makes the key file where there is none.

    :param metrics: counts and measures; by default nothing is kept.
    """
    return Environment(
        server_name=loaded.config.server_name,
        reactor=reactor,
        hashing=hashing,
        clock=time.time,
        random=os.urandom,
        policy=loaded.config.tokens.policy(),
        keys=config_path("tokens.key_file", keyfile.load_or_make, loaded.key_file, os.urandom),
        delegated=loaded.config.homeserver is not None,
        public_baseurl=loaded.config.public_baseurl,
        metrics=metrics or Metrics(),
    )


class _Part(Service):
    """A nameless service around a part, since a parent rejects two children of the same name.

    :param part: the service that is started and stopped.
    """

    def __init__(self, part: IService) -> None:
        self._part = part

    def privilegedStartService(self) -> None:
        """Start what needs privileges in the part."""
        self._part.privilegedStartService()

    def startService(self) -> None:
        """Start the part."""
        super().startService()
        self._part.startService()

    def stopService(self) -> Any:
        """Stop the part; may return a Deferred."""
        super().stopService()
        return self._part.stopService()


class LoginServer(MultiService):
    """The standalone server: starts its parts before it listens, and stops them after the last
    response.

    :param parts: the services behind the site.
    :param listeners: the listening services, with their paths in the configuration.
    :param sites: the sites that they serve.
    :param audit: the audit log, whose totals are logged at the end.
    :param totals: counts of the providers' outcomes, logged at the end as well.
    :ivar keys: the token keys; they are reloaded when their file changes.
    :ivar providers: the password providers, in the order of the configuration.
    :ivar grace: how many seconds idle connections stay open at the end, for requests that are on
        their way.
    """

    grace = 1.0

    log = Logger()

    def __init__(
        self,
        parts: Sequence[IService],
        listeners: Sequence[tuple[str, IService]],
        sites: Sequence[LoginSite],
        audit: AuditLog,
        totals: Totals,
        keys: KeyRing,
        providers: Sequence[IPasswordProvider] = (),
    ) -> None:
        super().__init__()
        self.keys = keys
        self.providers = providers
        for part in parts:
            _Part(part).setServiceParent(self)
        self._listeners = listeners
        self._sites = sites
        self._audit = audit
        self._totals = totals

    def privilegedStartService(self) -> None:
        """Bind the listening sockets.

        :raise ConfigError: when one cannot be bound.
        """
        for path, listener in self._listeners:
            try:
                listener.privilegedStartService()
            except (CannotListenError, OSError, OverflowError, ValueError) as error:
                raise ConfigError(path, str(error)) from None
        super().privilegedStartService()

    def startService(self) -> None:
        """Start the parts, then the listeners."""
        super().startService()
        # All objects of now live as long as the process, so the collector may skip them.
        gc.collect()
        gc.freeze()
        for _, listener in self._listeners:
            listener.startService()

    def stopService(self) -> Deferred[None]:
        """Stop listening, answer the requests in flight, then stop the parts."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop_parts(self) -> None:
        """Stop the parts, each when all that use it have stopped.

        A ``MultiService`` would stop all at once. The outbox could then not write to the store that
        it has just deleted a device.
        """
        Service.stopService(self)
        for part in reversed(list(self)):
            try:
                await maybeDeferred(part.stopService)
            except Exception:  # the others are stopped all the same
                self.log.failure("a part of the server does not stop properly")

    async def _stop(self) -> None:
        await DeferredList([maybeDeferred(listener.stopService) for _, listener in self._listeners])
        await gatherResults([site.drain(self.grace) for site in self._sites])
        await self._stop_parts()
        self._audit.flush()
        for (event, outcome, reason), count in sorted(self._audit.counts.items()):
            # No field is called "event": each attempt has a line of its own.
            self.log.info(
                "total: {total} outcome={outcome} reason={reason} count={count}",
                total=event,
                outcome=outcome,
                reason=reason,
                count=count,
            )
        for (provider, operation, outcome), count in sorted(self._totals.items()):
            self.log.info(
                "total: provider={provider} {operation} outcome={outcome} count={count}",
                provider=provider,
                operation=operation,
                outcome=outcome,
                count=count,
            )
