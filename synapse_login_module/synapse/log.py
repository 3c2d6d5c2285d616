"""The module's logger in Synapse's log, and its lines at the start."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from synapse_login_module import __version__, start_lines
from synapse_login_module.audit import emit_to
from synapse_login_module.compose import LoadedPlugin
from synapse_login_module.config.settings import ProviderPlugin
from synapse_login_module.synapse.api import Homeserver

_logger = logging.getLogger("synapse_login_module")
_OTHER_PATHS = frozenset({"client", "replication"})
"""The resources of a listener that does not serve the module's paths. With ``client``, Synapse's
own paths take precedence; ``replication`` is for Synapse's processes only."""


def line_writer(homeserver: Homeserver) -> Callable[..., None]:
    """Return a function that writes an audit log's lines, each in the logging context of its
    request.

    From Twisted's logger, the lines would come under the name ``twisted`` and have no context.
    """
    write = emit_to(_logger)

    def emit(*arguments: object, **fields: object) -> None:
        with homeserver.logging_context():
            write(*arguments, **fields)

    return emit


def say_start(
    homeserver: Homeserver, plugins: Sequence[ProviderPlugin], loaded: Sequence[LoadedPlugin]
) -> None:
    """Log the version, the providers, and where the module's paths are served.

    The main process logs the facts that a standalone server does. Where it listens is a line of
    another form, since only the module's paths are meant.

    :param plugins: the entries of ``password_providers``.
    :param loaded: their classes and checked configurations.
    """
    if not homeserver.is_main:
        asked = ", ".join(
            plugin.name or cls.name for plugin, (cls, _) in zip(plugins, loaded, strict=True)
        )
        _logger.info(
            "synapse_login_module %s: on %s the module checks passwords with %s; the main process"
            " serves /tokenrefresh",
            *(__version__, homeserver.api.worker_name, asked),
        )
        return
    where = paths_listeners(homeserver.hs.config.server.listeners)
    if where:
        _logger.info(
            "the main process serves /login, /tokenrefresh and /refresh at %s", ", ".join(where)
        )
    else:
        _logger.warning(
            "no listener serves the module's paths: add one of type http without the resource"
            " client, and send the paths there"
        )
    config = homeserver.hs.config
    facts = [
        start_lines.version(),
        start_lines.store("Synapse's database", _database(config.database)),
        start_lines.providers(plugins, loaded, start_lines.accounts_at_start(loaded)),
        start_lines.homeserver(homeserver.server_name, config.server.public_baseurl, False),
    ]
    start_lines.say(facts, "start", emit_to(_logger))


def _database(config: Any) -> str | None:
    """Return where Synapse keeps the tables of sessions, without secrets; ``None`` if unknown.

    :param config: Synapse's ``DatabaseConfig``. ModuleApi: does not show it.
    """
    try:
        (main,) = (each.config for each in config.databases if "main" in each.databases)
        given = main.get("args") or {}
    except (AttributeError, ValueError):  # of another release of Synapse
        return None
    name = given.get("database") or given.get("dbname") or ""
    if main.get("name") == "sqlite3":
        return f"SQLite, {name}"
    host = given.get("host") or "its default socket"
    port = f", port {given['port']}" if given.get("port") else ""
    return f"database {name} of the PostgreSQL at {host}{port}"


def say_delegated_start(path: str, worker: str | None, listeners: Iterable[Any]) -> None:
    """Log the version, and where this process serves the one path of a delegating Synapse.

    :param worker: the worker's name; ``None`` on the main process.
    :param listeners: those of this process.
    """
    where = [place for each in listeners if each.http_options for place in _places(each)]
    _logger.info(
        "synapse_login_module %s: %s serves %s at %s",
        *(__version__, worker or "the main process", path, ", ".join(where) or "no listener"),
    )


def paths_listeners(listeners: Iterable[Any]) -> list[str]:
    """List where the paths are served, as ``address:port`` or the path of a Unix socket.

    :param listeners: the listeners of homeserver.yaml. ModuleApi: does not show them.
    """
    found: list[str] = []
    for listener in listeners:
        options = listener.http_options
        if options is None or any(
            _OTHER_PATHS.intersection(each.names) for each in options.resources
        ):
            continue
        found += _places(listener)
    return found


def _places(listener: Any) -> list[str]:
    if hasattr(listener, "path"):
        return [listener.path]
    return [_place(host, listener.port) for host in listener.bind_addresses]


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
