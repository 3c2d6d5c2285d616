"""Accounts in a password file of Apache's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zope.interface import provider

from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.hashes import parse_hash
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.providers.files import lines
from synapse_login_module.providers.files.accounts import FileConfig, FileProvider

_SCHEMES = {"bcrypt", *(f"crypt ${each}$" for each in ("5", "6", "7", "y", "gy"))}
"""What Apache checks itself, or has the system's ``crypt()`` check."""


class _Keys(Strict):
    path: FilePath


@provider(IPluginClass)
class HtpasswdProvider(FileProvider):
    """Checks passwords against a file that Apache's ``htpasswd`` maintains.

    Passwords are hashed as Apache hashes them, without NFKC and without a pepper.
    """

    name = "htpasswd"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> FileConfig:
        """Check ``path``; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        path = folder / validate(_Keys, config).path
        return lines.load(path, _read_line, normalize=False)


def _read_line(fields: list[str]) -> dict[str, Any]:
    """Use the hash and ignore the fields after it, as Apache does."""
    password_hash = fields[0]
    try:
        kind = parse_hash(password_hash).kind
    except ValueError as error:
        raise ValueError(f"{error}: set it anew with htpasswd -B") from None
    if not (password_hash.startswith("$") and kind.scheme in _SCHEMES):
        raise ValueError(f"{kind.scheme}, which Apache does not take: use BcryptProvider")
    return {"password_hash": password_hash}
