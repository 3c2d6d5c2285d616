"""Opens the standalone server's store and accounts, or Synapse's database, for commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import click
from twisted.python.reflect import namedAny

from synapse_login_module.accounts.assembly import Watch
from synapse_login_module.accounts.linked import LinkedAccounts
from synapse_login_module.commands.program import PROGRAM, Failure, about, problem_of
from synapse_login_module.common.console import escaped, run_in_reactor
from synapse_login_module.common.priority import lower_priority
from synapse_login_module.common.running import running
from synapse_login_module.compose import (
    build_plugin,
    build_providers,
    chain,
    hashing_pool,
    meter,
    provider_names,
)
from synapse_login_module.config.files import is_there, read_bytes
from synapse_login_module.config.settings import ProviderPlugin
from synapse_login_module.config.validation import config_path
from synapse_login_module.errors import ConfigError
from synapse_login_module.homeservers.admission import Admission
from synapse_login_module.interfaces import IAccounts, IPasswordProvider, ITokenStore
from synapse_login_module.plugin import Environment
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.standalone.delegation import delegation_of
from synapse_login_module.standalone.plan import (
    LoadedConfig,
    check_config,
    load_config,
    load_for_store,
)
from synapse_login_module.standalone.server import environment_of, watch_of
from synapse_login_module.stores.memory import MemoryTokenStore

T = TypeVar("T")

WatchProvider = Callable[[ProviderPlugin, IPasswordProvider], IPasswordProvider]
"""Wraps a provider, with its guard, once more."""


@dataclass
class Opened:
    """The open store of a configuration, and its providers on demand.

    :param loaded: the configuration; without providers if these have a mistake.
    :param store: the started token store.
    :param problem: the mistake in the providers, or ``None``.
    """

    loaded: LoadedConfig
    store: ITokenStore
    problem: Exception | None
    _environment: Environment
    _start: Callable[[object], None]
    _providers: list[IPasswordProvider] | None = field(default=None, init=False)

    @property
    def server_name(self) -> str:
        """The homeserver's name."""
        return self.loaded.config.server_name

    @property
    def reactor(self) -> Any:
        """The reactor that runs."""
        return self._environment.reactor

    @property
    def links(self) -> Any:
        """The store as an ``ILinks``, which loading the configuration has checked."""
        return self.store

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """All names of each provider that links may hold, by its current name; empty if the
        providers have a mistake.
        """
        if self.problem is not None:
            return {}
        return provider_names(self.loaded.config.password_providers, self.loaded.providers)

    def providers(self) -> list[IPasswordProvider]:
        """Return the providers, which are built and started on the first call.

        :raise Exception: the mistake in the providers, if there is one.
        """
        if self._providers is None:
            if self.problem is not None:
                raise self.problem
            plugins = self.loaded.config.password_providers
            self._providers = build_providers(plugins, self.loaded.providers, self._environment)
            for each in self._providers:
                self._start(each)
        return self._providers

    def accounts(self, watch: WatchProvider | None = None) -> IAccounts:
        """Build the accounts: the providers as one, with the links.

        :param watch: wraps each provider with its guard once more.
        """
        return LinkedAccounts(self._vouching(watch), self.links)

    def admission(self) -> Admission | None:
        """Build what decides about accounts of the homeserver; ``None`` without a homeserver.

        It decides only where the whole configuration was loaded.
        """
        delegation = delegation_of(self.loaded, self._environment, self.store, self.reactor)
        if delegation is None:
            return None
        self._start(delegation.homeserver)
        return delegation.admission

    def watch(self) -> Watch | None:
        """Build the watch over the accounts; ``None`` where the store is no ``IHousekeeping``."""
        return watch_of(
            self.store,
            self.loaded.config,
            self.providers(),
            self._vouching(),
            self._environment.reactor,
        )

    def _vouching(self, watch: WatchProvider | None = None) -> ProviderChain:
        plugins = self.loaded.config.password_providers
        reactor = self._environment.reactor
        return chain(plugins, self.providers(), None, reactor, meter(Counter()), watch)


def load(path: Path) -> LoadedConfig:
    """Read and check a configuration file of the standalone server.

    :raise Failure: with every mistake in it.
    """
    from twisted.internet import reactor

    with about(path):
        return load_config(path, reactor)


def with_store(
    path: Path, work: Callable[[Opened], Coroutine[Any, Any, T]], *, read_only: bool
) -> T:
    """Open a configuration's store, run work on it in a reactor, and close the store.

    A store or key file that does not exist is an error, and is not made: its path may be mistyped.
    A mistake in the providers is only a warning, because it may be the reason to end sessions.

    :param work: called with the open store; returns a coroutine.
    :param read_only: whether the work only asks. Then this process gives way to servers, which do
        not wait for it. A store of an earlier version of this program is then an error; otherwise
        it is migrated, as a server does.
    :return: the result of the coroutine.
    """
    if read_only:
        with suppress(OSError):  # its priority is lower already
            lower_priority()
    with about(path):
        loaded, problem = load_for_store(path)
        if problem is not None:
            click.echo(
                escaped(
                    f"{PROGRAM}: {path}: warning: the password providers cannot be used:"
                    f" {problem_of(problem)}"
                ),
                err=True,
            )
        if issubclass(loaded.store[0], MemoryTokenStore):
            raise ConfigError(
                "token_store",
                "the sessions are in the server's memory, which commands cannot read",
            )
        return _run(loaded, problem, work, read_only)


def with_server(path: Path, work: Callable[[Opened], Coroutine[Any, Any, T]]) -> T:
    """Open a configuration's store as the server does, and run work on it that only asks; see
    :func:`with_store`.

    Every mistake in the configuration is an error. Of a store in memory, the work gets an empty
    one.
    """
    with about(path):
        return _run(check_config(read_bytes(path), path), None, work, True)


def _run(
    loaded: LoadedConfig,
    problem: Exception | None,
    work: Callable[[Opened], Coroutine[Any, Any, T]],
    read_only: bool,
) -> T:
    _require_files(loaded)

    async def run(reactor: Any) -> T:
        hashing = hashing_pool(loaded.config, reactor)
        environment = replace(environment_of(loaded, hashing, reactor), read_only=read_only)
        store = config_path("token_store.config", build_plugin, loaded.store, environment)
        async with running(hashing, store) as start:
            return await work(Opened(loaded, store, problem, environment, start))

    return run_in_reactor(run)


def _require_files(loaded: LoadedConfig) -> None:
    """Check that the files exist that the server makes at its first start.

    :raise ConfigError: with the path of the file that does not.
    """
    existing_key_file(loaded)
    store, config = loaded.store
    if hasattr(store, "require_existing"):
        config_path("token_store.config", store.require_existing, config)


def existing_key_file(loaded: LoadedConfig) -> Path:
    """Return the path of the key file.

    :raise ConfigError: when it does not exist; commands do not make it.
    """
    if not config_path("tokens.key_file", is_there, loaded.key_file):
        raise ConfigError(
            "tokens.key_file",
            f"there is no {loaded.key_file}: the server makes it at its first start",
        )
    return loaded.key_file


def on_synapse(files: Sequence[str], module: str = "commands") -> Any:
    """Return a module of commands on Synapse's database.

    It is imported by name, because only ``synapse/`` imports Synapse, which may not be installed.

    :raise Failure: when it cannot be imported.
    """
    try:
        return namedAny(f"synapse_login_module.synapse.{module}")
    except ImportError as error:
        raise Failure(f"{', '.join(files)}: this command needs Synapse: {error}") from None
