"""What ``import-synapse`` says is to be done next with a file of accounts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synapse_login_module.errors import ConfigError
from synapse_login_module.standalone.plan import LoadedConfig

_CLASS = "BcryptProvider"
_NAME = "synapse"


def provider_to_add(loaded: LoadedConfig, path: Path, pepper_of: str | None) -> Iterator[str]:
    """Make the lines of YAML that add the provider of a file to the configuration.

    :param pepper_of: the files that have the pepper of its hashes, or ``None`` without a pepper.
    """
    yield "  password_providers:"
    yield f"    - module: synapse_login_module.providers.{_CLASS}"
    entries = [entry for _, entry in _entries(loaded)]
    if any(str(each.get("module")).endswith(f".{_CLASS}") for each in entries):
        yield f"      name: {_free_name(entries)}"
    yield "      config:"
    yield f"        path: {json.dumps(str(path.resolve()))}"
    if pepper_of is not None:
        yield f"        # pepper: copy it from password_config.pepper in {pepper_of}"


def names_file(loaded: LoadedConfig, path: Path) -> bool:
    """Return whether a provider of the configuration names a file, which need not exist."""
    return bool(_places(loaded, path))


def lacks_only(problem: Exception, loaded: LoadedConfig, path: Path) -> bool:
    """Return whether the providers' only problem is that a file does not exist yet."""
    places = _places(loaded, path)
    mistakes = problem.all() if isinstance(problem, ConfigError) else ()
    return bool(mistakes) and not path.exists() and all(each.path in places for each in mistakes)


def _places(loaded: LoadedConfig, path: Path) -> set[str]:
    found = set()
    for index, entry in _entries(loaded):
        config = entry.get("config")
        named = config.get("path") if isinstance(config, Mapping) else None
        if isinstance(named, str) and (loaded.folder / named).resolve() == path.resolve():
            found.add(f"password_providers.{index}.config.path")
    return found


def _entries(loaded: LoadedConfig) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the providers as they are given, since they may have mistakes."""
    given = loaded.given.get("password_providers")
    entries = enumerate(given if isinstance(given, list) else ())
    return [(index, entry) for index, entry in entries if isinstance(entry, Mapping)]


def _free_name(entries: list[Mapping[str, Any]]) -> str:
    taken = set()
    for each in entries:
        former = each.get("former_names")
        taken |= {str(each.get("name")), *map(str, former if isinstance(former, list) else ())}
    number, name = 1, _NAME
    while name in taken:
        number += 1
        name = f"{_NAME}{number}"
    return name
