"""Warnings about files that other users of the machine may read or write, but should not.

The program works with such files. Two kinds are rejected where they are read: a key file that every
user may read, which is half of what forging a token takes, and a file of accounts that every user
may write to, and so log in as any account.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from synapse_login_module.model import Finding
from synapse_login_module.model.findings import warning

_SECRETS = frozenset(("pepper", "bind_password"))
_SECRET_FILES = frozenset(
    (
        "authorization_file",
        "bind_password_file",
        "headers_file",
        "password_file",
        "private_key_file",
        "secret_file",
        "secrets_file",
    )
)
_CONNECTIONS = frozenset(("dsn", "postgresql"))
_PASSWORD = re.compile(r"\bpassword\s*=|://[^/@\s]*:[^/@\s]*@")

_GROUP_OR_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def warnings(given: Mapping[str, Any], path: Path) -> Iterator[Finding]:
    """List the problems with the modes of a configuration file and of the files that it names.

    :param given: the parsed content of the file, without mistakes.
    :param path: the file.
    :return: one finding for each problem. A problem of the configuration file itself is of no
        key, so ``what`` is empty.
    """
    secrets = sorted(_secrets(given, ""))
    mode = _mode(path)
    if secrets and mode & stat.S_IROTH:
        found = f"everybody can read the file, and {secrets[0]} in it"
        yield _chmod("", found, "o-rwx", path)
    if mode & stat.S_IWOTH:
        yield _chmod("", "everybody may write to the file", "o-w", path)
    folder = path.absolute().parent
    providers = given.get("password_providers") or ()
    yield from of_providers([each.get("config") or {} for each in providers], folder)
    yield from _of_store(given, folder)
    homeserver = (given.get("homeserver") or {}).get("config") or {}
    yield from _of_secret_files("homeserver.config", homeserver, folder)


def of_providers(configs: Iterable[Mapping[str, Any]], folder: Path) -> Iterator[Finding]:
    """List the problems with the modes of the files that password providers name.

    :param configs: the ``config:`` block of each provider.
    :param folder: the folder that relative paths start from.
    :return: one finding for each problem.
    """
    for index, config in enumerate(configs):
        where = f"password_providers.{index}.config"
        yield from _of_secret_files(where, config, folder)
        mysql = config.get("mysql")
        if isinstance(mysql, Mapping):
            yield from _of_secret_files(f"{where}.mysql", mysql, folder)
        if isinstance(config.get("path"), str):
            path = folder / config["path"]
            mode = _mode(path)
            if mode & _GROUP_OR_OTHERS:
                problem = "its group may write to it, and so log in as any account"
                yield _chmod(f"{where}.path", f"{path}: {problem}", "go-w", path)
            if mode & stat.S_IROTH:
                problem = "everybody can read it, and its password hashes"
                yield _chmod(f"{where}.path", f"{path}: {problem}", "o-rwx", path)


def _of_store(given: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    config = (given.get("token_store") or {}).get("config") or {}
    yield from _of_secret_files("token_store.config", config, folder)
    database = folder / config.get("path", "sessions.db")
    if "dsn" not in config and _mode(database) & stat.S_IRWXO:
        found = f"{database}: everybody can read the sessions"
        yield _chmod("token_store.config.path", found, "o-rwx", database)


def _of_secret_files(where: str, config: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    for key in sorted(_SECRET_FILES & config.keys()):
        if isinstance(config[key], str):
            path = folder / config[key]
            if _mode(path) & stat.S_IRWXO:
                yield _chmod(f"{where}.{key}", "everybody can read it", "o-rwx", path)


def _chmod(what: str, found: str, change: str, path: Path) -> Finding:
    return warning(what, found, f"chmod {change} {path}")


def _secrets(given: object, path: str) -> Iterator[str]:
    """List the paths of the secrets in a configuration."""
    if isinstance(given, list):
        for index, each in enumerate(given):
            yield from _secrets(each, f"{path}.{index}")
    elif isinstance(given, Mapping):
        for key, value in given.items():
            secret = value if isinstance(value, str) else ""
            if key in _CONNECTIONS:
                secret = "".join(_PASSWORD.findall(secret))
            elif key not in _SECRETS and (key != "password" or not path.endswith(".mysql")):
                secret = ""
            inner = f"{path}.{key}".lstrip(".")
            yield from [inner] if secret else _secrets(value, inner)


def _mode(path: Path) -> int:
    """Return the permission bits of a file; 0 if there is none, or it is not a regular file."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return 0
    return stat.S_IMODE(mode) if stat.S_ISREG(mode) else 0
