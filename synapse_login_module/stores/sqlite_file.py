"""Checks and makes the SQLite file of a store."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from synapse_login_module.config.files import is_there
from synapse_login_module.config.validation import config_path
from synapse_login_module.errors import ConfigError
from synapse_login_module.stores.schema_version import require_newest
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.stores.sqlite_schema import MIGRATIONS, migrate, version_of

_NEEDED = 64 * 1024
"""Bytes that SQLite needs to open a file in WAL mode: it makes two files beside it."""


def check(path: Path) -> None:
    """Check that the file can be used, changing nothing.

    :raise ConfigError: when it cannot.
    """
    if not config_path("path", is_there, path):
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise ConfigError("path", f"cannot make a file in {path.parent}")
        return
    if path.is_dir():
        raise ConfigError("path", f"{path} is a folder: name a file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise ConfigError("path", f"cannot read and write {path}")
    try:
        version_at(path)
    except sqlite3.Error as error:
        raise ConfigError("path", f"cannot use {path}: {_reason(path, error)}") from None


def _reason(path: Path, error: sqlite3.Error) -> object:
    """Return why a file cannot be opened. On a full disk SQLite only says "disk I/O error"."""
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return error
    return "its disk is full" if free < _NEEDED else error


def version_at(path: Path) -> int:
    """Read the version of the schema of a file, which is not made; 0 is an empty file.

    :raise sqlite3.Error: when the file cannot be read.
    :raise ConfigError: when a newer version of this program has migrated the file further.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return version_of(connection)


def prepare(path: Path, read_only: bool = False) -> None:
    """Create the file, with access for its owner only, and migrate the schema.

    The connection is closed again, because the process may fork into the background next.

    :param read_only: whether to change nothing, and only check the version of the schema.
    :raise ConfigError: when the file cannot be used, or would have to be migrated.
    """
    try:
        if read_only:
            require_newest("path", version_at(path), len(MIGRATIONS))
            return
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = connect(path)
        try:
            migrate(connection)
        finally:
            connection.close()
    except OSError as error:
        raise ConfigError("path", f"cannot use {path}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise ConfigError("path", f"cannot use {path}: {error}") from None
