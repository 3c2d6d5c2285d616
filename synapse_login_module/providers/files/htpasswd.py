"""Accounts in a password file of Apache's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zope.interface import provider

from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.passwords import cost_of
from synapse_login_module.plugin import IPluginClass
from synapse_login_module.providers.files import lines
from synapse_login_module.providers.files.accounts import FileConfig, FileProvider

_OTHERS = (
    (r"\$apr1\$", "an MD5 entry ($apr1$, what htpasswd -m makes)"),
    (r"\{SHA\}", "a SHA-1 entry ({SHA}, what htpasswd -s makes)"),
    (r"\$5\$", "a SHA-256 entry ($5$, what htpasswd -2 makes)"),
    (r"\$6\$", "a SHA-512 entry ($6$, what htpasswd -5 makes)"),
    (r"\$2[abxy]?\$", "a bcrypt entry that is cut short or damaged"),
    (r"[./0-9A-Za-z]{13}$", "a crypt() entry (what htpasswd -d makes)"),
)


class _Keys(Strict):
    path: FilePath


@provider(IPluginClass)
class HtpasswdProvider(FileProvider):
    """Checks passwords against a file that Apache's ``htpasswd -B`` maintains.

    Passwords are hashed as Apache hashes them, without NFKC and without a pepper.
    """

    name = "htpasswd"
    normalize = False

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> FileConfig:
        """Check ``path``; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        return lines.load(folder / validate(_Keys, config).path, _read_line)


def _read_line(fields: list[str]) -> dict[str, Any]:
    """Use the hash and ignore the fields after it, as Apache does."""
    password_hash = fields[0]
    try:
        cost_of(password_hash)
    except ValueError:
        kind = next(
            (kind for pattern, kind in _OTHERS if re.match(pattern, password_hash)),
            "an entry in plain text, or of no known kind",
        )
        raise ValueError(f"{kind}; only bcrypt is taken: set it anew with htpasswd -B") from None
    return {"password_hash": password_hash}
