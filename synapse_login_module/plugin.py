"""The interface of the classes that a configuration can name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Interface, Invalid, implementedBy
from zope.interface.exceptions import BrokenMethodImplementation
from zope.interface.interface import Method
from zope.interface.verify import verifyClass

from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IHashing
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.model import Finding, TokenPolicy
from synapse_login_module.tokens.format import KeyRing

_PROJECT = __name__.partition(".")[0]


@dataclass(frozen=True)
class Environment:
    """What the service gives to each provider, store and homeserver that it builds.

    :param server_name: the homeserver's server name.
    :param reactor: the reactor.
    :param hashing: the pool that hashes passwords.
    :param clock: the wall clock, seconds since the epoch.
    :param random: returns the given number of random bytes.
    :param policy: the lifetimes of tokens.
    :param keys: the keys of derived tokens; ``None`` inside Synapse, whose tokens are not derived.
    :param delegated: whether a homeserver delegates authentication to this server. A store then
        notes which devices have to be deleted there; see
        :class:`~synapse_login_module.interfaces.IDelegatedStore`.
    :param read_only: whether a command only asks. A plugin then writes nothing of its own accord,
        such as a new hash of a password that was right. A store makes and migrates no tables: an
        older schema is a ``ConfigError``.
    :param homeserver: inside Synapse, its :class:`~synapse_login_module.synapse.api.Homeserver`;
        otherwise ``None``.
    :param public_baseurl: the URL at which clients reach this server; ``None`` where it is not
        known.
    :param metrics: counts and measures; by default nothing is kept.
    """

    server_name: str
    reactor: Any
    hashing: IHashing
    clock: Callable[[], float]
    random: Callable[[int], bytes]
    policy: TokenPolicy
    keys: KeyRing | None = None
    delegated: bool = False
    read_only: bool = False
    homeserver: Any = None
    public_baseurl: str | None = None
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def required_keys(self) -> KeyRing:
        """The keys, for a store that needs them.

        :raise ConfigError: when there are none.
        """
        if self.keys is None:
            raise ConfigError("", "this store is for the standalone server")
        return self.keys


def read_only_environment(
    server_name: str,
    hashing: IHashing,
    reactor: Any,
    policy: TokenPolicy | None = None,
    **more: Any,
) -> Environment:
    """Build the environment of the plugins of a command, which only asks.

    :param policy: the lifetimes of tokens; by default the usual ones.
    :param more: other values of :class:`Environment`.
    """
    return Environment(
        server_name=server_name,
        reactor=reactor,
        hashing=hashing,
        clock=time.time,
        random=os.urandom,
        policy=policy or TokenPolicy(),
        read_only=True,
        **more,
    )


class IPluginClass(Interface):
    """A class of providers, stores or homeservers, named by its dotted path at ``module:``.

    An instance that also provides :class:`twisted.application.service.IService` is started and
    stopped with the server.

    Three attributes of the class of a store are optional. ``one_process`` is true when processes
    cannot share the store; it is then rejected where there are several. ``require_existing`` is for
    stores that create files or tables. It takes what ``parse_config`` returned, and raises a
    ``ConfigError`` when no server has created them yet. Commands call it, because they do not
    create any. ``describe`` takes what ``parse_config`` returned. It returns where the sessions are
    kept, as text without secrets for the log.
    """

    def parse_config(config: Mapping[str, Any], folder: Path) -> Any:
        """Check the ``config:`` block, with no side effects other than reading.

        The result may have an attribute ``not_tried``, a list of texts like ``the directory at
        ldap://…``. They name what the plugin is going to connect to; ``check-config`` shows them.
        That of a provider may have a mapping ``only_inside_synapse`` of keys in the block. The
        standalone server rejects each, with the text that belongs to it.

        :param folder: the folder that relative paths in the block start from.
        :raise synapse_login_module.errors.ConfigError: with a path relative to the block.
        """

    def __call__(config: Any, environment: Environment) -> Any:
        """Build the provider, store or homeserver.

        :param config: what ``parse_config`` returned.
        :raise synapse_login_module.errors.ConfigError: with a path relative to the block.
        """


def require_methods(plugin_class: type[Any]) -> None:
    """Check that a class has the methods of each interface of this project that it declares.

    A class that was written for an earlier version would fail later otherwise, in a request.

    :raise ConfigError: with the methods that are missing or take other parameters.
    """
    wanted = ", ".join(
        f"{interface.__name__}.{method.__name__}{method.getSignatureString()}"
        for interface in implementedBy(plugin_class).flattened()
        if interface.__module__.partition(".")[0] == _PROJECT
        for method in _unlike(interface, plugin_class)
    )
    if wanted:
        raise ConfigError("", f"the class lacks these methods, or they differ: {wanted}")


def _unlike(interface: Any, plugin_class: type[Any]) -> Iterator[Method]:
    """Find the methods of an interface that a class lacks or that take other parameters there."""
    try:
        verifyClass(interface, plugin_class)
    except Invalid as error:
        for each in getattr(error, "exceptions", (error,)):
            yield each.method if isinstance(each, BrokenMethodImplementation) else each.name


class IDiagnosableClass(Interface):
    """A class of stores that can examine its database without building a store.

    Building one makes files or tables, which a diagnosis must not. A class need not provide this.
    """

    def diagnose(config: Any, environment: Environment) -> Deferred[list[Finding]]:
        """Try the database for real: connect, read, write and take the write back.

        Nothing is changed, and no text of a finding holds a secret. Where the environment has keys,
        their fingerprints are compared with those in the store.

        :param config: what ``parse_config`` returned.
        :param environment: its ``keys`` are ``None`` where there is no key file yet.
        :return: fires with the findings. What does not work is a finding, and no failure.
        """
