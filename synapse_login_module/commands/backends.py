"""What commands work on: the standalone server's store and accounts, or Synapse's database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
from twisted.application.service import IService
from twisted.internet.defer import maybeDeferred
from twisted.python.reflect import namedAny

from synapse_login_module.accounts.assembly import Watch
from synapse_login_module.accounts.linked import LinkedAccounts
from synapse_login_module.commands.program import PROGRAM, Failure, about, problem_of
from synapse_login_module.compose import (
    build_plugin,
    build_providers,
    chain,
    hashing_pool,
    meter,
    provider_names,
)
from synapse_login_module.config.files import is_there
from synapse_login_module.config.validation import config_path
from synapse_login_module.console import run_in_reactor
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IAccounts, IPasswordProvider, ITokenStore
from synapse_login_module.plugin import Environment
from synapse_login_module.providers.wrappers.chain import ProviderChain
from synapse_login_module.standalone.plan import LoadedConfig, load_config, load_for_store
from synapse_login_module.standalone.server import environment_of, watch_of
from synapse_login_module.stores.memory import MemoryTokenStore

T = TypeVar("T")


@dataclass
class Opened:
    """What commands work on.

    :param loaded: the configuration; without providers when these are broken.
    :param problem: what is broken about the providers, if anything is.
    """

    loaded: LoadedConfig
    store: ITokenStore
    problem: Exception | None
    _environment: Environment
    _parts: list[Any]
    _providers: list[IPasswordProvider] | None = field(default=None, init=False)

    @property
    def server_name(self) -> str:
        """The homeserver's name."""
        return self.loaded.config.server_name

    @property
    def links(self) -> Any:
        """The store, as what keeps links: a configuration is refused where it keeps none."""
        return self.store

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """The names that links may know each provider by, by its name today."""
        if self.problem is not None:
            return {}
        return provider_names(self.loaded.config.password_providers, self.loaded.providers)

    def providers(self) -> list[IPasswordProvider]:
        """The providers, built and started when they are first asked for.

        :raise ConfigError: when they are broken.
        """
        if self._providers is None:
            if self.problem is not None:
                raise self.problem
            self._providers = build_providers(self.loaded.providers, self._environment)
            for each in self._providers:
                self._start(each)
        return self._providers

    def accounts(self) -> IAccounts:
        """All accounts that may log in."""
        return LinkedAccounts(self._vouching(), self.links)

    def watch(self) -> Watch | None:
        """The watch over the accounts; ``None`` where the store has nothing for it."""
        return watch_of(
            self.store,
            self.loaded.config,
            self.providers(),
            self._vouching(),
            self._environment.reactor,
        )

    def _vouching(self) -> ProviderChain:
        plugins = self.loaded.config.password_providers
        reactor = self._environment.reactor
        return chain(plugins, self.providers(), None, reactor, meter(Counter()))

    def _start(self, part: object) -> None:
        if IService.providedBy(part):
            self._parts.append(part)
            IService(part).startService()


def load(path: Path) -> LoadedConfig:
    """Read and check a configuration file of the standalone server."""
    from twisted.internet import reactor

    with about(path):
        return load_config(path, reactor)


def with_store(path: Path, work: Callable[[Opened], Coroutine[Any, Any, T]]) -> T:
    """Run work on a configuration's store, and leave the store clean.

    Nothing is made that is not there: a path that is mistyped is a mistake. Broken accounts are a
    warning, since it may be because of them that sessions are to end.

    :return: what the work returns.
    """
    with about(path):
        loaded, problem = load_for_store(path)
        if problem is not None:
            click.echo(
                f"{PROGRAM}: {path}: the accounts cannot be asked: {problem_of(problem)}", err=True
            )
        if issubclass(loaded.store[0], MemoryTokenStore):
            raise ConfigError(
                "token_store",
                "the sessions are in the server's memory, where no command sees them",
            )
        _require_files(loaded)

        async def run(reactor: Any) -> T:
            hashing = hashing_pool(loaded.config, reactor)
            environment = environment_of(loaded, hashing, reactor)
            store = config_path("token_store.config", build_plugin, loaded.store, environment)
            parts = [part for part in (hashing, store) if IService.providedBy(part)]
            for part in parts:
                part.startService()
            try:
                return await work(Opened(loaded, store, problem, environment, parts))
            finally:
                for part in reversed(parts):
                    await maybeDeferred(part.stopService)

        return run_in_reactor(run)


def _require_files(loaded: LoadedConfig) -> None:
    """Refuse to work where the server has never run.

    :raise ConfigError: naming the path of the file that is not there.
    """
    existing_key_file(loaded)
    store, config = loaded.store
    if hasattr(store, "require_existing"):
        config_path("token_store.config", store.require_existing, config)


def existing_key_file(loaded: LoadedConfig) -> Path:
    """Return the path of the key file.

    :raise ConfigError: where there is none, which commands do not make.
    """
    if not config_path("tokens.key_file", is_there, loaded.key_file):
        raise ConfigError(
            "tokens.key_file",
            f"there is no {loaded.key_file}: the server makes it at its first start",
        )
    return loaded.key_file


def on_synapse(files: Sequence[str]) -> Any:
    """The module of commands on Synapse's database.

    It is found by its name, since only that room may know Synapse, which is not always there.
    """
    try:
        return namedAny("synapse_login_module.synapse.commands")
    except ImportError as error:
        raise Failure(f"{', '.join(files)}: Synapse is needed for this: {error}") from None
