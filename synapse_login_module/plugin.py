"""How a provider or a store that the configuration names is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zope.interface import Interface

from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IHashing
from synapse_login_module.model import TokenPolicy
from synapse_login_module.tokens.format import KeyRing


@dataclass(frozen=True)
class Environment:
    """What the service hands to each provider and store that it builds.

    :param server_name: the homeserver's name.
    :param reactor: the reactor that everything runs on.
    :param hashing: the one pool in which passwords are hashed.
    :param clock: the wall clock, seconds since the epoch.
    :param random: makes that many random bytes.
    :param policy: how long tokens live.
    :param keys: the keys of derived tokens; ``None`` inside Synapse, whose tokens are not derived.
    :param homeserver: inside Synapse, the way into it (``homeserver.Homeserver``).
    """

    server_name: str
    reactor: Any
    hashing: IHashing
    clock: Callable[[], float]
    random: Callable[[int], bytes]
    policy: TokenPolicy
    keys: KeyRing | None = None
    homeserver: Any = None

    @property
    def required_keys(self) -> KeyRing:
        """The keys, for a store that cannot do without."""
        if self.keys is None:
            raise ConfigError("", "this store is for the standalone server")
        return self.keys


class IPluginClass(Interface):
    """What a class offers whose dotted path stands under ``module:`` in the configuration.

    An instance that also provides :class:`twisted.application.service.IService` is started and
    stopped with the server. A store whose class has a true ``one_process`` knows nothing of what
    another process does, and is refused where there are several. One that makes files has a
    ``require_existing``, which takes what ``parse_config`` returned and raises a ``ConfigError``
    where no server has made them yet: commands ask it, since they make none.
    """

    def parse_config(config: Mapping[str, Any], folder: Path) -> Any:
        """Check the ``config:`` block; no side effects other than reading.

        What is returned may have ``not_tried``, a list of texts like ``the directory at ldap://…``:
        what is going to be connected to, for ``check-config`` to name.

        :param folder: what relative paths in it are relative to.
        :raise synapse_login_module.errors.ConfigError: with a path relative to the block.
        """

    def __call__(config: Any, environment: Environment) -> Any:
        """Build the provider or store from what ``parse_config`` returned.

        :raise synapse_login_module.errors.ConfigError: with a path relative to the block.
        """
