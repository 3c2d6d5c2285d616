"""What commands that only read ask of a schema, which they leave as it is."""

from __future__ import annotations

from synapse_login_module.errors import ConfigError


def require_newest(path: str, version: int, newest: int) -> None:
    """Check that a schema needs no migration.

    :param path: the key of the configuration that names the database.
    :param version: the version of its schema.
    :param newest: the version that this program works with.
    :raise ConfigError: when it is older.
    """
    if version < newest:
        raise ConfigError(
            path,
            f"its schema is version {version}, older than {newest}, which this program needs:"
            " start the server once, which migrates it",
        )
