"""Reads a configuration file and checks everything that can be checked without starting."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from synapse_login_module.compose import (
    LoadedPlugin,
    check_plugins,
    load_plugin,
    load_providers,
    require_known_providers,
)
from synapse_login_module.config import listen, yaml_loader
from synapse_login_module.config.files import is_there, read_bytes
from synapse_login_module.config.settings import Config, HomeserverKeys, parse
from synapse_login_module.config.validation import config_path
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.interfaces import IDelegatedStore, IHomeserver, ILinks, ITokenStore
from synapse_login_module.model import UserId
from synapse_login_module.passwords import check_password
from synapse_login_module.providers.files.bcrypt import BcryptConfig
from synapse_login_module.tokens import keyfile
from synapse_login_module.web import compat
from synapse_login_module.web.internal import DEADLINE

_SYNAPSE_KEYS = frozenset(("listeners", "database", "modules", "signing_key_path", "report_stats"))
"""Keys that only Synapse's configuration has."""

_NO_PROVIDERS = [{"module": "no.providers"}]
"""A stand-in for password providers that cannot be read."""

EXAMPLE_USER = ("cheeky_monkey", "ilovebananas")
"""The account of the Matrix specification's example, whose password is public."""


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration, checked as far as possible without starting.

    :param document: the bytes of the configuration file.
    :param given: the same, parsed.
    :param folder: the base of relative paths.
    """

    document: bytes = field(repr=False)
    given: Mapping[str, Any] = field(repr=False)
    config: Config
    folder: Path
    providers: Sequence[LoadedPlugin]
    store: LoadedPlugin
    homeserver: LoadedPlugin | None = None

    @property
    def key_file(self) -> Path:
        """The path of the file with the token keys."""
        return self.folder / self.config.tokens.key_file


def load_config(path: Path, reactor: Any, *, starts: bool = False) -> LoadedConfig:
    """Read and check a configuration file without writing or starting anything.

    :param starts: whether the server starts now, and systemd has handed over its sockets.
    :raise ConfigError: with every mistake in it.
    """
    document = read_bytes(path)
    return load_parsed(document, yaml_loader.parse(document), path, reactor, starts=starts)


def load_parsed(
    document: bytes, given: Mapping[str, Any], path: Path, reactor: Any, *, starts: bool = False
) -> LoadedConfig:
    """Check a configuration file that has been read and parsed; see :func:`load_config`."""
    mistakes = Mistakes()
    loaded = None
    with mistakes.gathered():
        loaded = _check(given, document, path)
    _check_listen(mistakes, given, reactor, starts)
    mistakes.raise_any()
    assert loaded is not None
    return loaded


def is_homeserver_config(given: Mapping[str, Any]) -> bool:
    """Return whether a file is Synapse's configuration and not the standalone server's."""
    return "password_providers" not in given and not _SYNAPSE_KEYS.isdisjoint(given)


def check_config(document: bytes, path: Path) -> LoadedConfig:
    """Check the content of a configuration file, except ``listen``.

    :param document: the bytes of the file.
    :raise ConfigError: with every mistake in it.
    """
    return _check(yaml_loader.parse(document), document, path)


def _check(given: Mapping[str, Any], document: bytes, path: Path) -> LoadedConfig:
    missing = compat.find_incompatibility()
    if missing is not None:
        raise ConfigError("", f"this release of Twisted is not supported: it lacks {missing}")
    if is_homeserver_config(given):
        raise ConfigError("", "this is Synapse's file: the standalone server needs its own")
    folder = path.absolute().parent
    mistakes = Mistakes()
    config = None
    with mistakes.gathered():
        config = parse(given)
    if config is None:
        with mistakes.gathered():
            check_plugins(given, folder)
        mistakes.raise_any()
        raise AssertionError("nothing was wrong")
    providers: Sequence[LoadedPlugin] = ()
    store = None
    with mistakes.gathered():
        providers = load_providers(config, folder)
        _refuse_example_user(config, providers)
        _refuse_keys_of_the_module(providers)
    with mistakes.gathered():
        store = _load_store(config, folder)
    homeserver = None
    with mistakes.gathered():
        homeserver = _load_homeserver(config, store, providers, folder)
    with mistakes.gathered():
        config_path("tokens.key_file", _check_key_file, folder / config.tokens.key_file)
    mistakes.raise_any()
    assert store is not None
    return LoadedConfig(document, given, config, folder, providers, store, homeserver)


def _refuse_keys_of_the_module(providers: Sequence[LoadedPlugin]) -> None:
    """Raise ``ConfigError`` for a key of a provider that counts only inside Synapse."""
    for index, (_, config) in enumerate(providers):
        for key, problem in getattr(config, "only_inside_synapse", {}).items():
            raise ConfigError(
                f"password_providers.{index}.config.{key}", f"only inside Synapse: {problem}"
            )


def _check_listen(mistakes: Mistakes, given: Mapping[str, Any], reactor: Any, starts: bool) -> None:
    """Check each endpoint description, even if the rest of the configuration has mistakes."""
    known = set()
    for key in ("listen", "internal_listen"):
        descriptions = given.get(key)
        for index, description in enumerate(descriptions if isinstance(descriptions, list) else ()):
            if not isinstance(description, str):
                continue
            if description in known:
                mistakes.add(f"{key}.{index}", "the same endpoint is listed twice")
            known.add(description)
            with mistakes.gathered():
                config_path(
                    f"{key}.{index}", partial(listen.check, starts=starts), reactor, description
                )


def _load_store(config: Config, folder: Path) -> LoadedPlugin:
    store = load_plugin("token_store", config.token_store, folder, ITokenStore)
    if not ILinks.implementedBy(store[0]):
        raise ConfigError("token_store.module", "the store keeps no links: it lacks ILinks")
    return store


_WITH_HOMESERVER = ("existing_accounts", "link_accounts")
"""Keys that have no meaning without ``homeserver``: no account exists then before its login."""


def _load_homeserver(
    config: Config,
    store: LoadedPlugin | None,
    providers: Sequence[LoadedPlugin],
    folder: Path,
) -> LoadedPlugin | None:
    mistakes = Mistakes()
    if config.homeserver is None:
        for key in _WITH_HOMESERVER:
            if getattr(config, key) != Config.model_fields[key].default:
                mistakes.add(key, "only valid with homeserver, which has accounts of its own")
        mistakes.raise_any()
        return None
    loaded = None
    with mistakes.gathered():
        loaded = load_plugin("homeserver", config.homeserver, folder, IHomeserver)
        _refuse_foreign_admins(loaded[1], config.server_name)
    if not config.internal_listen:
        mistakes.add("internal_listen", "the homeserver needs an endpoint to ask about tokens at")
    if config.public_baseurl is None:
        mistakes.add("public_baseurl", "the homeserver tells clients this URL: it is required")
    if config.tokens.account_check_timeout >= DEADLINE * 1000:
        mistakes.add(
            "tokens.account_check_timeout",
            f"must be below {DEADLINE:g}s, within which the homeserver is told about tokens",
        )
    if store is not None and not IDelegatedStore.implementedBy(store[0]):
        mistakes.add("token_store.module", "no store for a homeserver: it lacks IDelegatedStore")
    for index, exception in enumerate(config.link_accounts):
        if not exception.user_id.endswith(f":{config.server_name}"):
            mistakes.add(f"link_accounts.{index}", f"not an account of {config.server_name}")
    if providers:
        with mistakes.gathered():
            require_known_providers(config, providers)
    mistakes.raise_any()
    return loaded


def _refuse_foreign_admins(parsed: Any, server_name: str) -> None:
    """Raise ``ConfigError`` for administrators of another server.

    :param parsed: the homeserver's configuration. Its keys are this, or are in ``keys``.
    """
    keys = getattr(parsed, "keys", parsed)
    mistakes = Mistakes()
    for index, admin in enumerate(keys.admins if isinstance(keys, HomeserverKeys) else ()):
        if UserId.parse(admin, "").server_name != server_name:
            path = f"homeserver.config.admins.{index}"
            mistakes.add(path, f"{admin} is no user of {server_name}")
    mistakes.raise_any()


def load_for_store(path: Path) -> tuple[LoadedConfig, Exception | None]:
    """Read a configuration file for a command that works on its store alone.

    Nothing is written and nothing started.

    :return: the configuration, and the error of its password providers or ``None``. With an error,
        the configuration has no providers.
    :raise ConfigError: with the mistakes in the rest of it.
    """
    document = read_bytes(path)
    given = yaml_loader.parse(document)
    if is_homeserver_config(given):
        raise ConfigError("", _FOR_STANDALONE)
    folder = path.absolute().parent
    problem: Exception | None = None
    providers: Sequence[LoadedPlugin] = ()
    try:
        config = parse(given)
        providers = load_providers(config, folder)
    except Exception as error:  # a third party's provider may raise anything
        problem = error
        config = parse({**given, "password_providers": _NO_PROVIDERS})
    store = _load_store(config, folder)
    return LoadedConfig(document, given, config, folder, providers, store), problem


_FOR_STANDALONE = (
    "this is Synapse's configuration, and the command is for the standalone server. Inside Synapse"
    " the admin API of Synapse lists and ends sessions (/_synapse/admin/v2/users/USER/devices) and"
    " makes login tokens; links … take --homeserver-config"
)


def _check_key_file(path: Path) -> None:
    if is_there(path):
        keyfile.load(path)
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError("", f"cannot make a file in {path.parent}")


def _refuse_example_user(config: Config, providers: Sequence[LoadedPlugin]) -> None:
    """Reject the example's account on a network, since its password is public."""
    if all(listen.is_local(description) for description in config.listen):
        return
    name, password = EXAMPLE_USER
    for index, (_, parsed) in enumerate(providers):
        user = parsed.directory.users.get(name) if isinstance(parsed, BcryptConfig) else None
        if user and check_password(password, user.password_hash, parsed.pepper):
            raise ConfigError(
                f"password_providers.{index}.config",
                f"{name} has the example's public password: change it, or listen on loopback only",
            )
