"""Reading files of ``name:hash`` lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from synapse_login_module.config.files import ReadFile, read_accounts
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.model import fold
from synapse_login_module.providers.files.accounts import FileConfig
from synapse_login_module.providers.files.users import UserIndex, same_user_id

ReadLine = Callable[[list[str]], dict[str, Any]]
"""Makes a ``users:`` entry from the fields after the name. Raises ``ValueError`` with a reason."""


def load(
    path: Path, read_line: ReadLine, pepper: str = "", normalize: bool | None = None
) -> FileConfig:
    """Read a file of ``name:hash`` lines.

    :param read_line: parses the fields after the name.
    :param pepper: the text that is appended to each password before hashing.
    :param normalize: see :class:`FileConfig`.
    :raise ConfigError: names each line with a mistake, and never a hash.
    """
    file = ReadFile.load("path", path, partial(_read, read_line=read_line))
    return FileConfig(file.value, pepper, file, normalize)


def _read(path: Path, read_line: ReadLine) -> UserIndex:
    content = read_accounts(path)
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        where = f"line {content.count(bytes([10]), 0, error.start) + 1}"
        raise ConfigError(where, "not UTF-8: save the file in UTF-8") from None
    mistakes = Mistakes()
    users: dict[str, Mapping[str, Any]] = {}
    numbers: dict[str, int] = {}
    folded: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *fields = line.split(":")
        try:
            if not fields:
                raise ValueError("there is no colon in it")
            if name in users:
                raise ValueError(f"{name} stands in line {numbers[name]} already")
            other = folded.setdefault(fold(name), name)
            if other != name:
                raise ValueError(same_user_id(name, f"{other} in line {numbers[other]}"))
            users[name], numbers[name] = read_line(fields), number
            UserIndex.read({"users": {name: users[name]}})
        except ConfigError as error:
            mistakes.add(f"line {number}", error.problem)
        except ValueError as error:
            mistakes.add(f"line {number}", str(error))
    mistakes.raise_any()
    return _indexed(users, numbers)


def _indexed(users: Mapping[str, Any], numbers: Mapping[str, int]) -> UserIndex:
    try:
        return UserIndex.read({"users": users})
    except ConfigError as error:
        name = error.path.removeprefix("users.").rpartition(".")[0]
        where = f"line {numbers[name]}" if name in numbers else error.path
        raise ConfigError(where, error.problem) from None
