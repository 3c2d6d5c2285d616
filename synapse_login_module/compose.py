"""From a configuration to the running graph of objects: the only place that builds it."""

from __future__ import annotations

import gc
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from twisted.application.service import IService, MultiService, Service
from twisted.application.strports import service as listening_service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.reflect import namedAny

from synapse_login_module import openfiles
from synapse_login_module.audit import AuditLog
from synapse_login_module.config import listen, yaml_loader
from synapse_login_module.config import settings as configuration
from synapse_login_module.config.files import read_bytes
from synapse_login_module.config.settings import (
    Config,
    Limits,
    Plugin,
    ProviderPlugin,
    SharedConfig,
)
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IPasswordProvider, IRateLimits, ITokenStore
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.limits.token_bucket import Buckets, LocalBuckets
from synapse_login_module.login import LoginService
from synapse_login_module.passwords import HashingPool, check_password
from synapse_login_module.plugin import Environment
from synapse_login_module.providers.files.bcrypt import BcryptConfig
from synapse_login_module.providers.wrappers.cache import PositiveCache
from synapse_login_module.providers.wrappers.chain import NextOnUnavailable, ProviderChain
from synapse_login_module.providers.wrappers.circuit_breaker import CircuitBreaker
from synapse_login_module.providers.wrappers.coalescing import TogetherProvider
from synapse_login_module.providers.wrappers.metrics import Meter, MeteredProvider
from synapse_login_module.providers.wrappers.timeout import DeadlineProvider
from synapse_login_module.tokens import keyfile
from synapse_login_module.tokens.format import KeyRing
from synapse_login_module.web.client import Clients
from synapse_login_module.web.handlers import Endpoints
from synapse_login_module.web.routes import standalone_root
from synapse_login_module.web.site import LoginSite, SiteLimits

T = TypeVar("T")

EXAMPLE_USER = ("cheeky_monkey", "ilovebananas")
"""The account of the specification's example, whose password everybody knows."""

Totals = Counter[tuple[str, ...]]
"""How often what was said by a provider: its name, what it was asked, and the outcome."""

Built = tuple[type[Any], Any]
"""A plugin class and its checked configuration."""


@dataclass(frozen=True)
class Plan:
    """A configuration that has been checked as far as it can be without starting.

    :param document: what the configuration file held.
    :param folder: what relative paths are relative to.
    """

    document: bytes = field(repr=False)
    config: Config
    folder: Path
    providers: Sequence[Built]
    store: Built

    @property
    def key_file(self) -> Path:
        """Where the token keys are."""
        return self.folder / self.config.tokens.key_file


def load(path: Path, reactor: Any) -> Plan:
    """Read and check a configuration file; nothing is written and nothing started.

    :raise ConfigError: for the first thing wrong with it.
    """
    plan = check(read_bytes(path), path)
    for index, description in enumerate(plan.config.listen):
        _at(f"listen.{index}", listen.check, reactor, description)
    return plan


def check(document: bytes, path: Path) -> Plan:
    """Check what a configuration file holds, but for where it says to listen.

    :raise ConfigError: for the first thing wrong with it.
    """
    config = configuration.parse(yaml_loader.parse(document))
    folder = path.absolute().parent
    providers = load_providers(config, folder)
    store = _load_plugin("token_store", config.token_store, folder, ITokenStore)
    plan = Plan(document, config, folder, providers, store)
    _at("tokens.key_file", _check_key_file, plan.key_file)
    _refuse_example_user(config, providers)
    return plan


def load_providers(config: SharedConfig, folder: Path) -> Sequence[Built]:
    """Import the password providers and check their configuration."""
    return [
        _load_plugin(f"password_providers.{index}", plugin, folder, IPasswordProvider)
        for index, plugin in enumerate(config.password_providers)
    ]


def build(
    plan: Plan,
    reactor: Any,
    files_as: AbstractContextManager[None] | None = None,
    listen: Callable[[int, LoginSite], IService] | None = None,
    buckets: Callable[[str], Buckets] = lambda _: LocalBuckets(),
) -> Server:
    """Build the standalone server; files are made where there are none.

    :param files_as: entered while they are made: as the user who is to use them.
    :param listen: makes what brings connections to the site, of the number of an endpoint
        description, where this is not the description's own endpoint.
    :param buckets: for the name of each rate limit, where its buckets are on this machine.
    """
    config = plan.config
    with files_as or nullcontext():
        ends = build_ends(plan, reactor)
    service = login_service(
        config, ends.providers, ends.store, ends.hashing, AuditLog(), reactor, buckets
    )
    clients = Clients(config.trusted_proxies)
    handlers = Endpoints(
        service,
        clients,
        config.server_name,
        config.tokenrefresh.require_access_token,
    )
    root = standalone_root(handlers, config.limits.requests)
    site = LoginSite(root, reactor, site_limits(config.limits), clients.network_of)
    return Server(
        ends.parts,
        [
            (
                f"listen.{index}",
                listen(index, site) if listen else listening_service(description, site, reactor),
            )
            for index, description in enumerate(config.listen)
        ],
        site,
        service.audit,
        ends.totals,
        ends.keys,
    )


def site_limits(limits: Limits) -> SiteLimits:
    """What the clients may take, within what the process may."""
    return SiteLimits(
        connections=openfiles.room_for(limits.connections),
        connections_per_address=limits.connections_per_address,
        request_timeout=limits.request_timeout / 1000,
        idle_timeout=limits.idle_timeout / 1000,
    )


def build_providers(
    providers: Sequence[Built], environment: Environment
) -> list[IPasswordProvider]:
    """Build the password providers."""
    return [
        _at(f"password_providers.{index}.config", _make, built, environment)
        for index, built in enumerate(providers)
    ]


class Ends(NamedTuple):
    """The providers, as one, the token store, and the pool that hashes.

    :param parts: what of them is to be started before they are used, and stopped in the end.
    :param totals: what the providers said so far.
    :param keys: of the tokens.
    """

    providers: IPasswordProvider
    store: ITokenStore
    hashing: HashingPool
    parts: Sequence[IService]
    totals: Totals
    keys: KeyRing


def build_ends(plan: Plan, reactor: Any) -> Ends:
    """Build what the server and the commands work on; files are made where there are none."""
    hashing = hashing_pool(plan.config, reactor)
    environment = environment_of(plan, hashing, reactor)
    providers = build_providers(plan.providers, environment)
    store = _at("token_store.config", _make, plan.store, environment)
    totals: Totals = Counter()
    return Ends(
        chain(plan.config.password_providers, providers, hashing, reactor, meter(totals)),
        store,
        hashing,
        [part for part in (hashing, *providers, store) if IService.providedBy(part)],
        totals,
        environment.required_keys,
    )


def meter(totals: Totals) -> Meter:
    """What counts the outcomes of questions to providers, and changes of circuits, together."""

    def count(*what: str) -> None:
        totals[what] += 1

    def count_circuit(provider: str, operation: str, state: str) -> None:
        count(provider, operation, f"circuit_{state}")

    return Meter(count, count_circuit)


def hashing_pool(config: SharedConfig, reactor: Any) -> HashingPool:
    """The pool that every password is hashed in.

    One waits in its queue for half of the shortest deadline at most: then the queue is what is
    answered for, and neither an outage of a provider nor a wrong password.
    """
    hashing = config.hashing
    shortest = min((each.deadline for each in config.password_providers), default=math.inf)
    return HashingPool(
        reactor, hashing.threads, hashing.queue, hashing.rounds, patience=shortest / 2000
    )


def environment_of(plan: Plan, hashing: HashingPool, reactor: Any) -> Environment:
    """What the plugins are handed; makes the key file where there is none."""
    return Environment(
        server_name=plan.config.server_name,
        reactor=reactor,
        hashing=hashing,
        seconds=time.time,
        random=os.urandom,
        policy=plan.config.tokens.policy(),
        keys=_at("tokens.key_file", keyfile.load_or_make, plan.key_file, os.urandom),
    )


def chain(
    plugins: Sequence[ProviderPlugin],
    providers: Sequence[IPasswordProvider],
    hashing: HashingPool | None,
    reactor: Any,
    meter: Meter,
) -> IPasswordProvider:
    """The providers as one, each made as dependable as its plugin's configuration says; with
    ``hashing``, it hashes decoys.
    """
    dependable = [
        wrap(plugin, provider, reactor, meter)
        for plugin, provider in zip(plugins, providers, strict=True)
    ]
    return TogetherProvider(ProviderChain(dependable, hashing))


def wrap(
    plugin: ProviderPlugin, provider: IPasswordProvider, reactor: Any, meter: Meter
) -> IPasswordProvider:
    """A provider with a deadline and a count of what it says, and whatever else is configured.

    The deadline counts waiting for a place in the hashing pool too.
    """
    wrapped: IPasswordProvider = DeadlineProvider(provider, plugin.deadline / 1000, reactor)
    if plugin.name is not None:
        wrapped.name = plugin.name
    if plugin.circuit_breaker is not None:
        breaker = plugin.circuit_breaker
        wrapped = CircuitBreaker(
            wrapped,
            breaker.failures,
            breaker.window / 1000,
            breaker.pause / 1000,
            time.monotonic,
            meter.circuit,
        )
    if plugin.cache is not None:
        cache = plugin.cache
        wrapped = PositiveCache(wrapped, cache.lifetime / 1000, cache.entries, time.monotonic)
    wrapped = MeteredProvider(wrapped, meter.outcome)
    if plugin.on_unavailable == "next":
        wrapped = NextOnUnavailable(wrapped)
    return wrapped


def login_service(
    config: SharedConfig,
    providers: IPasswordProvider,
    store: ITokenStore,
    hashing: HashingPool,
    audit: AuditLog,
    reactor: Any,
    buckets: Callable[[str], Buckets] = lambda _: LocalBuckets(),
) -> LoginService:
    """The use cases over these accounts and this store."""
    return LoginService(
        providers=providers,
        store=store,
        hashing=hashing,
        limits=LoginLimits(
            *config.rate_limits.rates(),
            time.monotonic,
            buckets,
            shared=store if IRateLimits.providedBy(store) else None,
        ),
        audit=audit,
        always_refresh_token=config.tokens.refresh_token == "always",
        patience=config.tokens.account_check_timeout / 1000,
        clock=reactor,
    )


class _Part(Service):
    """A part of the server. It has no name: two of the parts may have the same.

    :param part: what is started and stopped.
    """

    def __init__(self, part: IService) -> None:
        self._part = part

    def privilegedStartService(self) -> None:
        """Do what needs privileges."""
        self._part.privilegedStartService()

    def startService(self) -> None:
        """Start it."""
        super().startService()
        self._part.startService()

    def stopService(self) -> Any:
        """Stop it."""
        super().stopService()
        return self._part.stopService()


class Server(MultiService):
    """The standalone server: starts its parts before it listens, and stops them after the last
    answer.

    :param parts: what works behind the site.
    :param listeners: what brings connections to the site, with their paths in the configuration.
    :param site: the site.
    :param audit: whose totals are logged at the end.
    :param totals: of the providers, logged as well.
    :ivar keys: of the tokens; they follow their file.
    :ivar patience: how many seconds an idle connection is kept at the end, for the request that may
        be on its way.
    """

    patience = 1.0

    log = Logger()

    def __init__(
        self,
        parts: Sequence[IService],
        listeners: Sequence[tuple[str, IService]],
        site: LoginSite,
        audit: AuditLog,
        totals: Totals,
        keys: KeyRing,
    ) -> None:
        super().__init__()
        self.keys = keys
        for part in parts:
            _Part(part).setServiceParent(self)
        self._listeners = listeners
        self._site = site
        self._audit = audit
        self._totals = totals

    def privilegedStartService(self) -> None:
        """Bind the listening sockets; a failure ends the start with one line."""
        for path, listener in self._listeners:
            try:
                listener.privilegedStartService()
            except (CannotListenError, OSError, OverflowError, ValueError) as error:
                raise SystemExit(str(ConfigError(path, str(error)))) from None
        super().privilegedStartService()

    def startService(self) -> None:
        """Start the parts, then the listeners."""
        super().startService()
        # What is there now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        for _, listener in self._listeners:
            listener.startService()

    def stopService(self) -> Deferred[None]:
        """Stop listening, answer what is in flight, then stop the parts."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await DeferredList([maybeDeferred(listener.stopService) for _, listener in self._listeners])
        await self._site.drain(self.patience)
        await super().stopService()
        for (event, outcome, reason), count in sorted(self._audit.counts.items()):
            self.log.info(
                "total: {event} outcome={outcome} reason={reason} count={count}",
                event=event,
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


def _load_plugin(path: str, plugin: Plugin, folder: Path, interface: Any) -> Built:
    try:
        found = namedAny(plugin.module)
    except Exception as error:  # an import runs whatever stands in the module
        raise ConfigError(f"{path}.module", f"cannot import it: {error}") from None
    if not (isinstance(found, type) and interface.implementedBy(found)):
        raise ConfigError(f"{path}.module", f"it is no class that implements {interface.__name__}")
    if not hasattr(found, "parse_config"):
        raise ConfigError(f"{path}.module", "it has no parse_config, so it cannot be configured")
    plugin_class: Any = found
    return found, _at(f"{path}.config", plugin_class.parse_config, plugin.config, folder)


def _make(built: Built, environment: Environment) -> Any:
    cls, config = built
    return cls(config, environment)


def _check_key_file(path: Path) -> None:
    if path.exists():
        keyfile.load(path)
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError("", f"cannot make a file in {path.parent}")


def _refuse_example_user(config: Config, providers: Sequence[Built]) -> None:
    """Keep the password that everybody knows off the network."""
    if all(listen.is_local(description) for description in config.listen):
        return
    name, password = EXAMPLE_USER
    for index, (_, parsed) in enumerate(providers):
        user = parsed.directory.users.get(name) if isinstance(parsed, BcryptConfig) else None
        if user and check_password(password, user.password_hash, parsed.pepper):
            raise ConfigError(
                f"password_providers.{index}.config",
                f"{name} has the password of the example: listen on loopback alone, or change it",
            )


def _at(path: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function whose errors are of this path of the configuration."""
    try:
        return function(*arguments)
    except ConfigError as error:
        raise error.within(path) from None
    except (OSError, ValueError) as error:  # as of a path that is no path
        raise ConfigError(path, str(error)) from None
