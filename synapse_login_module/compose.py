"""From a configuration to the running graph of objects: the only place that builds it."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import IService, MultiService, Service
from twisted.application.strports import service as listening_service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.reflect import namedAny

from synapse_login_module import config as configuration
from synapse_login_module import endpoints, keyfile, yamlfile
from synapse_login_module.audit import AuditLog
from synapse_login_module.config import Config, Plugin, ProviderPlugin, SharedConfig
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IPasswordProvider, ITokenStore
from synapse_login_module.limits import LoginLimits
from synapse_login_module.login import LoginService
from synapse_login_module.passwords import HashingPool, check_password
from synapse_login_module.plugin import Environment
from synapse_login_module.providers.bcrypt import BcryptConfig
from synapse_login_module.providers.breaker import CircuitBreaker
from synapse_login_module.providers.cache import PositiveCache
from synapse_login_module.providers.chain import ProviderChain
from synapse_login_module.providers.deadline import DeadlineProvider
from synapse_login_module.providers.fallthrough import NextOnUnavailable
from synapse_login_module.ratelimit import Buckets, LocalBuckets
from synapse_login_module.web.client import Clients
from synapse_login_module.web.endpoints import Endpoints
from synapse_login_module.web.site import LoginSite
from synapse_login_module.web.tree import standalone_root

T = TypeVar("T")

EXAMPLE_USER = ("cheeky_monkey", "ilovebananas")
"""The account of the specification's example, whose password everybody knows."""

Built = tuple[type[Any], Any]
"""A plugin class and its checked configuration."""


@dataclass(frozen=True)
class Plan:
    """A configuration that has been checked as far as it can be without starting.

    :param document: what the configuration file held.
    :param folder: what relative paths are relative to.
    """

    document: bytes
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
    plan = check(yamlfile.read(path), path)
    for index, description in enumerate(plan.config.listen):
        _at(f"listen.{index}", endpoints.check, reactor, description)
    return plan


def check(document: bytes, path: Path) -> Plan:
    """Check what a configuration file holds, but for where it says to listen.

    :raise ConfigError: for the first thing wrong with it.
    """
    config = configuration.parse(yamlfile.parse(document))
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
    listen: Callable[[int, LoginSite], IService] | None = None,
    buckets: Callable[[str], Buckets] = lambda _: LocalBuckets(),
) -> Server:
    """Build the standalone server; files are made where there are none.

    :param listen: makes what brings connections to the site, of the number of an endpoint
        description, where this is not the description's own endpoint.
    :param buckets: for the name of each rate limit, where its buckets are.
    """
    config = plan.config
    hashing = hashing_pool(config, reactor)
    environment = environment_of(plan, hashing, reactor)
    providers = build_providers(plan.providers, environment)
    store = _at("token_store.config", _make, plan.store, environment)
    chained = chain(config.password_providers, providers, hashing, reactor)
    service = login_service(config, chained, store, hashing, AuditLog(), buckets)
    handlers = Endpoints(
        service,
        Clients(config.trusted_proxies),
        config.server_name,
        config.tokenrefresh.require_access_token,
    )
    site = LoginSite(standalone_root(handlers), reactor)
    return Server(
        [part for part in (hashing, *providers, store) if IService.providedBy(part)],
        [
            (
                f"listen.{index}",
                listen(index, site) if listen else listening_service(description, site, reactor),
            )
            for index, description in enumerate(config.listen)
        ],
        site,
        service.audit,
    )


def build_providers(
    providers: Sequence[Built], environment: Environment
) -> list[IPasswordProvider]:
    """Build the password providers."""
    return [
        _at(f"password_providers.{index}.config", _make, built, environment)
        for index, built in enumerate(providers)
    ]


def build_ends(
    plan: Plan, reactor: Any
) -> tuple[IPasswordProvider, ITokenStore, Sequence[IService]]:
    """Build the providers, as one, and the token store, for a command that works on them; and give
    what of them is to be started before, and stopped in the end.
    """
    hashing = hashing_pool(plan.config, reactor)
    environment = environment_of(plan, hashing, reactor)
    providers = build_providers(plan.providers, environment)
    store = _at("token_store.config", _make, plan.store, environment)
    parts = [part for part in (*providers, store) if IService.providedBy(part)]
    return chain(plan.config.password_providers, providers, hashing, reactor), store, parts


def hashing_pool(config: SharedConfig, reactor: Any) -> HashingPool:
    """The pool that every password is hashed in."""
    hashing = config.hashing
    return HashingPool(reactor, hashing.threads, hashing.queue, hashing.rounds)


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
) -> IPasswordProvider:
    """The providers as one, each made as dependable as its plugin's configuration says; with
    ``hashing``, it hashes decoys.
    """
    dependable = [
        wrap(plugin, provider, reactor) for plugin, provider in zip(plugins, providers, strict=True)
    ]
    return ProviderChain(dependable, hashing)


def wrap(plugin: ProviderPlugin, provider: IPasswordProvider, reactor: Any) -> IPasswordProvider:
    """A provider with a deadline, and whatever else is configured.

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
        )
    if plugin.cache is not None:
        cache = plugin.cache
        wrapped = PositiveCache(wrapped, cache.lifetime / 1000, cache.entries, time.monotonic)
    if plugin.on_unavailable == "next":
        wrapped = NextOnUnavailable(wrapped)
    return wrapped


def login_service(
    config: SharedConfig,
    providers: IPasswordProvider,
    store: ITokenStore,
    hashing: HashingPool,
    audit: AuditLog,
    buckets: Callable[[str], Buckets] = lambda _: LocalBuckets(),
) -> LoginService:
    """The use cases over these accounts and this store."""
    return LoginService(
        providers=providers,
        store=store,
        hashing=hashing,
        limits=LoginLimits(*config.rate_limits.rates(), time.monotonic, buckets),
        audit=audit,
        always_refresh_token=config.tokens.refresh_token == "always",
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
    ) -> None:
        super().__init__()
        for part in parts:
            _Part(part).setServiceParent(self)
        self._listeners = listeners
        self._site = site
        self._audit = audit

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
    if all(endpoints.is_local(description) for description in config.listen):
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
