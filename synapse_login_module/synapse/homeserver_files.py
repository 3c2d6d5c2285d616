"""Synapse's configuration files, as far as a command on its database needs them.

Synapse does not have to be installed. The files are merged as Synapse merges them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from synapse_login_module.config.files import read_bytes
from synapse_login_module.errors import ConfigError


@dataclass(frozen=True)
class HomeserverFiles:
    """What the files say.

    :param server_name: the server name.
    :param database: ``sqlite3`` or ``psycopg2``.
    :param arguments: the arguments of the connection, as ``args`` of ``database``.
    :param pepper: the pepper of local passwords.
    :param default_user_type: the ``user_type`` that every new account gets.
    :param notices_user: the local part of the user that sends server notices, or ``None``.
    """

    server_name: str
    database: str
    arguments: Mapping[str, Any] = field(repr=False)
    pepper: str = field(repr=False)
    default_user_type: str | None
    notices_user: str | None


def read_homeserver_files(paths: Sequence[str]) -> HomeserverFiles:
    """Read Synapse's configuration.

    A later file replaces whole keys of an earlier one. Of a folder, the files that end in ``.yaml``
    are read in the order of their names.

    :raise ConfigError: for the first mistake, with its path.
    """
    return parse_given(read_given(paths))


def read_given(paths: Sequence[str]) -> dict[str, Any]:
    """Read Synapse's configuration files, and merge them.

    :raise ConfigError: for a file that cannot be read, or is not YAML.
    """
    given: dict[str, Any] = {}
    for file in _files(map(Path, paths)):
        content = _parse(file)
        if isinstance(content, Mapping):
            given.update(content)
    return given


def parse_given(given: Mapping[str, Any]) -> HomeserverFiles:
    """Read what this package needs in Synapse's configuration.

    :raise ConfigError: for the first mistake, with its path.
    """
    server_name = given.get("server_name")
    if not isinstance(server_name, str):
        raise ConfigError("server_name", "it is missing")
    path, database = _main_database(given)
    arguments = database.get("args") or {}
    if database.get("name") not in ("sqlite3", "psycopg2"):
        raise ConfigError(f"{path}.name", "it is neither sqlite3 nor psycopg2")
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"{path}.args", "not a mapping")
    return HomeserverFiles(
        server_name,
        database["name"],
        arguments,
        str(_mapping(given, "password_config").get("pepper") or ""),
        _mapping(given, "user_types").get("default_user_type"),
        _mapping(given, "server_notices").get("system_mxid_localpart"),
    )


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(each for each in path.glob("*.yaml") if each.is_file())
        else:
            files.append(path)
    return files


def _parse(file: Path) -> object:
    try:
        return yaml.safe_load(read_bytes(file))
    except ConfigError as error:
        raise ConfigError("", f"{file}: {error}") from None
    except yaml.YAMLError as error:
        # PyYAML's own message quotes the text, which may be a password.
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigError("", f"{file}{where}: it is not YAML") from None


def _main_database(given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the path and the settings of the database that holds users and tokens."""
    several = _mapping(given, "databases")
    for name, each in several.items():
        if isinstance(each, Mapping) and "main" in each.get("data_stores", ("main",)):
            return f"databases.{name}", each
    database = _mapping(given, "database")
    if not database and isinstance(given.get("database_path"), str):
        arguments = {"database": given["database_path"]}
        return "database_path", {"name": "sqlite3", "args": arguments}
    if not database:
        raise ConfigError("database", "it is missing")
    return "database", database


def _mapping(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = given.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(key, "not a mapping")
    return value
