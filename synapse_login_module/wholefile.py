"""Files that a configuration names, read whole."""

from __future__ import annotations

from pathlib import Path

from synapse_login_module.errors import ConfigError


def read_bytes(path: Path) -> bytes:
    """What a file holds.

    :raise ConfigError: when it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("", f"cannot read it: {error.strerror}") from None
