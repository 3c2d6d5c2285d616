"""Accounts in a file of the form of ``/etc/passwd``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zope.interface import provider

from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.providers.files import lines
from synapse_login_module.providers.files.accounts import FileConfig, FileProvider

_LOCKED = "!"


class _Keys(Strict):
    path: FilePath
    pepper: str = ""
    normalize: bool | None = None


@provider(IPluginClass)
class PasswdProvider(FileProvider):
    """Checks passwords against a file of ``name:hash[:display name[:e-mails]]`` lines.

    Hashes may be of any format. A ``!`` before the hash locks the account.
    """

    name = "passwd"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> FileConfig:
        """Check ``path``, ``pepper`` and ``normalize``; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        keys = validate(_Keys, config)
        return lines.load(folder / keys.path, _read_line, keys.pepper, keys.normalize)


def _read_line(fields: list[str]) -> dict[str, Any]:
    password_hash, display_name, *emails = [field.strip() for field in (*fields, "")]
    return {
        "password_hash": password_hash.removeprefix(_LOCKED),
        "locked": password_hash.startswith(_LOCKED),
        "display_name": display_name or None,
        "emails": [email.strip() for each in emails for email in each.split(",") if email.strip()],
    }
