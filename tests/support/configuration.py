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
    """Hash a password with bcrypt, by default at the lowest cost."""
    return bcrypt.hashpw(password.encode("utf-8"), bcrypt.gensalt(cost)).decode("ascii")


CHEAP_HASH = password_hash(ALICE_PASSWORD)


def good_config(
    port: int = 8008, users: Mapping[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Return a valid configuration with one account, a cheap hash and no rate limits.

    :param users: accounts to replace that one.
    :param changes: keys to add or replace.
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
