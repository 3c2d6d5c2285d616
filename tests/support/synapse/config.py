"""Writes the configuration files of a Synapse."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_UNLIMITED = {"per_second": 1e6, "burst_count": 1e6}


def homeserver_config(
    folder: Path,
    server_name: str,
    listeners: Sequence[Mapping[str, Any]],
    database: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """Return the base of every homeserver.yaml: cheap hashes, no rate limits, no federation.

    :param folder: the folder of Synapse's files.
    :param more: keys to add or replace.
    """
    return {
        "server_name": server_name,
        "report_stats": False,
        "pid_file": str(folder / "main.pid"),
        "signing_key_path": str(folder / "signing.key"),
        "log_config": str(folder / "main.log.yaml"),
        "media_store_path": str(folder / "media"),
        "macaroon_secret_key": "macaroon-secret-of-the-tests",
        "form_secret": "form-secret-of-the-tests",
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "bcrypt_rounds": 4,
        "rc_login": dict.fromkeys(("address", "account", "failed_attempts"), _UNLIMITED),
        "rc_registration": _UNLIMITED,
        "listeners": list(listeners),
        "database": dict(database),
        **more,
    }


def listener(port: int, *names: str) -> dict[str, Any]:
    """Return a listener on loopback with these resources; without any it is the module's."""
    return {
        "port": port,
        "type": "http",
        "bind_addresses": ["127.0.0.1"],
        "resources": [{"names": list(names)}] if names else [],
    }


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a YAML file."""
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False))


def write_signing_key(folder: Path) -> None:
    """Write a signing key."""
    seed = base64.b64encode(os.urandom(32)).decode("ascii").rstrip("=")
    (folder / "signing.key").write_text(f"ed25519 a_test {seed}\n")


def write_logging(folder: Path, name: str, **levels: str) -> None:
    """Configure a process to log at INFO, in Synapse's format, to ``name.log``.

    :param levels: other levels, by logger.
    """
    head = "%(asctime)s - %(name)s - %(lineno)d - %(levelname)s"
    logging = {
        "version": 1,
        "formatters": {"line": {"format": f"{head} - %(request)s - %(message)s"}},
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "formatter": "line",
                "filename": str(folder / f"{name}.log"),
            }
        },
        "loggers": {logger: {"level": level} for logger, level in levels.items()},
        "root": {"level": "INFO", "handlers": ["file"]},
        "disable_existing_loggers": False,
    }
    write_yaml(folder / f"{name}.log.yaml", logging)
