"""Accounts of a file in the manner of ``/etc/passwd``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer, provider

from synapse_login_module.config.files import ReadFile, stamp_of
from synapse_login_module.config.validation import FilePath, Strict, validate
from synapse_login_module.interfaces import IPasswordProvider, IWatchedAccounts
from synapse_login_module.model import Account, AccountStatus, Identifier
from synapse_login_module.plugin import Environment, IPluginClass
from synapse_login_module.providers.files import lines
from synapse_login_module.providers.files.accounts import Accounts, watch
from synapse_login_module.providers.files.users import UserIndex

_LOCKED = "!"


class _Keys(Strict):
    path: FilePath
    pepper: str = ""


@dataclass(frozen=True)
class PasswdConfig:
    """The checked configuration of :class:`PasswdProvider`."""

    file: ReadFile[UserIndex]
    pepper: str = field(repr=False)


@implementer(IPasswordProvider, IWatchedAccounts)
@provider(IPluginClass)
class PasswdProvider:
    """Accounts of ``name:hash[:display name[:e-mails]]`` lines, read again when the file changes.

    Hashes are bcrypt by Synapse's rule; one with ``!`` before it is a locked account's.
    """

    name = "passwd"

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> PasswdConfig:
        """Take ``path`` and ``pepper``; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        keys = validate(_Keys, config)
        return PasswdConfig(lines.load(folder / keys.path, _read_line), keys.pepper)

    def __init__(self, config: PasswdConfig, environment: Environment) -> None:
        self._path = config.file.path
        hashing = environment.hashing

        def check(password: str, password_hash: str) -> Deferred[bool]:
            return hashing.check(password, password_hash, config.pepper)

        self._accounts = Accounts(
            config.file.value, watch(config.file, environment), check, self.name, environment
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
    password_hash, display_name, *emails = [field.strip() for field in (*fields, "")]
    return {
        "password_hash": password_hash.removeprefix(_LOCKED),
        "locked": password_hash.startswith(_LOCKED),
        "display_name": display_name or None,
        "emails": [email.strip() for each in emails for email in each.split(",") if email.strip()],
    }
