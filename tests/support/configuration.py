"""Configurations of the standalone server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bcrypt
import yaml

from synapse_login_module.testing import SERVER_NAME
from tests.support.accounts import ALICE_PASSWORD


def password_hash(password: str, cost: int = 4) -> str:
    """A bcrypt hash of a plain password, the cheapest there is."""
    return bcrypt.hashpw(password.encode("utf-8"), bcrypt.gensalt(cost)).decode("ascii")


CHEAP_HASH = password_hash(ALICE_PASSWORD)


def good_config(
    port: int = 8008, users: Mapping[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """A configuration with nothing wrong: one cheap account and no rate limits.

    :param users: the accounts, in the place of that one.
    :param changes: what is otherwise.
    """
    accounts = {"alice": {"password_hash": CHEAP_HASH}} if users is None else dict(users)
    return {
        "server_name": SERVER_NAME,
        "listen": [f"tcp:{port}:interface=127.0.0.1"],
        "password_providers": [
            {
                "module": "synapse_login_module.providers.BcryptProvider",
                "config": {"users": accounts},
            }
        ],
        "rate_limits": {"address": None, "account": None, "failed_attempts": None},
        "hashing": {"rounds": 4},
        **changes,
    }


def write_config(folder: Path, config: object) -> Path:
    """Write a configuration file, from a mapping or from YAML text."""
    path = folder / "config.yaml"
    text = config if isinstance(config, str) else yaml.safe_dump(config)
    path.write_text(text, encoding="utf-8")
    return path
