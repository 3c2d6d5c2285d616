"""What commands work on: the standalone server's store and accounts, or Synapse's database."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import maybeDeferred
from twisted.python.reflect import namedAny

from synapse_login_module.accounts.assembly import Watch
from synapse_login_module.commands.program import Failure, about
from synapse_login_module.console import run_in_reactor
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IAccounts, ITokenStore
from synapse_login_module.model import UserId
from synapse_login_module.standalone.plan import LoadedConfig, load_config
from synapse_login_module.standalone.server import build_backends
from synapse_login_module.stores.memory import MemoryTokenStore

T = TypeVar("T")


class Opened(NamedTuple):
    """What commands work on.

    :param loaded: the configuration.
    :param watch: over the accounts; ``None`` where the store has nothing for it.
    """

    loaded: LoadedConfig
    store: ITokenStore
    accounts: IAccounts
    watch: Watch | None

    def user_id(self, given: str) -> str:
        """The user ID that a person means by a user ID or its local part."""
        return str(UserId.parse(given, self.loaded.config.server_name))


def load(path: Path) -> LoadedConfig:
    """Read and check a configuration file of the standalone server."""
    from twisted.internet import reactor

    with about(path):
        return load_config(path, reactor)


def with_store(path: Path, work: Callable[[Opened], Coroutine[Any, Any, T]]) -> T:
    """Run work on a configuration's store, and leave the store clean; what the work returned."""
    loaded = load(path)

    async def run(reactor: Any) -> T:
        if issubclass(loaded.store[0], MemoryTokenStore):
            raise ConfigError(
                "token_store",
                "the sessions are in the server's memory, where no command sees them",
            )
        backends = build_backends(loaded, reactor)
        for part in backends.parts:
            part.startService()
        try:
            return await work(Opened(loaded, backends.store, backends.accounts, backends.watch))
        finally:
            for part in backends.parts:
                await maybeDeferred(part.stopService)

    with about(path):
        return run_in_reactor(run)


def on_synapse(files: Sequence[str]) -> Any:
    """The module of commands on Synapse's database.

    It is found by its name, since only that room may know Synapse, which is not always there.
    """
    try:
        return namedAny("synapse_login_module.synapse.commands")
    except ImportError as error:
        raise Failure(f"{', '.join(files)}: Synapse is needed for this: {error}") from None
