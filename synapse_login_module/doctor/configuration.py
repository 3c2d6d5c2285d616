"""Reads a configuration, reports every mistake, and goes on with the parts that are right."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synapse_login_module.compose import LoadedPlugin, load_plugin
from synapse_login_module.config import yaml_loader
from synapse_login_module.config.files import is_there, read_bytes
from synapse_login_module.config.settings import Config, Plugin, ProviderPlugin, SharedConfig, parse
from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import IHomeserver, IPasswordProvider, ITokenStore
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import failed, good, warning
from synapse_login_module.standalone.plan import load_parsed
from synapse_login_module.tokens import keyfile
from synapse_login_module.tokens.format import KeyRing

AREA = "configuration"


@dataclass(frozen=True)
class LoadedProvider:
    """A password provider whose configuration is right.

    :param index: its place among ``password_providers``.
    """

    index: int
    plugin: ProviderPlugin
    loaded: LoadedPlugin

    @property
    def name(self) -> str:
        """Its name."""
        return self.plugin.name or str(self.loaded[0].name)


@dataclass(frozen=True)
class Parts:
    """The parts of the standalone server's configuration that have no mistake.

    :param given: the configuration, parsed.
    :param keys: the token keys; ``None`` where there is no file of them yet.
    """

    given: Mapping[str, Any] = field(repr=False)
    config: Config
    folder: Path
    providers: Sequence[LoadedProvider]
    store: LoadedPlugin | None
    homeserver: LoadedPlugin | None
    keys: KeyRing | None

    @property
    def key_file(self) -> Path:
        """The path of the file with the token keys."""
        return self.folder / self.config.tokens.key_file


def read_given(path: Path) -> tuple[bytes, Mapping[str, Any]]:
    """Read a configuration file; return its bytes, and what they say.

    :raise ConfigError: when it cannot be read.
    """
    document = read_bytes(path)
    return document, yaml_loader.parse(document)


def load_parts(
    document: bytes, given: Mapping[str, Any], path: Path, reactor: Any
) -> tuple[list[Finding], Parts | None]:
    """Check the standalone server's configuration as ``check-config`` does.

    :return: the findings, and the parts without a mistake; ``None`` for the parts when nothing can
        be examined.
    """
    findings: list[Finding] = []
    try:
        load_parsed(document, given, path, reactor)
    except ConfigError as error:
        findings += of_mistakes(error, path)
    else:
        findings.append(good(str(path), "no mistake in it", AREA))
    try:
        config = parse(given)
    except ConfigError:
        findings.append(nothing_else(path))
        return findings, None
    folder = path.absolute().parent
    providers = load_each_provider(config, folder)
    store = _load("token_store", config.token_store, folder, ITokenStore)
    homeserver = None
    if config.homeserver is not None:
        homeserver = _load("homeserver", config.homeserver, folder, IHomeserver)
    keys = None
    with contextlib.suppress(ConfigError):  # reported already
        key_file = folder / config.tokens.key_file
        keys = keyfile.load(key_file) if is_there(key_file) else None
    return findings, Parts(given, config, folder, providers, store, homeserver, keys)


def load_each_provider(config: SharedConfig, folder: Path) -> list[LoadedProvider]:
    """Load the providers that have no mistake."""
    found = []
    for index, plugin in enumerate(config.password_providers):
        loaded = _load(f"password_providers.{index}", plugin, folder, IPasswordProvider)
        if loaded is not None:
            found.append(LoadedProvider(index, plugin, loaded))
    return found


def of_mistakes(error: ConfigError, path: object) -> Iterator[Finding]:
    """Report each mistake in a configuration."""
    for each in error.all():
        yield failed(each.path or str(path), each.problem, _advice(each, path), AREA)


def nothing_else(path: object) -> Finding:
    """Report that nothing else was examined."""
    found = "nothing else was examined, because of the mistakes"
    return warning(str(path), found, "correct them, and run the command again", AREA)


def _load(path: str, plugin: Plugin, folder: Path, interface: Any) -> LoadedPlugin | None:
    try:
        return load_plugin(path, plugin, folder, interface)
    except ConfigError:  # reported already
        return None


def _advice(error: ConfigError, path: object) -> str:
    problem = error.problem
    if "pip install" in problem or "chmod" in problem:
        return "do what the line says, in the environment and as the user of the server"
    if error.path.startswith("token_store.config.path"):
        if "disk is full" in problem:
            return "free some space on it"
        if "not a database" in problem or "malformed" in problem:
            return f"put the file back from a backup, or correct its name in {path}"
        if "schema is version" in problem:
            return "install the version of this program that has used the file last"
        return "give the file and its folder to the server's user, on a disk mounted for writing"
    if "no such table" in problem or "no such column" in problem:
        return f"make it in that database, or correct the query in {path}"
    if "cannot read" in problem:
        return f"let the server's user read it, or correct its name in {path}"
    return f"correct it in {path}"
