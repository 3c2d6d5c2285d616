"""Accounts of an Apache password file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer, provider

from synapse_login_module.config.files import ReadFile, stamp_of
from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.interfaces import IPasswordProvider, IWatchedAccounts
from synapse_login_module.model import Account, AccountStatus, Identifier
from synapse_login_module.passwords import cost_of
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.files import lines
from synapse_login_module.providers.files.accounts import Accounts, watch
from synapse_login_module.providers.files.users import UserIndex

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


@implementer(IPasswordProvider, IWatchedAccounts)
@provider(IPluginClass)
class HtpasswdProvider:
    """Accounts of a file that Apache's ``htpasswd -B`` keeps, read again when it changes.

    Passwords are hashed as Apache hashes them: as they come, without NFKC and without a pepper.
    """

    name = "htpasswd"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> ReadFile[UserIndex]:
        """Take ``path``; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        return lines.load(folder / validate(_Keys, config).path, _read_line)

    def __init__(self, config: ReadFile[UserIndex], environment: Environment) -> None:
        self._path = config.path
        hashing = environment.hashing

        def check(password: str, password_hash: str) -> Deferred[bool]:
            return hashing.check(password, password_hash, "", normalize=False)

        self._accounts = Accounts(
            config.value, watch(config, environment), check, self.name, environment
        )

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._accounts.authenticate(identifier, password)

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look again; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._accounts.account_status(subject)

    def version(self) -> object:
        """Say what changes with the file; see
        :class:`~synapse_login_module.interfaces.IWatchedAccounts`.
        """
        return stamp_of(self._path)


def _read_line(fields: list[str]) -> dict[str, Any]:
    """Take the hash alone, as Apache does; what comes after it is for people."""
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
