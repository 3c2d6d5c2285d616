"""``check-config``: checks the configuration of the standalone server or of Synapse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synapse_login_module.compose import LoadedPlugin, load_module
from synapse_login_module.config import listen, modes, yaml_loader
from synapse_login_module.config.delegated import is_delegated, parse_delegated
from synapse_login_module.config.files import read_bytes
from synapse_login_module.config.homeserver_yaml import MODULE, own_entries
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import warning
from synapse_login_module.standalone.plan import is_homeserver_config, load_parsed


@dataclass(frozen=True)
class Checked:
    """The result for a file without mistakes.

    :param modes: warnings about files that other users may read or write.
    :param settings: warnings about settings with which the server starts.
    :param not_tried: the services that the server will connect to, which the check does not, and
        the sockets that it will be handed over.
    """

    modes: Sequence[Finding]
    settings: Sequence[Finding]
    not_tried: Sequence[str]


def check_file(path: Path, reactor: Any) -> Checked:
    """Check a configuration file without writing files or opening connections.

    :raise ConfigError: with every mistake in it.
    """
    document = read_bytes(path)
    given = yaml_loader.parse(document)
    if is_homeserver_config(given):
        return check_homeserver(given)
    loaded = load_parsed(document, given, path, reactor)
    plugins = [*loaded.providers, loaded.store]
    if loaded.homeserver is not None:
        plugins.append(loaded.homeserver)
    sockets = [
        f"the socket {each.description}, which systemd opens"
        for each in loaded.config.listeners
        if listen.is_of_systemd(each.description)
    ]
    return Checked(list(modes.warnings(given, path)), [], [*_not_tried(plugins), *sockets])


def check_homeserver(given: Mapping[str, Any]) -> Checked:
    """Check the module's blocks in Synapse's configuration.

    Relative paths in them start at Synapse's working directory.

    :param given: Synapse's configuration, whose files are merged.
    :raise ConfigError: with every mistake.
    """
    mistakes = Mistakes()
    plugins: list[LoadedPlugin] = []
    of_modes: list[Finding] = []
    settings: list[Finding] = []
    found = is_alone = False
    for index, entry in own_entries(given):
        found = True
        with mistakes.gathered():
            config = entry.get("config") or {}
            where = f"modules.{index}.config"
            try:
                if is_delegated(config):
                    parse_delegated(config)
                    settings += _of_delegation(given, where)
                    continue
                is_alone = True
                parsed, providers = load_module(config, Path.cwd())
            except ConfigError as error:
                raise error.within(where) from None
            plugins += providers
            configs = [each.config for each in parsed.password_providers]
            of_modes += [
                replace(each, what=f"{where}.{each.what}")
                for each in modes.of_providers(configs, Path.cwd())
            ]
    if not found:
        mistakes.add("modules", f"this is Synapse's file, and {MODULE} is not among its modules")
    mistakes.raise_any()
    if is_alone:
        settings += _of_listeners(given)
    return Checked(of_modes, settings, list(_not_tried(plugins)))


def _of_delegation(given: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """Warn where Synapse does not delegate. Another of its files may say that it does."""
    service = given.get("matrix_authentication_service")
    if not isinstance(service, Mapping) or not service.get("enabled"):
        yield warning(
            f"{where}.delegated",
            "Synapse starts with it only where it delegates, and this file does not enable"
            " matrix_authentication_service",
            "",
        )


def _of_listeners(given: Mapping[str, Any]) -> Iterator[Finding]:
    """Warn where no listener can serve the module's paths, or clients' addresses are not known.

    On a listener with the ``client`` resource, Synapse's own ``/login`` and ``/refresh`` take
    precedence.
    """
    listeners = given.get("listeners")
    for_clients: list[tuple[int, Mapping[str, Any]]] = []
    others: list[tuple[int, Mapping[str, Any]]] = []
    for index, each in enumerate(listeners if isinstance(listeners, list) else ()):
        if isinstance(each, Mapping) and each.get("type") == "http":
            (for_clients if "client" in _resources(each) else others).append((index, each))
    if not others:
        yield warning(
            "listeners",
            "each of type http has the client resource, whose paths are Synapse's own",
            "add one with resources: [] for the module",
        )
    for index, listener in for_clients:
        if not listener.get("x_forwarded") and not listener.get("tls"):
            yield warning(
                f"listeners.{index}",
                "behind the proxy that the module needs, Synapse takes the proxy's address for each"
                " client's",
                "add x_forwarded: true",
            )


def _resources(listener: Mapping[str, Any]) -> Iterator[str]:
    for each in listener.get("resources") or ():
        names = each.get("names") if isinstance(each, Mapping) else ()
        yield from [names] if isinstance(names, str) else names or ()


def _not_tried(plugins: Sequence[LoadedPlugin]) -> Iterator[str]:
    for _, config in plugins:
        yield from getattr(config, "not_tried", ())
