"""Builds the objects behind the web from the settings, both inside Synapse and standalone."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from synapse_login_module.accounts.looking import AccountLooks, no_version
from synapse_login_module.audit import AuditLog
from synapse_login_module.config import dotted
from synapse_login_module.config.settings import (
    Config,
    ModuleConfig,
    Plugin,
    ProviderPlugin,
    SharedConfig,
    parse_module,
)
from synapse_login_module.config.validation import config_path
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.homeservers.host import NoHomeserver, SessionHost
from synapse_login_module.interfaces import (
    IAccounts,
    IHomeserver,
    IPasswordProvider,
    IRateLimits,
    ITokenStore,
)
from synapse_login_module.limits.login import LoginLimits
from synapse_login_module.limits.token_bucket import Buckets, local_buckets
from synapse_login_module.login import LoginService
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.model import AccountStatus
from synapse_login_module.outbound.circuit import CircuitBreaking
from synapse_login_module.passwords import HashingPool
from synapse_login_module.plugin import Environment, require_methods
from synapse_login_module.providers.wrappers.cache import PasswordCache
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.providers.wrappers.guard import (
    ACCOUNT_STATUS,
    AUTHENTICATE,
    FAILURES,
    GuardedProvider,
    Meter,
)

_log = Logger()

Totals = Counter[tuple[str, ...]]
"""How often each outcome occurred, by provider name, operation and outcome."""

LoadedPlugin = tuple[type[Any], Any]
"""A plugin class and its checked configuration."""


def load_plugin(path: str, plugin: Plugin, folder: Path, interface: Any) -> LoadedPlugin:
    """Import a plugin's class and check its configuration.

    :param path: the plugin's path in the configuration, such as ``password_providers.0``.
    :param folder: the base of relative paths.
    :param interface: the interface that the class has to implement.
    :raise ConfigError: when the class cannot be used or its configuration is wrong.
    """
    found = config_path(f"{path}.module", dotted.find, plugin.module)
    if not (isinstance(found, type) and interface.implementedBy(found)):
        raise ConfigError(f"{path}.module", f"not a class that implements {interface.__name__}")
    if not hasattr(found, "parse_config"):
        raise ConfigError(f"{path}.module", "the class has no method parse_config")
    config_path(f"{path}.module", require_methods, found)
    plugin_class: Any = found
    return found, config_path(f"{path}.config", plugin_class.parse_config, plugin.config, folder)


def load_providers(config: SharedConfig, folder: Path) -> Sequence[LoadedPlugin]:
    """Import the password providers and check their configuration.

    :raise ConfigError: with every mistake in them.
    """
    mistakes = Mistakes()
    loaded = []
    for index, plugin in enumerate(config.password_providers):
        with mistakes.gathered():
            path = f"password_providers.{index}"
            loaded.append(load_plugin(path, plugin, folder, IPasswordProvider))
    mistakes.raise_any()
    _refuse_equal_names(config.password_providers, loaded)
    return loaded


def load_module(
    given: Mapping[str, Any], folder: Path
) -> tuple[ModuleConfig, Sequence[LoadedPlugin]]:
    """Check the module's configuration inside Synapse, and import its providers.

    :raise ConfigError: with every mistake in it.
    """
    if not isinstance(given, Mapping):
        raise ConfigError("", "not a mapping")
    mistakes = Mistakes()
    config = None
    with mistakes.gathered():
        config = parse_module(given)
    if config is None:
        with mistakes.gathered():
            check_plugins({"password_providers": given.get("password_providers")}, folder)
        mistakes.raise_any()
        raise AssertionError("nothing was wrong")
    providers = load_providers(config, folder)
    require_known_providers(config, providers)
    return config, providers


def require_known_providers(
    config: ModuleConfig | Config, providers: Sequence[LoadedPlugin]
) -> None:
    """Raise ``ConfigError`` when ``link_accounts`` names a provider that is not configured."""
    known = provider_names(config.password_providers, providers).values()
    names = {name for each in known for name in each}
    for index, (provider, _) in enumerate(config.link_accounts):
        if provider is not None and provider not in names:
            problem = f"no password provider is called {provider}"
            raise ConfigError(f"link_accounts.{index}", problem)


def check_plugins(given: Mapping[str, Any], folder: Path) -> None:
    """Check the plugins of a configuration that has mistakes elsewhere.

    Entries that cannot be read as a plugin are skipped: :func:`.parse` has reported them.

    :param given: the whole configuration.
    :raise ConfigError: with every mistake in the plugins.
    """
    mistakes = Mistakes()
    providers = given.get("password_providers")
    entries = enumerate(providers if isinstance(providers, list) else ())
    found: list[tuple[str, Any, Any]] = [
        (f"password_providers.{index}", each, IPasswordProvider) for index, each in entries
    ]
    found.append(("token_store", given.get("token_store"), ITokenStore))
    found.append(("homeserver", given.get("homeserver"), IHomeserver))
    for path, entry, interface in found:
        if not isinstance(entry, Mapping):
            continue
        known = {key: entry[key] for key in Plugin.model_fields if entry.get(key) is not None}
        with suppress(ValidationError):  # reported already
            plugin = Plugin.model_validate(known)
            with mistakes.gathered():
                load_plugin(path, plugin, folder, interface)
    mistakes.raise_any()


def build_plugin(loaded: LoadedPlugin, environment: Environment) -> Any:
    """Build a provider or a store."""
    cls, config = loaded
    return cls(config, environment)


def build_providers(
    plugins: Sequence[ProviderPlugin], providers: Sequence[LoadedPlugin], environment: Environment
) -> list[IPasswordProvider]:
    """Build the password providers.

    :param plugins: the entries of ``password_providers``, in the order of ``providers``.
    """
    return [
        config_path(
            f"password_providers.{index}.config",
            build_plugin,
            loaded,
            replace(environment, one_time_codes=plugin.one_time_codes),
        )
        for index, (plugin, loaded) in enumerate(zip(plugins, providers, strict=True))
    ]


def _refuse_equal_names(
    plugins: Sequence[ProviderPlugin], providers: Sequence[LoadedPlugin]
) -> None:
    """Raise ``ConfigError`` when two providers share a name: links refer to providers by name."""
    known: set[str] = set()
    for index, (plugin, (cls, _)) in enumerate(zip(plugins, providers, strict=True)):
        names = {plugin.name or cls.name: "name"}
        names.update((name, "former_names") for name in plugin.former_names)
        for name, key in names.items():
            if name in known:
                path = f"password_providers.{index}.{key}"
                raise ConfigError(path, f"{name} is the name of another provider")
            known.add(name)


def provider_names(
    plugins: Sequence[ProviderPlugin], providers: Sequence[LoadedPlugin]
) -> dict[str, tuple[str, ...]]:
    """Map each provider's current name to all its names, the current one first.

    Links may hold any of them.
    """
    names = [plugin.names(cls.name) for plugin, (cls, _) in zip(plugins, providers, strict=True)]
    return {each[0]: each for each in names}


_OPENNESS = {"closed": 0.0, "half-open": 0.5, "open": 1.0}


def meter(totals: Totals, metrics: Metrics | None = None) -> Meter:
    """Build a meter that counts outcomes and state changes of circuits in ``totals``.

    :param metrics: counts and measures them too.
    """
    metrics = metrics or Metrics()
    outcomes, durations = metrics.provider_outcomes.of, metrics.provider_duration.of
    circuits = metrics.circuit_open.of

    def begin(provider: str, has_circuits: bool) -> None:
        found = ("unknown", *FAILURES)
        for outcome in ("ok", *found):
            outcomes(provider, AUTHENTICATE, outcome)
        for outcome in (*(each.value for each in AccountStatus), *found):
            outcomes(provider, ACCOUNT_STATUS, outcome)
        for operation in (AUTHENTICATE, ACCOUNT_STATUS) if has_circuits else ():
            circuits(provider, operation).set(0.0)

    def count(*what: str) -> None:
        totals[what] += 1
        outcomes(*what).inc()

    def count_circuit(provider: str, operation: str, state: str) -> None:
        totals[provider, operation, f"circuit_{state}"] += 1
        circuits(provider, operation).set(_OPENNESS[state])

    def measure(provider: str, operation: str, seconds: float) -> None:
        durations(provider, operation).observe(seconds)

    return Meter(count, count_circuit, measure, begin)


def audit_log(metrics: Metrics, reactor: Any, emit: Callable[..., None] | None = None) -> AuditLog:
    """Build the audit log, whose outcomes are counted.

    :param emit: writes a line; see :class:`~synapse_login_module.audit.AuditLog`.
    """
    return AuditLog(
        lambda *outcome: metrics.outcomes.of(*outcome).inc(),
        emit,
        call_later=reactor.callLater,
        count_limited=lambda limit: metrics.limits_hit.of(limit).inc(),
    )


def hashing_pool(config: SharedConfig, reactor: Any, metrics: Metrics | None = None) -> HashingPool:
    """Build the pool that hashes all passwords.

    Its queue timeout is half of the shortest provider deadline. So a full queue is reported as
    such, and never as an outage of a provider.

    :param metrics: measures its queue.
    """
    hashing = config.hashing
    metrics = metrics or Metrics()
    shortest = min((each.deadline for each in config.password_providers), default=math.inf)
    pool = HashingPool(
        reactor,
        hashing.threads,
        hashing.queue,
        hashing.new_hashes(),
        queue_timeout=shortest / 2000,
        waited=metrics.hashing_wait.observe,
        watch=reactor,
    )
    metrics.watch(metrics.hashing_queue, lambda: pool.waiting)
    return pool


def chain(
    plugins: Sequence[ProviderPlugin],
    providers: Sequence[IPasswordProvider],
    hashing: HashingPool | None,
    reactor: Any,
    meter: Meter,
    watch: Callable[[ProviderPlugin, IPasswordProvider], IPasswordProvider] | None = None,
) -> ProviderChain:
    """Build the provider chain, with a guard around each provider as its entry configures it.

    Log a warning for each provider that can never report the status of an account.

    :param plugins: the entries of ``password_providers``, in the order of ``providers``.
    :param hashing: hashes decoys; ``None`` when the caller does.
    :param watch: wraps each guarded provider once more; ``None`` leaves it as it is.
    """
    guarded: list[IPasswordProvider] = [
        wrap(plugin, provider, reactor, meter)
        for plugin, provider in zip(plugins, providers, strict=True)
    ]
    if watch is not None:
        guarded = [watch(*each) for each in zip(plugins, guarded, strict=True)]
    for provider, each in zip(providers, guarded, strict=True):
        if not getattr(provider, "verifiable", True):
            _log.warn(
                "{name} can never say whether an account is still there: accounts that are removed"
                " or locked there keep their sessions",
                name=each.name,
            )
    entries = list(zip(plugins, guarded, strict=True))
    former_names = {provider.name: plugin.former_names for plugin, provider in entries}
    passed_over = {each.name for plugin, each in entries if plugin.on_unavailable == "next"}
    return ProviderChain(guarded, hashing, former_names, passed_over)


def wrap(
    plugin: ProviderPlugin, provider: IPasswordProvider, reactor: Any, meter: Meter
) -> GuardedProvider:
    """Build the guard around a provider, as its entry configures it.

    The time that a password waits in the queue of the hashing pool counts towards the timeout.
    """
    breaker, cache, clock = plugin.circuit_breaker, plugin.cache, time.monotonic
    return GuardedProvider(
        provider,
        plugin.name or provider.name,
        plugin.deadline / 1000,
        reactor,
        meter,
        breaking=None
        if breaker is None
        else CircuitBreaking(breaker.failures, breaker.window / 1000, breaker.pause / 1000, clock),
        cache=None if cache is None else PasswordCache(cache.lifetime / 1000, cache.entries, clock),
    )


def login_service(
    config: SharedConfig,
    accounts: IAccounts,
    store: ITokenStore,
    hashing: HashingPool,
    audit: AuditLog,
    reactor: Any,
    buckets: Callable[[str], Buckets] = local_buckets,
    host: SessionHost | None = None,
    end_all: Callable[[str], Deferred[int]] | None = None,
    version_of: Callable[[str], object] = no_version,
) -> LoginService:
    """Build the login service on these accounts and this store.

    :param host: the homeserver that the sessions are used at, if there is one.
    :param end_all: ends all sessions of a user whose account is gone; by default the store does.
    :param version_of: see :class:`~synapse_login_module.accounts.looking.AccountLooks`.
    """
    return LoginService(
        accounts=accounts,
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
        looks=AccountLooks(
            accounts,
            store,
            config.tokens.account_check_timeout / 1000,
            config.tokens.account_check_interval / 1000,
            reactor,
            end_all,
            version_of,
        ),
        host=host or NoHomeserver(),
    )
